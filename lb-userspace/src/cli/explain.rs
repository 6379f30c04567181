//! `ballast explain`.

use std::{fmt::Write, fs, io, net::SocketAddr, path::Path};

use anyhow::{Context as _, bail};
use clap_complete::ArgValueCandidates;

use super::{
    Format, complete,
    exit::Failure,
    output::{self, Grid, Style, cell, plain},
};
use crate::{
    api::{client::Client, v1},
    digits::hex,
    domain::Name,
};

#[derive(Debug, clap::Args)]
pub(super) struct Question {
    /// Service that the packet is for
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present_any = ["to", "frame"],
        conflicts_with_all = ["to", "frame"],
        add = ArgValueCandidates::new(complete::services),
    )]
    service: Option<Name>,
    /// Client that it comes from: 198.51.100.7:40000, [2001:db8::7]:40000
    #[arg(long, value_name = "IP:PORT", required_unless_present = "frame", conflicts_with = "frame")]
    from: Option<SocketAddr>,
    /// Where it goes, in the place of a service
    #[arg(long, value_name = "IP:PORT", conflicts_with = "frame")]
    to: Option<SocketAddr>,
    /// Port of a service that has every port
    #[arg(long, value_name = "N", requires = "service")]
    port: Option<u16>,
    /// tcp or udp [default: the service's, or tcp]
    #[arg(long, value_name = "PROTOCOL", conflicts_with = "frame")]
    protocol: Option<String>,
    /// The packet opens a TCP connection; without it, it is one in the midst of a connection
    #[arg(long, conflicts_with = "frame")]
    syn: bool,
    /// Interface that it comes by [default: the first that the program is attached to]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Bytes of the packet, from its IP header on [default: as few as possible]
    #[arg(long, value_name = "BYTES", conflicts_with = "frame")]
    length: Option<usize>,
    /// A whole Ethernet frame instead: hexadecimal digits, or a file that holds them or the frame itself
    #[arg(long, value_name = "HEX|FILE")]
    frame: Option<String>,
}

pub(super) async fn explain(client: &Client, question: Question, format: Format) -> Result<(), Failure> {
    let asked = question.into_api().map_err(Failure::Failed)?;
    let explained = client.explain(&asked).await?;
    Ok(output::print(format, &explained, render)?)
}

impl Question {
    fn into_api(self) -> anyhow::Result<v1::Question> {
        Ok(v1::Question {
            service: self.service.map(|name| name.to_string()),
            from: self.from.map(|from| from.to_string()),
            to: self.to.map(|to| to.to_string()),
            port: self.port,
            protocol: self.protocol,
            syn: self.syn,
            interface: self.interface,
            length: self.length,
            frame: self.frame.as_deref().map(frame).transpose()?,
        })
    }
}

/// The frame's digits.
fn frame(given: &str) -> anyhow::Result<String> {
    let bytes = match fs::read(Path::new(given)) {
        Ok(bytes) => bytes,
        Err(_) if is_hex(given.as_bytes()) => return Ok(given.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{given:?} is neither hexadecimal nor a file")
        }
        Err(error) => return Err(error).with_context(|| format!("{given} can't be read")),
    };
    Ok(match String::from_utf8(bytes) {
        Ok(text) if is_hex(text.as_bytes()) => text,
        Ok(text) => hex(text.as_bytes()),
        Err(error) => hex(error.as_bytes()),
    })
}

fn is_hex(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace())
}

pub(super) fn render(explained: &v1::Explained, style: Style) -> String {
    let mut text = match explained.verdict.as_str() {
        "drop" => output::loud(&format!("dropped: {}", plain(&explained.reason)), style),
        "pass" => format!("passes to the host: {}", plain(&explained.reason)),
        // Whoever sent it is told why it goes no further.
        _ if explained.remedy.is_some() => {
            let by = explained.egress.as_deref().unwrap_or_default();
            format!("answered by {}: {}", plain(by), plain(&explained.reason))
        }
        verdict => {
            let to =
                explained.backend.as_ref().map(|name| format!("to {}, ", plain(name))).unwrap_or_default();
            let by = explained.egress.as_deref().unwrap_or_default();
            format!("{to}{verdict} by {}: {}", plain(by), plain(&explained.reason))
        }
    };
    text.push_str("\n\n");
    for sentence in &explained.explanation {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", plain(sentence));
    }
    let _ = write!(text, "\n{}", headers(&explained.headers, style));
    text
}

/// Side by side, or one below the other where there is no room.
fn headers(pairs: &[v1::HeaderPair], style: Style) -> String {
    let sides: [Side; 2] =
        [("AS IT COMES", |pair| pair.before.as_deref()), ("AS IT LEAVES", |pair| pair.after.as_deref())];
    let width = |(_, side): &Side| pairs.iter().filter_map(side).map(|text| text.chars().count()).max();
    let needed = LAYER_WIDTH + sides.iter().filter_map(width).map(|width| width + 2).sum::<usize>();
    if style.width.is_none_or(|room| needed <= room.into()) {
        let [(comes, before), (leaves, after)] = sides;
        let mut grid = Grid::new(style, &["HEADER", comes, leaves]);
        for pair in pairs {
            grid.row([
                cell(&pair.layer),
                cell(before(pair).unwrap_or("-")),
                cell(after(pair).unwrap_or("-")),
            ]);
        }
        return grid.render();
    }
    let grids = sides.into_iter().filter_map(|(heading, side)| {
        let mut grid = Grid::new(style, &["HEADER", heading]).wrapping();
        let rows: Vec<_> =
            pairs.iter().filter_map(|pair| Some([cell(&pair.layer), cell(side(pair)?)])).collect();
        let is_any = !rows.is_empty();
        rows.into_iter().for_each(|row| grid.row(row));
        is_any.then(|| grid.render())
    });
    grids.collect::<Vec<_>>().join("\n")
}

/// A heading, and what stands below it.
type Side = (&'static str, fn(&v1::HeaderPair) -> Option<&str>);

/// `ethernet`
const LAYER_WIDTH: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colour: false, width: None };

    fn explained(verdict: &str, reason: &str, remedy: Option<&str>) -> v1::Explained {
        v1::Explained {
            service: Some("web".into()),
            slot: Some(5),
            backend: Some("web-1".into()),
            reason: reason.into(),
            tracked: false,
            verdict: verdict.into(),
            output: None,
            input: "00".into(),
            interface: "eth0".into(),
            egress: Some("eth1".into()),
            explanation: vec!["It is for service web.".into()],
            remedy: remedy.map(Into::into),
            headers: vec![v1::HeaderPair { layer: "tcp".into(), before: Some("1 > 2".into()), after: None }],
        }
    }

    #[test]
    fn the_first_line_says_what_becomes_of_it() {
        for (verdict, reason, remedy, wanted) in [
            ("redirect", "table", None, "to web-1, redirect by eth1: table\n"),
            ("drop", "no_backend", Some("look"), "dropped: no_backend\n"),
            ("tx", "ttl_expired", Some("look"), "answered by eth1: ttl_expired\n"),
            ("pass", "no_service", None, "passes to the host: no_service\n"),
        ] {
            let text = render(&explained(verdict, reason, remedy), PLAIN);
            assert!(text.starts_with(wanted), "{text}");
            assert!(text.contains("\nIt is for service web.\n"), "{text}");
            assert!(
                text.lines().any(|line| line.split_whitespace().eq(["tcp", "1", ">", "2", "-"])),
                "{text}"
            );
        }
    }

    #[test]
    fn a_narrow_terminal_has_the_headers_one_below_the_other() {
        let pair = |layer: &str, before: Option<&str>, after: Option<&str>| v1::HeaderPair {
            layer: layer.into(),
            before: before.map(Into::into),
            after: after.map(Into::into),
        };
        let pairs = [pair("ipv4", None, Some("1 > 2")), pair("tcp", Some("80 > 81"), Some("80 > 82"))];
        let of = |width| headers(&pairs, Style { colour: false, width: Some(width) });
        let lines = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(
            lines(&of(40)),
            ["HEADER AS IT COMES AS IT LEAVES", "ipv4 - 1 > 2", "tcp 80 > 81 80 > 82"]
        );
        assert_eq!(
            lines(&of(20)),
            ["HEADER AS IT COMES", "tcp 80 > 81", "", "HEADER AS IT LEAVES", "ipv4 1 > 2", "tcp 80 > 82"]
        );
    }

    #[test]
    fn the_json_keys_are_those_of_the_contract() {
        let json = serde_json::to_value(explained("tx", "table", None)).expect("it is written");
        for key in ["service", "slot", "backend", "reason", "tracked", "verdict", "output"] {
            assert!(json.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn a_frame_is_given_as_digits_or_as_a_file_of_digits_or_of_bytes() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            fs::write(&path, bytes).expect("written");
            path.to_str().expect("a path").to_owned()
        };
        assert_eq!(frame("02ff").expect("digits"), "02ff");
        assert_eq!(frame(&file("text", b"02 ff\n")).expect("digits"), "02 ff\n");
        assert_eq!(frame(&file("bytes", &[2, 0xff, 0])).expect("bytes"), "02ff00");
        assert!(frame("02fg").expect_err("neither").to_string().contains("neither hexadecimal nor a file"));
    }
}
