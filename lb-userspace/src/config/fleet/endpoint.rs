use std::{fmt, net::Ipv6Addr};

use crate::config::{report::Wrong, table::shortened};

/// A member of the etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub tls: bool,
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    /// Host and port as they stand in a URL.
    pub fn authority(&self) -> String {
        match self.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{}", self.port),
            Err(_) => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// `https://etcd-1.example.org:2379`.
pub(super) fn endpoint(key: &str, text: &str) -> Result<Endpoint, Wrong> {
    const WANTED: &str = "such as \"https://10.0.0.1:2379\" or \"http://[2001:db8::1]:2379\"";
    // Whoever writes one there has written a password.
    if text.contains('@') {
        let message = format!("`{key}` can't hold a URL with a user");
        return Err(Wrong::new(message, "`user` and `password_file` are for that"));
    }
    let wrong = || Wrong::new(format!("`{key}` can't hold \"{}\"", shortened(text)), WANTED);
    let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
    let tls = match scheme {
        "http" => false,
        "https" => true,
        _ => return Err(wrong()),
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
            (host, rest.strip_prefix(':').or(rest.is_empty().then_some(DEFAULT_PORT)).ok_or_else(wrong)?)
        }
        None => authority.rsplit_once(':').unwrap_or((authority, DEFAULT_PORT)),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| *port > 0 && digits).ok_or_else(wrong)?;
    let is_host = (1..=253).contains(&host.len()) && host.bytes().all(allowed);
    if !is_host || (host.contains(':') && !authority.starts_with('[')) {
        return Err(wrong());
    }
    Ok(Endpoint { tls, host: host.to_owned(), port })
}

const DEFAULT_PORT: &str = "2379";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_of_hosts() {
        let read = |text: &str| endpoint("endpoints", text).map(|endpoint| endpoint.to_string()).ok();
        for (text, expected) in [
            ("http://10.0.0.1", Some("http://10.0.0.1:2379")),
            ("https://etcd-1.example.org:2380/", Some("https://etcd-1.example.org:2380")),
            ("https://[2001:db8::1]", Some("https://[2001:db8::1]:2379")),
            ("http://[2001:db8::1]:4", Some("http://[2001:db8::1]:4")),
            ("10.0.0.1:2379", None),
            ("ftp://10.0.0.1", None),
            ("http://", None),
            ("http://a:b", None),
            ("http://a:0", None),
            ("http://a/b", None),
            ("http://2001:db8::1:2379", None),
            ("http://[2001:db8::1", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text}");
        }
    }
}
