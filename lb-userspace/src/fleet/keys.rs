//! Where in etcd what is.

use crate::domain::Name;

/// The keys under a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

/// What a key is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// Says that this is a fleet; each change of services that Ballast makes writes it anew.
    Head,
    /// Of a service, by what should be its name.
    Service(&'a str),
    /// A member's sign of life.
    Member(&'a str),
    /// Says that a member has leave to be off the network for want of backends.
    Permit(&'a str),
    /// Nothing that this version knows.
    Other,
}

impl Keys {
    /// `prefix` has no `/` at its end.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// What all of them begin with.
    pub fn all(&self) -> String {
        format!("{}/", self.prefix)
    }

    pub fn head(&self) -> String {
        format!("{}/fleet", self.prefix)
    }

    pub fn service(&self, name: &str) -> String {
        format!("{}/services/{name}", self.prefix)
    }

    pub fn member(&self, name: &Name) -> String {
        format!("{}/members/{name}", self.prefix)
    }

    pub fn permit(&self, member: &Name) -> String {
        format!("{}{member}", self.permits())
    }

    /// What those of all members begin with.
    pub fn permits(&self) -> String {
        format!("{}/withdrawals/", self.prefix)
    }

    pub fn parse<'a>(&self, key: &'a str) -> Key<'a> {
        let Some(rest) = key.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('/')) else {
            return Key::Other;
        };
        match rest.split_once('/') {
            None if rest == "fleet" => Key::Head,
            Some(("services", name)) => Key::Service(name),
            Some(("members", name)) => Key::Member(name),
            Some(("withdrawals", name)) => Key::Permit(name),
            _ => Key::Other,
        }
    }
}

/// The end of the range of all keys that begin with `prefix`: the next text of its length.
pub(super) fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Of no prefix at all, every key from there on.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_as_what_it_was_made_for() {
        let keys = Keys::new("/edge/eu");
        let name: Name = "lb-1".parse().expect("a name");
        assert_eq!(keys.parse(&keys.head()), Key::Head);
        assert_eq!(keys.parse(&keys.service("web")), Key::Service("web"));
        assert_eq!(keys.parse(&keys.member(&name)), Key::Member("lb-1"));
        assert_eq!(keys.parse(&keys.permit(&name)), Key::Permit("lb-1"));
        for other in ["/edge/europe/fleet", "/edge/eu", "/edge/eu/", "/edge/eu/later/x", "/edge/eu/fleet/x"] {
            assert_eq!(keys.parse(other), Key::Other, "{other}");
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_after_all_that_begin_with_it_and_before_all_others() {
        assert_eq!(range_end("/ballast/"), b"/ballast0");
        assert_eq!(range_end("a\u{7f}"), b"a\x80");
        assert_eq!(range_end(""), [0]);
    }
}
