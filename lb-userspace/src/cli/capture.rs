//! `ballast capture`: packets as the daemon captures them, on the terminal, as JSON or in a file.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use bytes::BytesMut;
use clap_complete::ArgValueCandidates;
use lb_common::abi::MAX_SNAPLEN;
use pcap_file::{
    PcapError,
    pcapng::{
        Block, PcapNgParser,
        blocks::{enhanced_packet::EnhancedPacketOption, interface_statistics::InterfaceStatisticsOption},
    },
};

use super::{
    Format, complete,
    exit::Failure,
    output::{self, Style, plain},
};
use crate::{
    api::{client::Client, v1},
    capture::{DEFAULT_RATE, MAX_RATE, MIN_SNAPLEN},
    console::interrupt::Interrupt,
    domain::{Name, Prefix},
};

#[derive(Debug, clap::Args)]
pub(super) struct Capture {
    /// Only packets for this service
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::services))]
    service: Option<Name>,
    /// Only packets of clients in this prefix, and replies to them through NAT: 198.51.100.0/24, 2001:db8::7
    #[arg(long, value_name = "PREFIX")]
    from: Option<Prefix>,
    /// Only packets that come by this interface
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// Only packets that are dropped
    #[arg(long)]
    dropped: bool,
    /// Also packets that are left to the host
    #[arg(long)]
    passed: bool,
    /// End after so many packets
    #[arg(short = 'c', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Packets a second at most; those beyond are counted and not shown
    #[arg(long, value_name = "N", default_value_t = DEFAULT_RATE, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RATE)))]
    rate: u32,
    /// Bytes to keep of each frame, from its first on
    #[arg(long, value_name = "N", default_value_t = MAX_SNAPLEN, value_parser = clap::value_parser!(u32).range(i64::from(MIN_SNAPLEN)..=i64::from(MAX_SNAPLEN)))]
    snaplen: u32,
    /// Write the frames to a pcapng file for Wireshark, as they came and as they left; - is standard output
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) async fn capture(client: &Client, asked: Capture, format: Format) -> Result<(), Failure> {
    if asked.file.is_some() && format == Format::Json {
        return Err(Failure::Usage("-w writes pcapng, and -o json prints JSON: take one of them".to_owned()));
    }
    let mut tally = Tally::default();
    let outcome = match &asked.file {
        Some(path) if path == Path::new("-") => {
            if io::stdout().is_terminal() {
                return Err(Failure::Usage(
                    "-w - writes a file to standard output, which is a terminal: send it on, as in `ballast capture -w - | \
                     wireshark -k -i -`"
                        .to_owned(),
                ));
            }
            save(client, &asked, &mut Stdout, &mut tally).await
        }
        Some(path) => save(client, &asked, &mut Target::new(path), &mut tally).await,
        None => show(client, &asked, format, &mut tally).await,
    };
    // Of a capture that did not begin there is nothing to say.
    if tally.has_begun {
        output::complain(&tally.to_string());
    }
    outcome
}

/// Prints a line for each packet.
async fn show(client: &Client, asked: &Capture, format: Format, tally: &mut Tally) -> Result<(), Failure> {
    let style = Style::of_stdout();
    let mut lines = BytesMut::new();
    read(client, asked, "json", tally, |chunk, tally| {
        lines.extend_from_slice(chunk);
        let mut stdout = io::stdout().lock();
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line = lines.split_to(end + 1);
            let told: Line =
                serde_json::from_slice(&line).context("the daemon sent a line that makes no sense")?;
            match (&told, format) {
                (_, Format::Json) => stdout.write_all(&line)?,
                (Line::Packet(packet), Format::Table) => writeln!(stdout, "{}", text(packet, style))?,
                (Line::Missed(missed), Format::Table) => writeln!(stdout, "({} missed)", missed.missed)?,
            }
            match told {
                Line::Packet(packet) => {
                    tally.packets += 1;
                    tally.missed += packet.missed;
                }
                Line::Missed(missed) => tally.missed += missed.missed,
            }
        }
        Ok(stdout.flush()?)
    })
    .await
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Line {
    Missed(v1::MissedPackets),
    Packet(Box<v1::CapturedPacket>),
}

/// Where a file goes.
trait Sink {
    /// Appends whole blocks.
    fn append(&mut self, blocks: &[u8]) -> Result<(), Failure>;
}

struct Stdout;

impl Sink for Stdout {
    fn append(&mut self, blocks: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(blocks)?;
        Ok(stdout.flush()?)
    }
}

/// A file that is made when there is something to write.
struct Target<'a> {
    path: &'a Path,
    file: Option<File>,
    length: u64,
}

impl<'a> Target<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, file: None, length: 0 }
    }
}

impl Sink for Target<'_> {
    fn append(&mut self, blocks: &[u8]) -> Result<(), Failure> {
        let failed = |error| Failure::Failed(anyhow!("can't write {}: {error}", self.path.display()));
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(create(self.path).map_err(failed)?),
        };
        if let Err(error) = file.write_all(blocks) {
            // Half a block would make all of the file suspect.
            let _ = file.set_len(self.length);
            return Err(failed(error));
        }
        self.length += blocks.len() as u64;
        Ok(())
    }
}

/// What clients send is nobody else's business.
fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Writes the packets as pcapng, in whole blocks, so that what is there is a file whenever it ends.
async fn save(
    client: &Client,
    asked: &Capture,
    sink: &mut impl Sink,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let mut parser = None;
    let mut unread = BytesMut::new();
    read(client, asked, "pcapng", tally, |chunk, tally| {
        unread.extend_from_slice(chunk);
        let whole = blocks(&unread, &mut parser, tally)?;
        if whole > 0 {
            sink.append(&unread.split_to(whole))?;
        }
        Ok(())
    })
    .await
}

/// Length of the whole blocks that `bytes` begins with, of which the packets are counted.
fn blocks(bytes: &[u8], parser: &mut Option<PcapNgParser>, tally: &mut Tally) -> anyhow::Result<usize> {
    let mut rest = bytes;
    loop {
        let block = match parser {
            None => match PcapNgParser::new(rest) {
                Ok((after, made)) => {
                    *parser = Some(made);
                    Ok((after, None))
                }
                Err(error) => Err(error),
            },
            Some(parser) => parser.next_block(rest).map(|(after, block)| (after, Some(block))),
        };
        match block {
            Ok((after, block)) => {
                rest = after;
                match block {
                    Some(Block::EnhancedPacket(block)) => tally.count(&block.options),
                    Some(Block::InterfaceStatistics(block)) => tally.count_all(&block.options),
                    _ => {}
                }
            }
            Err(PcapError::IncompleteBuffer) => return Ok(bytes.len() - rest.len()),
            Err(error) => return Err(error).context("the daemon sent something else than pcapng"),
        }
    }
}

/// Reads until there are enough packets, or somebody has had enough.
async fn read(
    client: &Client,
    asked: &Capture,
    format: &str,
    tally: &mut Tally,
    mut take: impl FnMut(&[u8], &mut Tally) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut interrupt = Interrupt::listen()?;
    let request = request(asked, format);
    let mut stream = tokio::select! {
        stream = client.capture(&request) => stream?,
        () = interrupt.wait() => return Ok(()),
    };
    tally.has_begun = true;
    if asked.file.is_none() && io::stderr().is_terminal() {
        output::complain("capturing; Ctrl-C ends it");
    }
    loop {
        let chunk = tokio::select! {
            chunk = stream.next() => chunk?,
            () = interrupt.wait() => return Ok(()),
        };
        match chunk {
            Some(chunk) => take(&chunk, tally)?,
            None if asked.count == Some(tally.packets) => return Ok(()),
            None => return Err(Failure::Failed(anyhow!("the daemon ended the capture; its log says why"))),
        }
    }
}

fn request(asked: &Capture, format: &str) -> v1::Capture {
    v1::Capture {
        service: asked.service.as_ref().map(ToString::to_string),
        from: asked.from.as_ref().map(ToString::to_string),
        interface: asked.interface.clone(),
        dropped: asked.dropped,
        passed: asked.passed,
        count: asked.count,
        rate: Some(asked.rate),
        snaplen: Some(asked.snaplen),
        format: Some(format.to_owned()),
    }
}

/// `17:30:00.123456 eth0 198.51.100.7:40000 > 203.0.113.10:80 tcp S 74: web → web-2 (10.0.0.12): tx, slot 123, table`
pub(super) fn text(packet: &v1::CapturedPacket, style: Style) -> String {
    // Of the date and the nanoseconds nobody has need who looks on.
    let time = packet.time.get(11..26).unwrap_or(&packet.time);
    let way = match (&packet.from, &packet.to) {
        (Some(from), Some(to)) => format!("{from} > {to} "),
        _ => String::new(),
    };
    let protocol = [packet.protocol.as_deref(), packet.tcp_flags.as_deref()];
    let protocol: String = protocol.into_iter().flatten().map(|word| format!("{word} ")).collect();
    let head = plain(&format!("{time} {} {way}{protocol}{}", packet.interface, packet.length));
    let missed = match packet.missed {
        0 => String::new(),
        missed => format!("({missed} missed)\n"),
    };
    let told = plain(&packet.text);
    let told = if packet.verdict == "drop" { output::loud(&told, style) } else { told };
    format!("{missed}{head}: {told}")
}

/// What there was.
#[derive(Debug, Default)]
struct Tally {
    has_begun: bool,
    packets: u64,
    missed: u64,
}

impl Tally {
    /// Counts a frame if it is a packet's first.
    fn count(&mut self, options: &[EnhancedPacketOption<'_>]) {
        for option in options {
            match option {
                EnhancedPacketOption::Flags(flags) => self.packets += u64::from(flags & DIRECTION == INBOUND),
                EnhancedPacketOption::DropCount(missed) => self.missed += missed,
                _ => {}
            }
        }
    }
}

impl Tally {
    /// What was missed in all.
    fn count_all(&mut self, options: &[InterfaceStatisticsOption<'_>]) {
        for option in options {
            if let InterfaceStatisticsOption::IsbIfDrop(missed) = option {
                self.missed = *missed;
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { packets, missed, .. } = self;
        write!(f, "{packets} packets captured, {missed} missed")?;
        if *missed > 0 {
            f.write_str(" (faster than --rate allows, or than they were read)")?;
        }
        Ok(())
    }
}

/// Of `epb_flags`.
const DIRECTION: u32 = 3;
const INBOUND: u32 = 1;

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, time::Duration};

    use pcap_file::{
        DataLink,
        pcapng::{
            PcapNgBlock, PcapNgReader, PcapNgWriter,
            blocks::{
                enhanced_packet::EnhancedPacketBlock, interface_description::InterfaceDescriptionBlock,
            },
        },
    };

    use super::*;

    /// An interface and three packets, the last of which left no frame.
    fn file() -> Vec<u8> {
        let mut writer = PcapNgWriter::new(Vec::new()).expect("in memory");
        let interface =
            InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 64, options: Vec::new() };
        writer.write_block(&interface.into_block()).expect("in memory");
        for flags in [INBOUND, 2, INBOUND, 2, INBOUND] {
            let missed = (flags == INBOUND).then_some(EnhancedPacketOption::DropCount(4));
            let frame = EnhancedPacketBlock {
                interface_id: 0,
                timestamp: Duration::from_nanos(5),
                original_len: 3,
                data: Cow::Borrowed(&[1, 2, 3]),
                options: [EnhancedPacketOption::Flags(flags)].into_iter().chain(missed).collect(),
            };
            writer.write_block(&frame.into_block()).expect("in memory");
        }
        writer.into_inner()
    }

    #[test]
    fn what_is_written_is_whole_wherever_what_comes_is_cut() {
        let file = file();
        for size in 1..=file.len() {
            let (mut parser, mut tally) = (None, Tally::default());
            let (mut unread, mut written) = (BytesMut::new(), Vec::new());
            for chunk in file.chunks(size) {
                unread.extend_from_slice(chunk);
                let whole = blocks(&unread, &mut parser, &mut tally).expect("blocks");
                written.extend_from_slice(&unread.split_to(whole));
                // Whoever ends it now has a file.
                let mut reader = match PcapNgReader::new(written.as_slice()) {
                    Ok(reader) => reader,
                    Err(_) if written.is_empty() => continue,
                    Err(error) => panic!("{error}"),
                };
                while let Some(block) = reader.next_block() {
                    block.expect("a whole block");
                }
            }
            assert!(unread.is_empty() && written == file, "{size} bytes at a time");
            assert_eq!((tally.packets, tally.missed), (3, 12));
        }
    }

    #[test]
    fn what_is_no_pcapng_is_not_written() {
        let nonsense = b"HTTP/1.1 500 Internal Server Error\r\n\r\n";
        assert!(blocks(nonsense, &mut None, &mut Tally::default()).is_err());
    }

    #[test]
    fn a_line_tells_the_packet_and_what_became_of_it() {
        let packet = v1::CapturedPacket {
            time: "2026-11-27T17:30:00.123456789Z".into(),
            interface: "eth0".into(),
            queue: 0,
            verdict: "tx".into(),
            reason: None,
            service: Some("web".into()),
            backend: Some("web-2".into()),
            slot: Some(123),
            why: Some("table".into()),
            text: "web → web-2 (10.0.0.12): tx, slot 123, table".into(),
            from: Some("198.51.100.7:40000".into()),
            to: Some("203.0.113.10:80".into()),
            protocol: Some("tcp".into()),
            tcp_flags: Some("S".into()),
            length: 74,
            frame: String::new(),
            interface_out: Some("eth0".into()),
            length_out: Some(74),
            frame_out: Some(String::new()),
            nanoseconds: 100,
            missed: 0,
        };
        let style = |colour| Style { colour, width: None };
        assert_eq!(
            text(&packet, style(true)),
            "17:30:00.123456 eth0 198.51.100.7:40000 > 203.0.113.10:80 tcp S 74: web → web-2 (10.0.0.12): tx, slot 123, \
             table"
        );
        let dropped = v1::CapturedPacket {
            verdict: "drop".into(),
            text: "web: dropped: no_backend\u{1b}".into(),
            from: None,
            protocol: Some("0x0806".into()),
            tcp_flags: None,
            missed: 5,
            ..packet
        };
        let plain = "(5 missed)\n17:30:00.123456 eth0 0x0806 74: web: dropped: no_backend\u{fffd}";
        assert_eq!(text(&dropped, style(false)), plain);
        assert!(text(&dropped, style(true)).contains("\u{1b}[1;31mweb: dropped"));
    }
}
