//! Texts that checks say and expect.

use std::ops::RangeInclusive;

use crate::{
    config::{report::Wrong, secrets::HIDDEN, table::shortened},
    domain::Http,
};

/// What is said to an agent, line ends included.
pub(super) fn agent(key: &str, text: &str) -> Result<String, Wrong> {
    if (1..=1024).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        format!("`{key}` can't be \"{}\"", shortened(text)),
        "1 to 1024 bytes, such as \"state\\n\"",
    ))
}

/// A method of HTTP.
pub(super) fn method(key: &str, text: &str) -> Result<String, Wrong> {
    if (1..=20).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_uppercase())
        && text != "CONNECT"
    {
        return Ok(text.to_owned());
    }
    let message = format!("`{key}` can't be \"{}\"", shortened(text));
    Err(Wrong::new(message, "a method in upper case, such as \"GET\", \"HEAD\" or \"OPTIONS\""))
}

/// `Name: value` of an HTTP header.
pub(super) fn header(key: &str, text: &str) -> Result<(String, String), Wrong> {
    let wrong = |label: &str| Err(Wrong::new(format!("`{key}` can't hold \"{}\"", shortened(text)), label));
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let Some((name, value)) = text.split_once(':') else {
        return wrong("a header, such as \"X-Probe: ballast\"");
    };
    let value = value.trim();
    let visible = |byte: u8| byte == b' ' || byte == b'\t' || byte.is_ascii_graphic();
    if name.is_empty() || name.len() > 100 || !name.bytes().all(token) {
        return wrong("the name is not one of a header");
    }
    if value.len() > 4096 || !value.bytes().all(visible) {
        return wrong("a value has at most 4096 visible ASCII characters");
    }
    if value == HIDDEN {
        return wrong("this is shown in the place of a secret: name the secret itself");
    }
    let taken = ["host", "connection", "content-length", "transfer-encoding"];
    if taken.iter().any(|taken| name.eq_ignore_ascii_case(taken)) {
        return wrong("this header is the check's own (the `Host` header is `host`)");
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// `200`, `200-399`, or several of them with commas.
pub(super) fn statuses(key: &str, text: &str) -> Result<Vec<RangeInclusive<u16>>, Wrong> {
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|status| digits && (100..=599).contains(status))
    };
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (status(first)?, status(last)?);
        (first <= last).then_some(first..=last)
    };
    text.split(',').map(|part| range(part.trim())).collect::<Option<_>>().ok_or_else(|| {
        let message = format!("`{key}` can't be \"{}\"", shortened(text));
        Wrong::new(message, "statuses from 100 to 599, such as \"200\" or \"200-299,304\"")
    })
}

/// The opposite of [`statuses`].
pub(super) fn written(http: &Http) -> String {
    let ranges = http.expect_status.iter().map(|range| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    });
    ranges.collect::<Vec<_>>().join(",")
}

/// A name in the DNS.
pub(super) fn domain_name(key: &str, text: &str) -> Result<String, Wrong> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    if text == "." || (name.len() <= 253 && name.split('.').all(label)) {
        return Ok(text.to_owned());
    }
    let message = format!("`{key}` can't be \"{}\"", shortened(text));
    Err(Wrong::new(message, "a name in ASCII, such as \"www.example.org\"; labels have 1 to 63 characters"))
}

/// The name or address that a certificate is for.
pub(super) fn server_name(key: &str, text: &str) -> Result<String, Wrong> {
    rustls::pki_types::ServerName::try_from(text).map(|_| text.to_owned()).map_err(|_| {
        let message = format!("`{key}` can't be \"{}\"", shortened(text));
        Wrong::new(message, "a host name or an address, such as \"www.example.org\"")
    })
}
