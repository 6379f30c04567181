//! What is wrong is shown with its line, in the log and in `status`, which others read than the file: secrets in it are not.

use std::ops::Range;

use crate::domain::may_be_secret;

/// Shown in the place of a secret.
pub(super) const HIDDEN: &str = "(hidden)";

/// Which of a line's characters may be a secret: what follows the name of one (`password = "..."`, `"Authorization: ..."`,
/// `"/healthz?token=..."`), to the end of the text that it stands in. The line may be broken, so this goes by quotes alone.
pub(super) fn of_line(line: &[char]) -> Vec<Range<usize>> {
    find(line, None)
}

/// A value's text without the secret in it.
pub(super) fn hidden_in(text: &str) -> String {
    let text: Vec<char> = text.chars().collect();
    match find(&text, Some(NEVER)).first() {
        Some(secret) => text[..secret.start].iter().copied().chain(HIDDEN.chars()).collect(),
        None => text.into_iter().collect(),
    }
}

/// `quote`: the one that the line is in from the start.
fn find(line: &[char], mut quote: Option<char>) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let mut text_start = 0;
    let mut at = 0;
    while let Some(&c) = line.get(at) {
        if quote == Some('"') && c == '\\' {
            at += 2;
        } else if quote == Some(c) {
            (quote, at) = (None, at + 1);
        } else if quote.is_none() && (c == '"' || c == '\'') {
            (quote, at) = (Some(c), at + 1);
            text_start = at;
        } else if is_word(c) {
            let end = at + line[at..].iter().take_while(|c| is_word(**c)).count();
            let word: String = line[at..end].iter().collect();
            let secret = if names_secret(&word) { behind(line, end, quote, at == text_start) } else { None };
            at = secret.as_ref().map_or(end, |secret| secret.end);
            secrets.extend(secret);
        } else {
            at += 1;
        }
    }
    secrets
}

/// What follows the name of a secret that ends at `end`, if anything does.
fn behind(line: &[char], end: usize, quote: Option<char>, begins_text: bool) -> Option<Range<usize>> {
    let skip = |from: usize| from + line[from..].iter().take_while(|c| c.is_whitespace()).count();
    let is_key = quote.is_some() && line.get(end).copied() == quote;
    let (quote, end) = if is_key { (None, end + 1) } else { (quote, end) };
    let separator = skip(end);
    let start = match line.get(separator)? {
        ':' if !is_key => skip(separator + 1),
        '=' => skip(separator + 1),
        // A header whose colon was forgotten.
        _ if quote.is_some() && begins_text && separator > end => separator,
        _ => return None,
    };
    let mut stop = start;
    while line.get(stop).is_some_and(|c| Some(*c) != quote) {
        stop += if quote == Some('"') && line[stop] == '\\' { 2 } else { 1 };
    }
    let stop = stop.min(line.len());
    let value = &line[start..stop];
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

/// No text holds it.
const NEVER: char = '\0';

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        let line: Vec<char> = line.chars().collect();
        let mut shown = String::new();
        let mut at = 0;
        for secret in of_line(&line) {
            shown.extend(&line[at..secret.start]);
            shown.push_str(HIDDEN);
            at = secret.end;
        }
        shown.extend(&line[at..]);
        shown
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
