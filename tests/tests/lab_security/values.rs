//! Requests of which HTTP and JSON are right, and one value is not.

use fastrand::Rng;

use super::messages::request;

/// A value of another type than its key's, or out of its range. Whatever is beside it would be done.
pub(super) fn wrong_one(rng: &mut Rng) -> Vec<u8> {
    let (is_text, value) = if rng.bool() { (false, any(rng, VALUES)) } else { (true, any(rng, TEXTS)) };
    let (method, path, keys, before, behind) = match (rng.u8(0..4), is_text) {
        (0, false) => ("POST", "/v1/services", SERVICE_KEYS, MADE, ""),
        (0, true) => ("POST", "/v1/services", SERVICE_WORDS, MADE, ""),
        (1, false) => ("POST", "/v1/services", HEALTH_KEYS, CHECKED, "}"),
        (1, true) => ("POST", "/v1/services", HEALTH_WORDS, CHECKED, "}"),
        (2, _) => ("POST", "/v1/services/web/backends", "address weight backup", r#""name": "m", "#, ""),
        _ => ("PATCH", "/v1/services/web/backends/backend0", "weight admin reset", "", ""),
    };
    let body = format!("{{{before}\"{}\": {value}{behind}}}", any(rng, keys));
    request(method, path, &format!("content-length: {}", body.len()), body.as_bytes())
}

fn any<'a>(rng: &mut Rng, words: &'a str) -> &'a str {
    let words: Vec<_> = words.split_whitespace().collect();
    words[rng.usize(..words.len())]
}

/// What no key takes, and what none takes whose texts are few words, times or addresses.
const VALUES: &str = r#"{"x":[]} [[1]] -1 1.5 18446744073709551616 1e999"#;
const TEXTS: &str = r#""" "💥" "99999999999d" "256.1.1.1:80" "-0""#;

/// What would make a service.
const MADE: &str = r#""name": "made", "address": "203.0.113.9:80", "#;
const CHECKED: &str = r#""name": "made", "address": "203.0.113.9:80", "health": {"type": "http", "#;

/// MADE has the first two already, which is wrong as well.
const SERVICE_WORDS: &str = "name address protocol forwarding algorithm on_panic on_all_down slow_start tracking \
                             flow_idle_timeout unhealthy_grace drain_timeout";
const SERVICE_KEYS: &str = "protocol forwarding table_size panic_threshold on_all_down slow_start tracking allow deny \
                            new_flow_rate backends_file health dns backend flow_idle_timeout no_such_key";
const HEALTH_WORDS: &str =
    "type via address source interval fast_interval down_interval timeout expect_status role";
const HEALTH_KEYS: &str = "port via interval timeout rise fall path host method headers expect_status expect_body \
                           server_name verify ca_file role password_file max_lag record expect_addresses send command";
