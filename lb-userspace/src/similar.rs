//! What somebody may have meant.

/// The one of the `known` names that is most like `name`, if one is like it at all.
pub(crate) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // One slip in a short name, more in a longer one.
    let slips = 1 + name.chars().count() / 5;
    let like = |known: &'a str| {
        let distance = strsim::damerau_levenshtein(name, known);
        // `web` for `web-frontend`: what somebody begins to type is what they mean.
        let begun = name.len() >= 3 && known.starts_with(name);
        (distance <= slips || begun).then_some((distance, known))
    };
    known.filter_map(like).min().map(|(_, known)| known)
}

/// What is said of an object that does not exist.
pub(crate) fn missing(what: &str, name: &str, similar: Option<&str>) -> String {
    let question = similar.map(|similar| format!("; did you mean \"{similar}\"?")).unwrap_or_default();
    format!("{what} \"{name}\" does not exist{question}")
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn a_slip_of_the_hand_is_understood_and_another_name_is_not() {
        let known = ["web-1", "web-2", "mail", "payments-frontend"];
        for (name, meant) in [
            ("wbe-1", Some("web-1")),
            ("web1", Some("web-1")),
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
    }
}
