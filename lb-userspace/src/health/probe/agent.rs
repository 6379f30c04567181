//! HAProxy's agent check: a line of words says how the server does (HAProxy configuration manual, `agent-check`).

use super::{Target, Trouble, stream, talk::Talk};

/// Connects, says `send`, and reads a line.
pub(super) async fn ask(send: Option<&str>, target: &Target) -> Result<String, Trouble> {
    let mut talk = Talk::new(Box::new(stream::connect(target).await?));
    if let Some(text) = send {
        talk.send(text.as_bytes()).await?;
    }
    verdict(&String::from_utf8_lossy(&talk.line().await?))
}

/// The worst of the words counts.
fn verdict(line: &str) -> Result<String, Trouble> {
    let mut known = false;
    let mut failed = false;
    let mut away = false;
    // What stands behind "#" is for people.
    let words = line.split('#').next().unwrap_or_default();
    for word in words.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty()) {
        match word.to_ascii_lowercase().as_str() {
            "up" | "ready" => known = true,
            "down" | "fail" | "failed" | "stopped" => failed = true,
            "drain" | "maint" => away = true,
            other => {
                let percent = other.strip_suffix('%').and_then(|share| share.parse::<u32>().ok());
                // None of the usual share is what "drain" says.
                away |= percent == Some(0);
                // A limit of connections says nothing about health.
                known |= percent.is_some() || other.starts_with("maxconn:");
            }
        }
    }
    let detail = format!("agent says {}", line.trim());
    match (failed, away, known) {
        (true, ..) => Err(Trouble::Backend(detail)),
        (_, true, _) => Err(Trouble::Misfit(detail)),
        (.., true) => Ok(detail),
        _ => Err(Trouble::Backend("not what an agent says".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_word_counts() {
        let word = |line: &str| match verdict(line) {
            Ok(_) => "passed",
            Err(Trouble::Misfit(_)) => "ineligible",
            Err(Trouble::Backend(_) | Trouble::Silence(_)) => "failed",
            Err(Trouble::Ours(_)) => "skipped",
        };
        for (line, expected) in [
            ("up", "passed"),
            ("READY, UP", "passed"),
            ("75%", "passed"),
            ("up 75% maxconn:30", "passed"),
            ("maxconn:30", "passed"),
            ("drain", "ineligible"),
            ("up,maint", "ineligible"),
            ("0%", "ineligible"),
            ("up 0%", "ineligible"),
            ("down", "failed"),
            ("up stopped #disk full", "failed"),
            ("drain fail", "failed"),
            ("", "failed"),
            ("# up", "failed"),
            ("hello", "failed"),
            ("x%", "failed"),
        ] {
            assert_eq!(word(line), expected, "{line:?}");
        }
        assert_eq!(verdict("up 50%\r").ok().unwrap(), "agent says up 50%");
    }
}
