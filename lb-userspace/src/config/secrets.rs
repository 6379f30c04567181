//! What is wrong is shown with its line, in the log and in `status`, which others read than the file: secrets in it are not.

use std::ops::Range;

use crate::domain::may_be_secret;

/// Shown in the place of a secret.
pub(super) const HIDDEN: &str = "(hidden)";

/// Which of a line's characters may be a secret: what follows the name of one (`password = "..."`, `"Authorization: ..."`,
/// `"/healthz?token=..."`), to the end of the text that it stands in. The line may be broken, so this goes by quotes alone.
///
/// `above`: the lines that it goes on with, in which the name may stand.
pub(super) fn of_line(above: &str, line: &str) -> Vec<Range<usize>> {
    let (before, length) = (above.chars().count(), line.chars().count());
    if above.len() > MAX_ABOVE {
        return std::iter::once(0..length).filter(|all| !all.is_empty()).collect();
    }
    let text = joined(above.chars().chain(line.chars()));
    let place = |at: usize| text.get(at).map_or(before + length, |(place, _)| *place);
    let chars: Vec<char> = text.iter().map(|(_, c)| *c).collect();
    let secrets = find(&chars, None).into_iter().map(|secret| place(secret.start)..place(secret.end));
    let in_line = secrets.filter(|secret| secret.end > before);
    in_line.map(|secret| secret.start.saturating_sub(before)..secret.end - before).collect()
}

/// A value's text without the secret in it.
pub(super) fn hidden_in(text: &str) -> String {
    let text: Vec<char> = text.chars().collect();
    match find(&text, Some(ENDLESS)).first() {
        Some(secret) => text[..secret.start].iter().copied().chain(HIDDEN.chars()).collect(),
        None => text.into_iter().collect(),
    }
}

/// Characters with their places. A word that is cut by a backslash at a line's end is one.
fn joined(text: impl Iterator<Item = char>) -> Vec<(usize, char)> {
    let mut joined = Vec::new();
    let mut text = text.enumerate().peekable();
    while let Some((at, c)) = text.next() {
        let cut = joined.len();
        joined.push((at, c));
        if c != '\\' {
            continue;
        }
        while let Some(space) = text.next_if(|(_, c)| c.is_whitespace()) {
            joined.push(space);
        }
        if joined[cut..].iter().any(|(_, c)| *c == '\n') {
            joined.truncate(cut);
        } else if joined.len() == cut + 1 {
            // What it escapes means nothing else, another backslash least of all.
            joined.extend(text.next());
        }
    }
    joined
}

/// What a text is in.
#[derive(Clone, Copy)]
struct Quote {
    mark: char,
    /// Three marks begin and end it, and it may have lines.
    long: bool,
}

impl Quote {
    /// The one that begins at the front of `text`.
    fn opened_by(text: &[char]) -> Option<Self> {
        let mark = *text.first().filter(|c| ['"', '\''].contains(c))?;
        Some(Self { mark, long: text.starts_with(&[mark; 3]) })
    }

    fn width(self) -> usize {
        if self.long { 3 } else { 1 }
    }

    fn is_ended_by(self, text: &[char]) -> bool {
        text.starts_with(&[self.mark; 3][..self.width()])
    }

    /// Whether a backslash takes a character's meaning away.
    fn escapes(self) -> bool {
        self.mark == '"'
    }
}

/// `quote`: the one that the text is in from the start.
fn find(text: &[char], mut quote: Option<Quote>) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let mut text_start = 0;
    let mut at = 0;
    while let Some(&c) = text.get(at) {
        match quote {
            Some(now) if now.escapes() && c == '\\' => at += 2,
            Some(now) if now.is_ended_by(&text[at..]) => (quote, at) = (None, at + now.width()),
            // It was not ended.
            Some(now) if !now.long && c == '\n' => (quote, at) = (None, at + 1),
            _ if is_word(c) => {
                let end = at + text[at..].iter().take_while(|c| is_word(**c)).count();
                let word: String = text[at..end].iter().collect();
                let secret =
                    if names_secret(&word) { behind(text, end, quote, at == text_start) } else { None };
                at = secret.as_ref().map_or(end, |secret| secret.end);
                secrets.extend(secret);
            }
            None => match Quote::opened_by(&text[at..]) {
                Some(opened) => {
                    at += opened.width();
                    at += usize::from(opened.long && text.get(at) == Some(&'\n'));
                    (quote, text_start) = (Some(opened), at);
                }
                None => at += 1,
            },
            Some(_) => at += 1,
        }
    }
    secrets
}

/// What follows the name of a secret that ends at `end`, if anything does.
fn behind(text: &[char], end: usize, quote: Option<Quote>, begins_text: bool) -> Option<Range<usize>> {
    let skip = |from: usize| from + text[from..].iter().take_while(|c| c.is_whitespace()).count();
    let is_key = quote.is_some_and(|quote| !quote.long && quote.is_ended_by(&text[end..]));
    let (quote, end) = if is_key { (None, end + 1) } else { (quote, end) };
    let separator = skip(end);
    let start = match text.get(separator)? {
        ':' if !is_key => skip(separator + 1),
        '=' => skip(separator + 1),
        // A header whose colon was forgotten.
        _ if quote.is_some() && begins_text && separator > end => separator,
        _ => return None,
    };
    // A long text that ends where a value begins: it is the value's that begins, and an earlier one was not ended.
    let quote = quote.filter(|quote| !(quote.long && quote.is_ended_by(&text[start..])));
    let mut stop = start;
    while let Some(&c) = text.get(stop) {
        match quote {
            Some(quote) if quote.escapes() && c == '\\' => stop += 2,
            Some(quote) if quote.is_ended_by(&text[stop..]) || (!quote.long && c == '\n') => break,
            _ => stop += 1,
        }
    }
    let stop = stop.min(text.len());
    let value = &text[start..stop];
    // Behind a host's name that only sounds like one.
    let is_port = value.len() <= 5 && value.iter().all(char::is_ascii_digit);
    (!is_port).then_some(start..stop)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// A file's name is none.
fn names_secret(word: &str) -> bool {
    may_be_secret(word) && !word.ends_with("_file")
}

/// No text ends it.
const ENDLESS: Quote = Quote { mark: '\0', long: true };

/// Bytes of lines above in which a name is looked for. Where there are more, the whole line may be a secret.
const MAX_ABOVE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        shown_below("", line)
    }

    fn shown_below(above: &str, line: &str) -> String {
        let secrets = of_line(above, line);
        let line: Vec<char> = line.chars().collect();
        let mut shown = String::new();
        let mut at = 0;
        for secret in secrets {
            shown.extend(&line[at..secret.start]);
            shown.push_str(HIDDEN);
            at = secret.end;
        }
        shown.extend(&line[at..]);
        shown
    }

    #[test]
    fn a_name_hides_what_follows_it_in_the_lines_below() {
        for (above, line, expected) in [
            (
                "headers = [\"\"\"Authorization: \\\n",
                r#"  Basic eHg=""", "X: y"]"#,
                r#"  (hidden)""", "X: y"]"#,
            ),
            ("headers = [\"\"\"Authorization: Basic \\\n", r#"  eHg=""" ]"#, r#"(hidden)""" ]"#),
            ("headers = ['''\nCookie: a\n", "b''']", "(hidden)''']"),
            // Cut in the middle of the name; and where it looks like a key.
            ("headers = [\"\"\"Author\\\n", r#"  ization: Basic eHg="""]"#, r#"  ization: (hidden)"""]"#),
            ("headers = [\"\"\"Authorization: Digest \\\n", r#"a = "b", c"""]"#, r#"(hidden)"""]"#),
            ("password = \"\"\"\n\n", r"eHg \q", "(hidden)"),
            ("token = [\n", r#"  "eHg","#, "(hidden)"),
            ("host = \"\"\"a\npassword = \"\"\"\n", "eHg", "(hidden)"),
            // Of what is over nothing is left.
            ("headers = [\"Authorization: a\",\n", r#"  "X: y"]"#, r#"  "X: y"]"#),
            ("headers = [\"Authorization: a,\n", r#"  "X: y"]"#, r#"  "X: y"]"#),
            ("headers = [\"\"\"Cookie: a \\\\\n  b\"\"\",\n", r#"  "X: y"]"#, r#"  "X: y"]"#),
            ("command = [\"\"\"a\n", r#"b"""]"#, r#"b"""]"#),
        ] {
            assert_eq!(shown_below(above, line), expected, "below {above}");
        }
        assert_eq!(shown_below(&"\n".repeat(MAX_ABOVE + 1), "a"), HIDDEN);
    }

    #[test]
    fn what_follows_the_name_of_a_secret_is_hidden_to_the_end_of_its_text() {
        for (line, expected) in [
            (
                r#"headers = ["X-Probe: a", "Authorization: Basic eHg=", "Cookie:b"] # c"#,
                r#"headers = ["X-Probe: a", "Authorization: (hidden)", "Cookie:(hidden)"] # c"#,
            ),
            (r#"headers = ['X-Api-Key: "a" b', "x"]"#, r#"headers = ['X-Api-Key: (hidden)', "x"]"#),
            (r#"headers = ["Authorization: a\"b", 7]"#, r#"headers = ["Authorization: (hidden)", 7]"#),
            (r#"headers = ["Authorization Basic a", 7]"#, r#"headers = ["Authorization (hidden)", 7]"#),
            // Broken where it ends, and where it begins.
            (r#"headers = ["Authorization: Basic a]"#, r#"headers = ["Authorization: (hidden)"#),
            (r#"headers = [Authorization: Basic a"]"#, r"headers = [Authorization: (hidden)"),
            (r#"password = "a""#, "password = (hidden)"),
            (r#"health = { "token" = 'a' }"#, r#"health = { "token" = (hidden)"#),
            (r#"path = "/x?session=a&y=b""#, r#"path = "/x?session=(hidden)""#),
        ] {
            assert_eq!(shown(line), expected);
        }
        for harmless in [
            r#"password_file = "/etc/ballast/password""#,
            r#"address = "auth-1.example.org:8080""#,
            r#"name = "keys""#,
            r#"host = "token.example.org""#,
            "[service.health] # passwords",
        ] {
            assert_eq!(shown(harmless), harmless);
        }
        assert_eq!(hidden_in("Cookie: a\"b"), "Cookie: (hidden)");
        assert_eq!(hidden_in("X-Probe: a"), "X-Probe: a");
    }
}
