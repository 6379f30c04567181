use std::io;

use super::{Format, Packet, lines, pcapng::Pcapng};

/// Makes what the listener reads.
pub(super) enum Encoder {
    Pcapng(Box<Pcapng>),
    Json,
}

impl Encoder {
    /// Of packets on these interfaces, of which `snaplen` bytes are kept.
    ///
    /// # Errors
    ///
    /// None: it is made in memory. The same for all that follow.
    pub(super) fn new(format: Format, interfaces: Vec<String>, snaplen: u32) -> io::Result<Self> {
        Ok(match format {
            Format::Pcapng => {
                Self::Pcapng(Box::new(Pcapng::new(&interfaces, snaplen).map_err(io::Error::other)?))
            }
            Format::Json => Self::Json,
        })
    }

    /// What comes before any packet.
    pub(super) fn take(&mut self) -> Vec<u8> {
        match self {
            Self::Pcapng(file) => file.take(),
            Self::Json => Vec::new(),
        }
    }

    pub(super) fn packet(&mut self, packet: &Packet) -> io::Result<Vec<u8>> {
        match self {
            Self::Pcapng(file) => {
                file.packet(packet).map_err(io::Error::other)?;
                Ok(file.take())
            }
            Self::Json => Ok(lines::line(packet)),
        }
    }
}
