//! `server` and `default-server`.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Notes, lacking, sections::Line};

#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) line: Line,
    pub(super) name: String,
    pub(super) address: IpAddr,
    /// `None`: the one that clients connect to.
    pub(super) port: Option<u16>,
    pub(super) settings: Settings,
}

/// What both say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) weight: u16,
    pub(super) backup: bool,
    pub(super) disabled: bool,
    pub(super) slow_start: Option<Duration>,
    /// Connections end with the health of the backend.
    pub(super) cuts: bool,
    pub(super) check: Option<Pace>,
    /// Kept where a check is switched off, for a server that switches it on.
    pace: Pace,
}

/// How a server is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) interval: Duration,
    pub(super) fast: Option<Duration>,
    pub(super) down: Option<Duration>,
    pub(super) rise: u32,
    pub(super) fall: u32,
    pub(super) port: Option<u16>,
    pub(super) address: Option<IpAddr>,
    pub(super) tls: bool,
    pub(super) verify: bool,
    pub(super) server_name: Option<String>,
    pub(super) ca_file: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            weight: 1,
            backup: false,
            disabled: false,
            slow_start: None,
            cuts: false,
            check: None,
            pace: Pace::default(),
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            fast: None,
            down: None,
            rise: 2,
            fall: 3,
            port: None,
            address: None,
            tls: false,
            verify: true,
            server_name: None,
            ca_file: None,
        }
    }
}

/// `None`, with a note, where the address is none.
pub(super) fn read(line: &Line, defaults: &Settings, notes: &mut Notes) -> Option<Server> {
    let Some((address, port)) = address(line.word(2)) else {
        notes.add(line, "its address is none that packets could be sent to: write the IP address, and the port if it is another");
        return None;
    };
    let mut settings = defaults.clone();
    settings.read(line, 3, notes);
    Some(Server { line: line.clone(), name: line.word(1).to_owned(), address, port, settings })
}

impl Settings {
    /// Reads the words of a line from this one on.
    pub(super) fn read(&mut self, line: &Line, from: usize, notes: &mut Notes) {
        let mut words = line.words.iter().skip(from).map(String::as_str);
        let mut checks = self.check.is_some();
        while let Some(word) = words.next() {
            let pace = &mut self.pace;
            match word {
                "check" => checks = true,
                "no-check" => checks = false,
                "backup" => self.backup = true,
                "no-backup" => self.backup = false,
                "disabled" => {
                    self.disabled = true;
                    notes.add(line, "`disabled`: written with weight 0, which is no new flows");
                }
                "enabled" => self.disabled = false,
                "ssl" => {
                    pace.tls = true;
                    notes.add(line, lacking::word("ssl"));
                }
                "check-ssl" => pace.tls = true,
                "no-check-ssl" => pace.tls = false,
                "no-tfo" | "tfo" | "stick" | "non-stick" | "allow-0rtt" => {}
                "agent-check" | "send-proxy" | "send-proxy-v2" | "check-send-proxy" => {
                    notes.add(line, format!("`{word}`: {}", lacking::word(word)));
                }
                _ if word.starts_with("no-") || word.starts_with("force-") => {}
                // All others have a value.
                _ => self.value(line, word, words.next().unwrap_or_default(), notes),
            }
        }
        self.check = checks.then(|| self.pace.clone());
    }

    fn value(&mut self, line: &Line, word: &str, value: &str, notes: &mut Notes) {
        let pace = &mut self.pace;
        let mut wrong = false;
        let mut take = |to: &mut Option<Duration>| match time(value) {
            Some(time) => *to = Some(time),
            None => wrong = true,
        };
        match word {
            "inter" => {
                let mut interval = Some(pace.interval);
                take(&mut interval);
                pace.interval = interval.unwrap_or(pace.interval);
            }
            "fastinter" => take(&mut pace.fast),
            "downinter" => take(&mut pace.down),
            "slowstart" => take(&mut self.slow_start),
            "weight" => wrong = value.parse().map(|weight| self.weight = weight).is_err(),
            "rise" => wrong = value.parse().map(|rise| pace.rise = rise).is_err(),
            "fall" => wrong = value.parse().map(|fall| pace.fall = fall).is_err(),
            "port" => wrong = value.parse().map(|port| pace.port = Some(port)).is_err(),
            "addr" => wrong = value.parse().map(|address| pace.address = Some(address)).is_err(),
            "verify" => pace.verify = value != "none",
            "ca-file" => pace.ca_file = Some(value.to_owned()),
            "check-sni" => pace.server_name = Some(value.to_owned()),
            "sni" => {
                let name = value.strip_prefix("str(").and_then(|name| name.strip_suffix(')'));
                pace.server_name = pace.server_name.take().or(name.map(str::to_owned));
            }
            "on-marked-down" if value == "shutdown-sessions" => self.cuts = true,
            "id" | "check-alpn" | "alpn" | "proto" | "ws" | "namespace" => {}
            _ => notes.add(line, format!("`{word} {value}`: {}", lacking::word(word))),
        }
        if wrong {
            notes.add(line, format!("`{word} {value}` makes no sense here"));
        }
    }
}

/// `10.0.0.1`, `10.0.0.1:80`, `2001:db8::1:80`, `[2001:db8::1]:80`, `ipv4@10.0.0.1:80`. As in HAProxy, what follows the last
/// colon is a port.
fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let text = text.strip_prefix("ipv4@").or_else(|| text.strip_prefix("ipv6@")).unwrap_or(text);
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip(), Some(address.port())));
    }
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').parse().ok();
    match text.rsplit_once(':') {
        // `+80` is an offset.
        Some((address, port))
            if port.starts_with(|letter: char| letter.is_ascii_digit()) && !text.ends_with(']') =>
        {
            Some((bare(address)?, Some(port.parse().ok()?)))
        }
        _ => Some((bare(text)?, None)),
    }
}

/// `500`, which is milliseconds, `10s`, `1m`, `2h`, `1d`, `250ms`, `1000us`.
pub(super) fn time(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "" | "ms" => Duration::from_millis(number),
        "us" => Duration::from_micros(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3_600)?),
        "d" => Duration::from_secs(number.checked_mul(86_400)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_addresses_are_read_as_haproxy_does() {
        for (text, expected) in [
            ("500", Some(500_000)),
            ("500us", Some(500)),
            ("2s", Some(2_000_000)),
            ("1m", Some(60_000_000)),
            ("1d", Some(86_400_000_000)),
            ("", None),
            ("2 s", None),
            ("99999999999999999999d", None),
            ("s", None),
        ] {
            assert_eq!(time(text).map(|time| time.as_micros()), expected, "{text}");
        }
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (text, expected) in [
            ("10.0.0.1", Some((ip("10.0.0.1"), None))),
            ("10.0.0.1:8080", Some((ip("10.0.0.1"), Some(8080)))),
            ("ipv4@10.0.0.1:8080", Some((ip("10.0.0.1"), Some(8080)))),
            ("[2001:db8::1]", Some((ip("2001:db8::1"), None))),
            ("[2001:db8::1]:80", Some((ip("2001:db8::1"), Some(80)))),
            ("2001:db8::1:80", Some((ip("2001:db8::1"), Some(80)))),
            ("www.example:80", None),
            ("10.0.0.1:+80", None),
            ("unix@/run/app", None),
            ("", None),
        ] {
            assert_eq!(address(text), expected, "{text}");
        }
    }
}
