//! The headers of a packet as it comes, next to those that it leaves with.

use super::read::{Layer, Reading};

/// One header, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `ethernet`, `vlan`, `ipv4`, `ipv6`, `tcp`, `udp`, `icmp`, `icmpv6`.
    pub layer: &'static str,
    /// `None`: it has none such.
    pub before: Option<String>,
    pub after: Option<String>,
}

/// `after`: of what leaves, if anything does.
pub(super) fn compare(before: &Reading, after: Option<&Reading>) -> Vec<Header> {
    let Some(after) = after else {
        let all = before.link.iter().chain(&before.inside);
        return all.map(|layer| header(Some(layer), None)).flatten().collect();
    };
    let mut headers = pairs(&before.link, &after.link);
    // The packet itself is what is innermost: what is around it is new.
    let around = after.inside.len().saturating_sub(before.inside.len());
    let names = |layers: &[Layer]| layers.iter().map(|layer| layer.name).collect::<Vec<_>>();
    let (outer, inner) = after.inside.split_at(around);
    if names(inner) == names(&before.inside) {
        headers.extend(outer.iter().flat_map(|layer| header(None, Some(layer))));
        headers.extend(pairs(&before.inside, inner));
    } else {
        headers.extend(pairs(&before.inside, &after.inside));
    }
    headers
}

/// One with the other, as far as they are of a kind.
fn pairs(before: &[Layer], after: &[Layer]) -> Vec<Header> {
    let count = before.len().max(after.len());
    let pair = |at: usize| match (before.get(at), after.get(at)) {
        (Some(one), Some(other)) if one.name != other.name => {
            [header(Some(one), None), header(None, Some(other))].into_iter().flatten().collect::<Vec<_>>()
        }
        (one, other) => header(one, other).into_iter().collect(),
    };
    (0..count).flat_map(pair).collect()
}

fn header(before: Option<&Layer>, after: Option<&Layer>) -> Option<Header> {
    let layer = before.or(after)?.name;
    let text = |layer: Option<&Layer>| layer.map(|layer| layer.text.clone());
    Some(Header { layer, before: text(before), after: text(after) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(inside: &[&'static str]) -> Reading {
        let layers = |names: &[&'static str]| {
            names.iter().map(|name| Layer { name, text: (*name).to_owned() }).collect()
        };
        Reading { link: layers(&["ethernet"]), inside: layers(inside), ..Reading::default() }
    }

    fn compared(before: &[&'static str], after: &[&'static str]) -> Vec<(&'static str, bool, bool)> {
        let headers = compare(&reading(before), Some(&reading(after)));
        headers.iter().map(|one| (one.layer, one.before.is_some(), one.after.is_some())).collect()
    }

    #[test]
    fn a_tunnels_headers_are_new_and_the_packets_own_stand_side_by_side() {
        assert_eq!(
            compared(&["ipv4", "tcp"], &["ipv6", "udp", "ipv4", "tcp"]),
            [
                ("ethernet", true, true),
                ("ipv6", false, true),
                ("udp", false, true),
                ("ipv4", true, true),
                ("tcp", true, true)
            ]
        );
    }

    #[test]
    fn an_answer_of_another_kind_stands_below() {
        assert_eq!(
            compared(&["ipv4", "tcp"], &["ipv4", "icmp"]),
            [("ethernet", true, true), ("ipv4", true, true), ("tcp", true, false), ("icmp", false, true)]
        );
    }

    #[test]
    fn what_is_dropped_has_no_headers_after() {
        let headers = compare(&reading(&["ipv4", "tcp"]), None);
        assert_eq!(headers.iter().filter(|one| one.after.is_none()).count(), 3);
    }
}
