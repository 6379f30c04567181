//! Packets as pcapng: an interface for each one that packets come by, and one for each that they leave by, as `eth0 in` and
//! `eth0 out`. What became of a packet is the comment of both its frames, which follow each other.

use std::{borrow::Cow, collections::HashMap};

use pcap_file::{
    DataLink, Endianness, PcapError,
    pcapng::{
        PcapNgBlock, PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption},
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};

use super::{Frame, Packet};

/// Makes the blocks of a section, in order.
pub(super) struct Pcapng {
    writer: PcapNgWriter<Vec<u8>>,
    interfaces: HashMap<(String, Direction), u32>,
    snaplen: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Direction {
    In,
    Out,
}

impl Pcapng {
    /// Begins a section that knows these interfaces already.
    ///
    /// # Errors
    ///
    /// None: it is written to memory. The same for all that follow.
    pub(super) fn new(interfaces: &[String], snaplen: u32) -> Result<Self, PcapError> {
        let program = format!("ballast {}", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            // As the machine has it, which is little-endian wherever Ballast runs: from a pipe Wireshark takes nothing else.
            endianness: Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(Cow::Owned(program))],
            ..SectionHeaderBlock::default()
        };
        let writer = PcapNgWriter::with_section_header(Vec::new(), section)?;
        let mut this = Self { writer, interfaces: HashMap::new(), snaplen };
        for interface in interfaces {
            for direction in [Direction::In, Direction::Out] {
                this.interface(interface, direction)?;
            }
        }
        Ok(this)
    }

    /// What has been made since the last time.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }

    pub(super) fn packet(&mut self, packet: &Packet) -> Result<(), PcapError> {
        let comment = packet.to_string();
        let lost = (packet.missed > 0).then_some(EnhancedPacketOption::DropCount(packet.missed));
        let came = [EnhancedPacketOption::Flags(INBOUND)].into_iter().chain(lost);
        self.frame(&packet.frame, Direction::In, packet.received, &comment, came)?;
        if let Some(after) = &packet.frame_after {
            let left = [EnhancedPacketOption::Flags(OUTBOUND)];
            self.frame(after, Direction::Out, packet.decided, &comment, left)?;
        }
        Ok(())
    }

    /// Tells how many packets were missed in all, at the first interface.
    pub(super) fn missed(&mut self, in_all: u64, now: std::time::Duration) -> Result<(), PcapError> {
        if self.interfaces.is_empty() {
            return Ok(());
        }
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let block = InterfaceStatisticsBlock {
            interface_id: 0,
            // The upper half comes first, and each half is little-endian.
            timestamp: now.rotate_left(32),
            options: vec![InterfaceStatisticsOption::IsbIfDrop(in_all)],
        };
        self.writer.write_block(&block.into_block())?;
        Ok(())
    }

    fn frame<'a>(
        &mut self,
        frame: &'a Frame,
        direction: Direction,
        timestamp: std::time::Duration,
        comment: &'a str,
        more: impl IntoIterator<Item = EnhancedPacketOption<'a>>,
    ) -> Result<(), PcapError> {
        let interface_id = self.interface(&frame.interface, direction)?;
        let comment = EnhancedPacketOption::Comment(Cow::Borrowed(comment));
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp,
            original_len: frame.length,
            data: Cow::Borrowed(&frame.bytes),
            options: std::iter::once(comment).chain(more).collect(),
        };
        self.writer.write_block(&block.into_block())?;
        Ok(())
    }

    /// Number of an interface, which is described before it is used first.
    fn interface(&mut self, name: &str, direction: Direction) -> Result<u32, PcapError> {
        let key = (name.to_owned(), direction);
        if let Some(number) = self.interfaces.get(&key) {
            return Ok(*number);
        }
        let (name, what) = match direction {
            Direction::In => (format!("{name} in"), "as packets come"),
            Direction::Out => (format!("{name} out"), "as packets leave"),
        };
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.snaplen,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name)),
                InterfaceDescriptionOption::IfDescription(Cow::Borrowed(what)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.writer.write_block(&block.into_block())?;
        let number = self.interfaces.len() as u32;
        self.interfaces.insert(key, number);
        Ok(number)
    }
}

/// `epb_flags`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// `if_tsresol`: a negative power of 10.
const NANOSECONDS: u8 = 9;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;
    use crate::capture::testing::packet;

    /// Interface, time, comment, original length and captured bytes.
    type Read = (u32, Duration, String, u32, Vec<u8>);

    fn read(file: &[u8]) -> (Vec<String>, Vec<Read>) {
        let mut reader = PcapNgReader::new(file).expect("a section");
        let (mut interfaces, mut frames) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block.expect("a block").into_owned() {
                Block::InterfaceDescription(block) => {
                    interfaces.extend(block.options.iter().find_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                        _ => None,
                    }))
                }
                Block::EnhancedPacket(block) => {
                    let comment = block.options.iter().find_map(|option| match option {
                        EnhancedPacketOption::Comment(comment) => Some(comment.to_string()),
                        _ => None,
                    });
                    frames.push((
                        block.interface_id,
                        block.timestamp,
                        comment.expect("a comment"),
                        block.original_len,
                        block.data.into_owned(),
                    ));
                }
                other => panic!("{other:?}"),
            }
        }
        (interfaces, frames)
    }

    #[test]
    fn both_frames_of_a_packet_have_its_verdict_and_each_its_time_and_interface() {
        let mut file = Pcapng::new(&["eth0".to_owned()], 96).expect("in memory");
        let packet = packet();
        file.packet(&packet).expect("in memory");
        let dropped = Packet { frame_after: None, ..packet.clone() };
        file.packet(&dropped).expect("in memory");
        let (interfaces, frames) = read(&file.take());
        // `eth1` was not known before.
        assert_eq!(interfaces, ["eth0 in", "eth0 out", "eth1 out"]);
        let after = packet.frame_after.clone().expect("it leaves");
        let words = packet.to_string();
        let came = (0, packet.received, words.clone(), packet.frame.length, packet.frame.bytes.clone());
        let left = (2, packet.decided, words, after.length, after.bytes);
        assert_eq!(frames, [came.clone(), left, came]);
        assert!(file.take().is_empty(), "what was taken is gone");
    }

    #[test]
    fn what_was_missed_without_a_packet_is_told_with_its_time() {
        let mut file = Pcapng::new(&["eth0".to_owned()], 96).expect("in memory");
        file.missed(7, Duration::new(1_700_000_000, 5)).expect("in memory");
        let bytes = file.take();
        // The block is the last one; behind its type, length and interface are the two halves of its time, the upper one first.
        let at = bytes.windows(8).position(|eight| eight == [5, 0, 0, 0, 40, 0, 0, 0]).expect("the block");
        let half =
            |from: usize| u64::from(u32::from_le_bytes(bytes[from..from + 4].try_into().expect("four")));
        let time = half(at + 12) << 32 | half(at + 16);
        assert_eq!((time, half(at + 24)), (1_700_000_000_000_000_005, 7));
    }

    #[test]
    fn a_capture_without_packets_is_a_file() {
        let mut file = Pcapng::new(&["eth0".to_owned()], 96).expect("in memory");
        let (interfaces, frames) = read(&file.take());
        assert_eq!((interfaces.len(), frames.len()), (2, 0));
    }
}
