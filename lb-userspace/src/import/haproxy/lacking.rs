//! What Ballast has no equal of, and why.

/// Sections of which nothing is of use.
pub(super) const SECTIONS: [&str; 14] = [
    "peers",
    "resolvers",
    "userlist",
    "mailers",
    "cache",
    "program",
    "ring",
    "http-errors",
    "fcgi-app",
    "crt-store",
    "log-forward",
    "traces",
    "acme",
    "log-profile",
];

const HTTP: &str = "HTTP is not looked into: connections are balanced, not requests";
const RULES: &str =
    "there are no rules: `allow`, `deny` and `new_flow_rate` of a service are all that is asked of a client";
const LOGS: &str = "connections are not accepted but forwarded, and not logged; there are metrics of each service and backend";
const TIMEOUTS: &str = "connections are the client's and the backend's own, and not ended here; `flow_idle_timeout` is how long a silent one is remembered";
const TABLES: &str = "no table is needed: with `source-hash` a client stays with its backend";
const LIMITS: &str = "connections are not counted; `new_flow_rate` limits how many a second are opened";
const SOCKETS: &str = "it is about HAProxy's own sockets, and packets are forwarded without any";
const RETRIES: &str = "a connection that a backend does not answer is the client's to try again";
const STATISTICS: &str = "`ballast status` and the metrics listener show what there is to see";
const TLS: &str =
    "TLS is not ended here: backends need the certificate, and clients' packets reach them as they are";

/// By the first word of a line, or the second one of `option`; of a pattern only what is before a `*`.
const LINES: [(&str, &str); 48] = [
    ("acl", RULES),
    ("tcp-request", RULES),
    ("tcp-response", RULES),
    ("filter", RULES),
    ("force-persist", RULES),
    ("ignore-persist", RULES),
    ("http-request", HTTP),
    ("http-response", HTTP),
    ("http-after-response", HTTP),
    ("http-reuse", HTTP),
    ("http-error", HTTP),
    ("redirect", HTTP),
    ("errorfile*", HTTP),
    ("errorloc*", HTTP),
    ("compression", HTTP),
    ("cookie", HTTP),
    ("capture", HTTP),
    ("rspidel", HTTP),
    ("reqadd", HTTP),
    ("rspadd", HTTP),
    (
        "forwardfor",
        "HTTP is not looked into; backends see the client's address in every forwarding mode but `nat`",
    ),
    ("http-*", HTTP),
    ("httpclose", HTTP),
    ("forceclose", HTTP),
    ("originalto", HTTP),
    ("prefer-last-server", HTTP),
    ("log*", LOGS),
    ("httplog", LOGS),
    ("tcplog", LOGS),
    ("httpslog", LOGS),
    ("dontlog*", LOGS),
    ("unique-id-*", LOGS),
    ("timeout", TIMEOUTS),
    ("stick*", TABLES),
    ("persist", TABLES),
    ("maxconn", LIMITS),
    ("fullconn", LIMITS),
    ("rate-limit", LIMITS),
    ("backlog", SOCKETS),
    ("source", SOCKETS),
    ("*tcpka", SOCKETS),
    ("splice*", SOCKETS),
    ("nolinger", SOCKETS),
    ("tcp-smart-*", SOCKETS),
    ("retries", RETRIES),
    ("redispatch", RETRIES),
    ("stats", STATISTICS),
    ("monitor*", "`/healthz` and `/readyz` of the metrics listener say how the daemon is"),
];

/// Words of `bind` and `server`.
const WORDS: [(&str, &str); 22] = [
    ("ssl", TLS),
    ("crt*", TLS),
    ("ca-file", TLS),
    ("verify*", TLS),
    ("alpn", TLS),
    ("npn", TLS),
    ("ciphers*", TLS),
    ("ssl-*", TLS),
    ("no-sslv3", TLS),
    ("no-tls*", TLS),
    ("sni", TLS),
    ("curves", TLS),
    ("accept-proxy", "the PROXY header is passed on to the backend like all that a client sends"),
    (
        "send-proxy*",
        "no PROXY header is sent; backends see the client's address in every forwarding mode but `nat`",
    ),
    ("maxconn", LIMITS),
    ("minconn", LIMITS),
    ("maxqueue", LIMITS),
    ("cookie", HTTP),
    ("agent-*", "an agent is asked with a health check of `type = \"agent\"`, instead of another check"),
    ("resolve*", "names are not looked up: the address counts"),
    ("init-addr", "names are not looked up: the address counts"),
    (
        "track",
        "backends of several services with the same address and the same check are checked once anyhow",
    ),
];

const OTHERWISE: &str = "it has no equal";

/// Why a line is left out.
pub(super) fn line(word: &str) -> &'static str {
    find(&LINES, word)
}

/// Why a word of `bind` or `server` is left out.
pub(super) fn word(word: &str) -> &'static str {
    find(&WORDS, word)
}

fn find(table: &'static [(&'static str, &'static str)], word: &str) -> &'static str {
    let is_meant = |pattern: &str| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => word.ends_with(end),
        (_, Some(begin)) => word.starts_with(begin),
        _ => word == pattern,
    };
    table.iter().find(|(pattern, _)| is_meant(pattern)).map_or(OTHERWISE, |(_, why)| why)
}
