use serde::{Deserialize, Serialize};

use crate::{
    capture::{DEFAULT_RATE, Format, MAX_RATE, MIN_SNAPLEN, Request},
    config::shape::{Refused, one_of},
    domain::Name,
};
use lb_common::abi::MAX_SNAPLEN;

/// `POST /v1/capture`: which packets are wanted. What is not there makes no difference between packets.
///
/// The answer is a stream of them: pcapng, or with `format` `json` a [`CapturedPacket`] a line. It goes on until the client
/// hangs up, or has `count` packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    /// Those for this service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Those of clients in this prefix, and replies to them through NAT: `198.51.100.0/24`, `2001:db8::7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Those that come by this interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Only what is dropped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
    /// Also what is left to the host.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Packets a second at most, 1 to 100000; 1000 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Bytes of a frame that are kept, 64 to 9216; as many as possible unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
    /// `pcapng` or `json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

impl Capture {
    pub(crate) fn validate(self) -> Result<Request, Refused> {
        let service =
            self.service.map(|name| name.parse::<Name>().map_err(refused("service"))).transpose()?;
        let from = self.from.map(|prefix| {
            prefix.parse().map_err(|error| refused("from")(format!("`from` can't be {prefix:?}: {error}")))
        });
        let rate = self.rate.unwrap_or(DEFAULT_RATE);
        let snaplen = self.snaplen.unwrap_or(MAX_SNAPLEN);
        let format = self.format.map(|name| one_of("format", &Format::ALL, Format::as_str, &name));
        let format = format.transpose()?.unwrap_or_default();
        within("rate", rate.into(), 1, MAX_RATE)?;
        within("snaplen", snaplen.into(), MIN_SNAPLEN, MAX_SNAPLEN)?;
        if self.count == Some(0) {
            return Err(refused("count")("`count` can't be 0: leave it out for a capture without end"));
        }
        Ok(Request {
            service,
            from: from.transpose()?,
            interface: self.interface,
            dropped: self.dropped,
            passed: self.passed,
            count: self.count,
            rate,
            snaplen,
            format,
        })
    }
}

fn within(field: &'static str, value: u64, lowest: u32, highest: u32) -> Result<(), Refused> {
    if (u64::from(lowest)..=u64::from(highest)).contains(&value) {
        return Ok(());
    }
    Err(refused(field)(format!("`{field}` can't be {value}: an integer from {lowest} to {highest}")))
}

fn refused<T: ToString>(field: &'static str) -> impl FnOnce(T) -> Refused {
    move |message| Refused { field: field.to_owned(), message: message.to_string() }
}

/// A line of `POST /v1/capture` with `format` `json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedPacket {
    /// When it came: RFC 3339, in UTC, with nanoseconds.
    pub time: String,
    /// By which it came.
    pub interface: String,
    /// The interface's queue that it came by.
    pub queue: u32,
    /// `tx`, `redirect`, `pass` or `drop`.
    pub verdict: String,
    /// Why it was dropped; `null` if it was not.
    pub reason: Option<String>,
    /// `null`: it is for none, or that was not looked for.
    pub service: Option<String>,
    pub backend: Option<String>,
    /// The slot of the service's lookup table that its hash names.
    pub slot: Option<u32>,
    /// Why that backend: `table`, `flow`, `previous`, `fallback`, `new_flow`, `round_robin`, `least_connections`, `nat_flow`, `fragment`.
    pub why: Option<String>,
    /// All this in words.
    pub text: String,
    /// As it came: `198.51.100.7:40000`; `null` if it is not IP.
    pub from: Option<String>,
    pub to: Option<String>,
    /// `tcp`, `udp`, `icmp`, or a number.
    pub protocol: Option<String>,
    /// As tcpdump has them: `S.` is SYN and ACK.
    pub tcp_flags: Option<String>,
    /// Of the frame in bytes, without FCS.
    pub length: u32,
    /// As it came, as far as it was kept; hex.
    pub frame: String,
    /// The same of the frame that leaves; `null` where none does.
    pub interface_out: Option<String>,
    pub length_out: Option<u32>,
    pub frame_out: Option<String>,
    /// From when it came to when it was decided about.
    pub nanoseconds: u64,
    /// Packets that were wanted and not captured, since the line before.
    pub missed: u64,
}

/// A line between them, where no packet was captured for a second: so many were missed since the line before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissedPackets {
    pub missed: u64,
}

/// A capture that is running, in `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningCapture {
    /// Who captures: the client of the control socket.
    pub user: u32,
    /// `null`: its number is not known here.
    pub process: Option<u32>,
    pub seconds: u64,
    /// Which packets are wanted, in words.
    pub filter: String,
    pub packets: u64,
    /// Packets that were wanted and not captured.
    pub missed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_at_all_is_a_request_and_what_can_not_be_is_refused_by_its_name() {
        assert_eq!(Capture::default().validate(), Ok(Request::default()));
        let json = Capture { format: Some("json".into()), ..Capture::default() };
        assert_eq!(json.validate().map(|request| request.format), Ok(Format::Json));
        let wrong = [
            ("service", Capture { service: Some("Web".into()), ..Capture::default() }),
            ("from", Capture { from: Some("198.51.100.7/24".into()), ..Capture::default() }),
            ("count", Capture { count: Some(0), ..Capture::default() }),
            ("rate", Capture { rate: Some(0), ..Capture::default() }),
            ("rate", Capture { rate: Some(100_001), ..Capture::default() }),
            ("snaplen", Capture { snaplen: Some(63), ..Capture::default() }),
            ("snaplen", Capture { snaplen: Some(9_217), ..Capture::default() }),
            ("format", Capture { format: Some("pcap".into()), ..Capture::default() }),
        ];
        for (field, request) in wrong {
            assert_eq!(request.validate().map_err(|error| error.field), Err(field.to_owned()));
        }
    }
}
