//! A line's words: separated by spaces, quoted by `"` and `'`, escaped by `\`, up to a `#`.

/// Returns `None` if a quotation does not end.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    let mut quote = None;
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, '#') => break,
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), letter) if letter == open => quote = None,
            // Within single quotes it is a letter like others.
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(escaped(&mut letters)),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

fn escaped(letters: &mut impl Iterator<Item = char>) -> Option<char> {
    Some(match letters.next()? {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        letter => letter,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_escaped_and_end_at_a_comment() {
        for (line, expected) in [
            ("  bind *:80 # web", &["bind", "*:80"][..]),
            ("", &[]),
            ("# nothing", &[]),
            (r"server a\ b 10.0.0.1:80#x", &["server", "a b", "10.0.0.1:80"]),
            (r#"log-format "a # b" '' 'c\n'"#, &["log-format", "a # b", "", r"c\n"]),
            (
                r"option httpchk GET / HTTP/1.1\r\nHost:\ web",
                &["option", "httpchk", "GET", "/", "HTTP/1.1\r\nHost: web"],
            ),
            (r#"x "a"b'c'"#, &["x", "abc"]),
        ] {
            assert_eq!(words(line).expect("quotations end"), expected, "{line}");
        }
        assert_eq!(words("log \"open"), None);
    }
}
