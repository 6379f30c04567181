//! Lines of a TOML text, and what of the text above a line may say what stands in it: strings and arrays go on over several.

use std::ops::Range;

use toml_parser::lexer::TokenKind;

pub(super) struct Lines {
    starts: Vec<usize>,
    /// Strings of several lines, in their order.
    strings: Vec<Range<usize>>,
}

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { starts, strings: strings(text) }
    }

    /// Number of the line that byte `at` is in, counted from 1, and the byte that it starts at.
    pub(super) fn find(&self, at: usize) -> (u32, usize) {
        let number = self.starts.partition_point(|&start| start <= at);
        (u32::try_from(number).unwrap_or(u32::MAX), self.starts[number - 1])
    }

    /// Where that begins which the line that starts at byte `line` goes on with: `line` where it goes on with nothing.
    ///
    /// The text may be broken, and what looks like a string begin where one ends. So lines that look like none of their own belong
    /// to those above, as far as it is likely.
    pub(super) fn beginning(&self, text: &str, line: usize) -> usize {
        let mut start = line;
        let mut likely = MAX_LIKELY;
        loop {
            let strings = &self.strings[..self.strings.partition_point(|string| string.start < start)];
            let from = match strings.last().filter(|string| start <= string.end) {
                Some(string) => string.start,
                None if start > 0 && likely > 0 && goes_on(&text[start..]) => {
                    likely -= 1;
                    start - 1
                }
                None => return start,
            };
            start = self.find(from).1;
        }
    }
}

fn strings(text: &str) -> Vec<Range<usize>> {
    if !["\"\"\"", "'''"].iter().any(|mark| text.contains(mark)) {
        return Vec::new();
    }
    let tokens = toml_parser::Source::new(text).lex();
    let long = |kind| matches!(kind, TokenKind::MlBasicString | TokenKind::MlLiteralString);
    tokens.filter(|token| long(token.kind())).map(|token| token.span().start()..token.span().end()).collect()
}

/// Whether a line neither begins anything itself nor is a comment.
fn goes_on(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default().trim_start();
    let behind_key = line.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_-.\"' \t".contains(c));
    let begins =
        line.starts_with(['[', '#']) || (behind_key.len() < line.len() && behind_key.starts_with('='));
    !begins
}

/// Lines above one that it may go on with although they are in no string together.
const MAX_LIKELY: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// For each line the number of the one that it goes on with.
    fn beginnings(text: &str) -> Vec<u32> {
        let lines = Lines::of(text);
        let number = |start: &usize| lines.find(lines.beginning(text, *start)).0;
        lines.starts.iter().map(number).collect()
    }

    #[test]
    fn lines_of_a_string_or_an_array_belong_together_and_others_do_not() {
        assert_eq!(beginnings("a = 1\nb = 2\n[c]\n# d\ne = 3"), [1, 2, 3, 4, 5]);
        assert_eq!(beginnings("a = \"\"\"\nb = 2\n[c]\n\"\"\" # d\ne = '''x\nf = 1'''"), [1, 1, 1, 1, 5, 5]);
        assert_eq!(beginnings("a = [\n  \"x\",\n  y\n]\nb = 1"), [1, 1, 1, 1, 5]);
        // Broken: the string that the first line begins ends in the third one.
        assert_eq!(beginnings("a = \"\"\"b\nc = 1\nd = \"\"\"\nsecret\n\"\"\"\ne = 2"), [1, 1, 1, 1, 1, 1]);
        assert_eq!(beginnings(&format!("a = [{}", "\n1,".repeat(20)))[15..], [1, 1, 2, 3, 4, 5]);
        assert_eq!(beginnings(""), [1]);
    }
}
