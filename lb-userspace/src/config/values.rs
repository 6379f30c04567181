//! Values written as text: choices, names, addresses, times, paths. Each reader gets the key, for its message.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use super::{report::Wrong, table::shortened};
use crate::domain::{Name, NatPool, Prefix, PrefixError, Vip, unusable};

/// One of `all`, by its name.
pub(super) fn choice<T: Copy>(
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> impl FnOnce(&str, &str) -> Result<T, Wrong> {
    move |key, text| {
        all.iter().copied().find(|&one| name(one) == text).ok_or_else(|| {
            let allowed: Vec<_> = all.iter().map(|&one| format!("{:?}", name(one))).collect();
            let label = match allowed.as_slice() {
                [only] => format!("{only} is all there is"),
                _ => format!("one of {}", allowed.join(", ")),
            };
            Wrong::new(format!("`{key}` can't be \"{}\"", shortened(text)), label)
        })
    }
}

pub(super) fn name(key: &str, text: &str) -> Result<Name, Wrong> {
    text.parse().map_err(|error: crate::domain::NameError| {
        let message = format!("`{key}` can't be \"{}\": {error}", shortened(text));
        Wrong::new(message, "1 to 63 of a-z, 0-9, \".\" and \"-\"; first a letter or a digit")
    })
}

/// Address and port of a service; port 0 or `*` is every port.
pub(super) fn vip(key: &str, text: &str) -> Result<Vip, Wrong> {
    let (address, port) = endpoint(key, text)?;
    Ok(Vip { address, port: (port != 0).then_some(port) })
}

/// Address and port of a backend; the port is 0 where it was 0 or `*`.
pub(super) fn backend_address(key: &str, text: &str) -> Result<SocketAddr, Wrong> {
    endpoint(key, text).map(SocketAddr::from)
}

/// An address that one host has.
pub(super) fn address(key: &str, text: &str) -> Result<IpAddr, Wrong> {
    let wrong = |why: &str| {
        let message = format!("`{key}` can't hold \"{}\": {why}", shortened(text));
        Wrong::new(message, "addresses of this host, such as \"192.0.2.1\"")
    };
    let address = text.parse().map_err(|_| wrong("that is not an address"))?;
    unusable(address).map_or(Ok(address), |why| Err(wrong(why)))
}

/// An address that a check goes to or comes from.
pub(super) fn peer_address(key: &str, text: &str) -> Result<IpAddr, Wrong> {
    let wrong = |why: &str| {
        let message = format!("`{key}` can't be \"{}\": {why}", shortened(text));
        Wrong::new(message, "an address without a port, such as \"192.0.2.1\" or \"2001:db8::1\"")
    };
    let address = text.parse().map_err(|_| wrong("that is not an address"))?;
    unusable(address).map_or(Ok(address), |why| Err(wrong(why)))
}

/// First and last port, such as `61000-65535`.
pub(super) fn port_range(key: &str, text: &str) -> Result<(u16, u16), Wrong> {
    let lowest = NatPool::LOWEST_PORT;
    let port =
        |digits: &str| digits.parse::<u16>().ok().filter(|port| *port >= lowest && !digits.starts_with('+'));
    let range = text.split_once('-').and_then(|(first, last)| Some((port(first)?, port(last)?)));
    range.filter(|(first, last)| first <= last).ok_or_else(|| {
        let message = format!("`{key}` can't be \"{}\"", shortened(text));
        Wrong::new(
            message,
            format!("the first and the last port, {lowest} to 65535, such as \"61000-65535\""),
        )
    })
}

pub(super) fn prefix(key: &str, text: &str) -> Result<Prefix, Wrong> {
    text.parse().map_err(|error: PrefixError| {
        let message = format!("`{key}` can't hold \"{}\": {error}", shortened(text));
        Wrong::new(message, "a network, such as \"198.51.100.0/24\" or \"2001:db8::/32\"")
    })
}

pub(super) fn listen_address(key: &str, text: &str) -> Result<Option<SocketAddr>, Wrong> {
    if text == "off" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let message = format!("`{key}` can't be \"{}\"", shortened(text));
        Wrong::new(message, "an address and a port, such as \"127.0.0.1:9640\", or \"off\"")
    })
}

/// A time such as `2s`, from `lowest` to `highest`.
pub(super) fn time(
    lowest: Duration,
    highest: Duration,
) -> impl FnOnce(&str, &str) -> Result<Duration, Wrong> {
    move |key, text| match humantime::parse_duration(text) {
        Ok(time) if (lowest..=highest).contains(&time) => Ok(time),
        _ => {
            let message = format!("`{key}` can't be \"{}\"", shortened(text));
            let (lowest, highest) = (humantime::format_duration(lowest), humantime::format_duration(highest));
            Err(Wrong::new(
                message,
                format!("a time from {lowest} to {highest}, such as \"2s\" or \"500ms\""),
            ))
        }
    }
}

/// A time in whole seconds, from `lowest` to `highest`.
pub(super) fn seconds(
    lowest: Duration,
    highest: Duration,
) -> impl FnOnce(&str, &str) -> Result<Duration, Wrong> {
    move |key, text| match humantime::parse_duration(text) {
        Ok(time) if (lowest..=highest).contains(&time) && time.subsec_nanos() == 0 => Ok(time),
        _ => {
            let message = format!("`{key}` can't be \"{}\"", shortened(text));
            let (lowest, highest) = (humantime::format_duration(lowest), humantime::format_duration(highest));
            Err(Wrong::new(
                message,
                format!("whole seconds from {lowest} to {highest}, such as \"30s\" or \"5m\""),
            ))
        }
    }
}

/// An absolute path, so that it means the same wherever the daemon is started.
pub(super) fn path(key: &str, text: &str) -> Result<PathBuf, Wrong> {
    let path = Path::new(text);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && !text.contains('\0') && path.file_name().is_some() {
        return Ok(path.to_path_buf());
    }
    let message = format!("`{key}` can't be \"{}\"", shortened(text));
    Err(Wrong::new(message, "an absolute path without \"..\""))
}

/// A name the kernel would accept for an interface (`dev_valid_name` in net/core/dev.c).
pub(super) fn interface(key: &str, text: &str) -> Result<String, Wrong> {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
    if !matches!(text, "" | "." | "..") && text.len() <= 15 && !text.contains(forbidden) {
        return Ok(text.to_owned());
    }
    let message = format!("`{key}` can't hold \"{}\"", shortened(text));
    Err(Wrong::new(message, "an interface's name: 1 to 15 bytes without space, \"/\" and \":\""))
}

/// Printable text of a length in bytes.
pub(super) fn printable(length: RangeInclusive<usize>) -> impl FnOnce(&str, &str) -> Result<String, Wrong> {
    move |key, text| {
        if length.contains(&text.len()) && !text.chars().any(char::is_control) {
            return Ok(text.to_owned());
        }
        let message = format!("`{key}` can't be \"{}\"", shortened(text));
        let label = format!("{} to {} bytes without control characters", length.start(), length.end());
        Err(Wrong::new(message, label))
    }
}

/// Path of an HTTP request, query included.
pub(super) fn http_path(key: &str, text: &str) -> Result<String, Wrong> {
    if text.starts_with('/') && text.len() <= 1024 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    let message = format!("`{key}` can't be \"{}\"", shortened(text));
    Err(Wrong::new(message, "up to 1024 ASCII characters without spaces, the first a \"/\""))
}

/// Name of a host, without a port.
pub(super) fn host(key: &str, text: &str) -> Result<String, Wrong> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if (1..=253).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    let message = format!("`{key}` can't hold \"{}\"", shortened(text));
    Err(Wrong::new(message, "the name of a host without a port, such as \"lb1.example.org\""))
}

/// Value of a `Host` header.
pub(super) fn http_host(key: &str, text: &str) -> Result<Option<String>, Wrong> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if (1..=255).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(Some(text.to_owned()));
    }
    let message = format!("`{key}` can't be \"{}\"", shortened(text));
    Err(Wrong::new(message, "a host name, with a port if need be, such as \"www.example.org\""))
}

fn endpoint(key: &str, text: &str) -> Result<(IpAddr, u16), Wrong> {
    let wrong = |why: &str| {
        let message = format!("`{key}` can't be \"{}\": {why}", shortened(text));
        Wrong::new(message, "an address and a port, such as \"203.0.113.10:80\" or \"[2001:db8::10]:443\"")
    };
    let Some((host, port)) = text.rsplit_once(':') else { return Err(wrong("there is no port")) };
    let address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse().map(IpAddr::V6).map_err(|_| wrong("that is not an IPv6 address"))?,
        None if text.parse::<std::net::Ipv6Addr>().is_ok() => {
            return Err(wrong("an IPv6 address stands in brackets, with the port after them"));
        }
        None => host.parse().map(IpAddr::V4).map_err(|_| wrong("that is not an IPv4 address"))?,
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port {
        "*" => 0,
        port if digits => port.parse().map_err(|_| wrong("a port is at most 65535"))?,
        _ => return Err(wrong("the port is not a number")),
    };
    match unusable(address) {
        Some(kind) => {
            let message = format!("`{key}` can't be \"{}\": {kind}", shortened(text));
            Err(Wrong::new(message, "an address that one host has and routers forward to"))
        }
        None => Ok((address, port)),
    }
}
