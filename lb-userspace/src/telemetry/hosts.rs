//! By which names the pages may be asked for. A web page elsewhere can have its own name lead here (DNS rebinding), and would
//! be answered for the sake of whoever looks at it; but what the browser then asks for has that name.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::sysctl;

/// Names beside `localhost` and addresses.
#[derive(Debug)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// This host's own name, and those of `daemon.metrics_hosts`.
    pub fn new(configured: &[String]) -> Self {
        let own = sysctl::text("kernel/hostname").into_iter();
        Self(own.chain(configured.iter().cloned()).filter(|name| !name.is_empty()).collect())
    }

    /// Whoever names no host is no browser.
    fn allow(&self, headers: &HeaderMap) -> bool {
        headers.get_all(header::HOST).iter().all(|host| host.to_str().is_ok_and(|host| self.has(host)))
    }

    fn has(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Some(address) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return address.parse::<Ipv6Addr>().is_ok();
        }
        let mut known = ["localhost"].into_iter().chain(self.0.iter().map(String::as_str));
        name.parse::<Ipv4Addr>().is_ok() || known.any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// Answers whoever asks for another host with the setting that allows it.
pub(super) async fn check(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Response {
    if hosts.allow(request.headers()) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, REFUSED).into_response()
}

const REFUSED: &str = "This is not known here by that name. Ask by address, as localhost or by the host's own name, or add the name to \
                       `metrics_hosts` under `[daemon]`.\n";

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn allowed(host: &[&str]) -> bool {
        let hosts = Hosts(vec!["lb1".to_owned(), "lb.example.org".to_owned()]);
        let mut headers = HeaderMap::new();
        for host in host {
            headers.append(header::HOST, HeaderValue::from_bytes(host.as_bytes()).expect("a header"));
        }
        hosts.allow(&headers)
    }

    #[test]
    fn addresses_localhost_and_the_hosts_own_names_are_answered() {
        assert!(allowed(&[]));
        for host in [
            "127.0.0.1",
            "192.0.2.1:9640",
            "[::1]",
            "[2001:db8::1]:9640",
            "localhost:9640",
            "LocalHost",
            "lb1",
        ] {
            assert!(allowed(&[host]), "{host}");
        }
        assert!(allowed(&["LB.example.org.:9640"]));
    }

    #[test]
    fn other_names_are_not_whatever_they_look_like() {
        let long = "a".repeat(300);
        for host in [
            "evil.example",
            "lb1.evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:9640",
            "",
            ":9640",
            "[evil]",
            "[::1",
            "lb1:port",
            "é",
            &long,
        ] {
            assert!(!allowed(&[host]), "{host}");
        }
        assert!(!allowed(&["localhost", "evil.example"]));
    }
}
