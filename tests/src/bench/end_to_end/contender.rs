//! Who is measured: a line each.

/// What stands between clients and backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing: clients' own routes lead to the backends, by a hash of the 5-tuple.
    Direct,
    /// The balancer's kernel forwards, by routes like those; with `replies`, it forwards what comes back too.
    Routed {
        replies: bool,
    },
    /// In this forwarding mode.
    Ballast(&'static str),
    HaProxy,
    Nginx,
}

/// A line of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) way: Way,
    /// Plain forwarding over the same hops; `None` for what balances nothing itself.
    pub(super) over: Option<&'static str>,
}

pub(super) const DIRECT: &str = "no balancer";
pub(super) const ROUTED: &str = "plain forwarding";
pub(super) const ROUTED_BACK: &str = "plain forwarding, replies too";
pub(super) const HAPROXY: &str = "haproxy, tcp";

pub(super) const CONTENDERS: [Contender; 10] = [
    Contender { name: DIRECT, way: Way::Direct, over: None },
    Contender { name: ROUTED, way: Way::Routed { replies: false }, over: None },
    Contender { name: ROUTED_BACK, way: Way::Routed { replies: true }, over: None },
    Contender { name: "ballast l2-dsr", way: Way::Ballast("l2-dsr"), over: Some(ROUTED) },
    Contender { name: "ballast ipip", way: Way::Ballast("ipip"), over: Some(ROUTED) },
    Contender { name: "ballast gue", way: Way::Ballast("gue"), over: Some(ROUTED) },
    Contender { name: "ballast dnat", way: Way::Ballast("dnat"), over: Some(ROUTED_BACK) },
    Contender { name: "ballast nat", way: Way::Ballast("nat"), over: Some(ROUTED_BACK) },
    Contender { name: HAPROXY, way: Way::HaProxy, over: Some(ROUTED_BACK) },
    Contender { name: "nginx, stream", way: Way::Nginx, over: Some(ROUTED_BACK) },
];

impl Contender {
    /// Whether it looks after its backends.
    pub(super) fn balances(&self) -> bool {
        self.over.is_some()
    }

    pub(super) fn is_ballast(&self) -> bool {
        matches!(self.way, Way::Ballast(_))
    }

    /// Whether backends send it what is meant for clients.
    pub(super) fn forwards_replies(&self) -> bool {
        matches!(self.way, Way::Routed { replies: true } | Way::Ballast("dnat" | "nat"))
    }

    /// Whether the VIP is an address of the balancer: proxies accept connections.
    pub(super) fn owns_vip(&self) -> bool {
        matches!(self.way, Way::HaProxy | Way::Nginx)
    }
}

/// Its place among [`CONTENDERS`].
pub(super) fn position(name: &str) -> Option<usize> {
    CONTENDERS.iter().position(|contender| contender.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_compared_with_somebody_who_is_measured() {
        for contender in CONTENDERS {
            let over = contender.over.map(|name| position(name).map(|at| CONTENDERS[at].way));
            match contender.way {
                Way::Direct | Way::Routed { .. } => assert_eq!(over, None),
                Way::Ballast("l2-dsr" | "ipip" | "gue") => {
                    assert_eq!(over, Some(Some(Way::Routed { replies: false })));
                }
                _ => assert_eq!(over, Some(Some(Way::Routed { replies: true }))),
            }
        }
    }
}
