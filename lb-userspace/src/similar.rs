//! What somebody may have meant.

/// The one of the `known` names that is most like `name`, if one is like it at all. `-` is as good as `_`, and letters are
/// as good as their capitals.
pub(crate) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Nothing is called like this, and comparing takes the square of it.
    if name.len() > MAX_LENGTH {
        return None;
    }
    let name = folded(name);
    let like = |known: &'a str| {
        let folded = folded(known);
        let distance = strsim::damerau_levenshtein(&name, &folded);
        // One slip in a short name, more in a longer one; of two names it is the longer one that was meant or written.
        let slips = 1 + name.chars().count().max(folded.chars().count()) / 5;
        // `web` for `web-frontend`: what somebody begins to type is what they mean.
        let begun = name.len() >= 3 && folded.starts_with(&name);
        (distance <= slips || begun).then_some((distance, known))
    };
    known.filter_map(like).min().map(|(_, known)| known)
}

fn folded(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

/// What is said of an object that does not exist.
pub(crate) fn missing(what: &str, name: &str, similar: Option<&str>) -> String {
    let question = similar.map(|similar| format!("; did you mean \"{similar}\"?")).unwrap_or_default();
    format!("{what} \"{name}\" does not exist{question}")
}

/// More than a name has, and any key.
const MAX_LENGTH: usize = 128;

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn a_slip_of_the_hand_is_understood_and_another_name_is_not() {
        let known = ["web-1", "web-2", "mail", "payments-frontend"];
        for (name, meant) in [
            ("wbe-1", Some("web-1")),
            ("web1", Some("web-1")),
            ("WEB_1", Some("web-1")),
            ("payments_Frontend", Some("payments-frontend")),
            // As long as it is meant to be it has more room for slips.
            ("pyments-frntnd", Some("payments-frontend")),
            ("web-3", Some("web-1")),
            ("mial", Some("mail")),
            ("payment-fronted", Some("payments-frontend")),
            ("pay", Some("payments-frontend")),
            ("dns", None),
            ("", None),
            ("database", None),
        ] {
            assert_eq!(closest(name, known.into_iter()), meant, "{name}");
        }
        assert_eq!(closest(&"w".repeat(100_000), known.into_iter()), None);
    }
}
