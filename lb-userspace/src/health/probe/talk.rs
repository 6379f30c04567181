use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use super::{Trouble, stream::Stream};

/// A conversation with a server that may be hostile: it never keeps more than was asked for, and all that the server
/// says together is bounded.
pub(super) struct Talk {
    stream: BufReader<Stream>,
    /// Bytes that the server may still say.
    left: usize,
}

impl Talk {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream: BufReader::with_capacity(BUFFER, stream), left: MOST_SAID }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| Trouble::of(&error))
    }

    /// The next `count` bytes.
    pub(super) async fn bytes(&mut self, count: usize) -> Result<Vec<u8>, Trouble> {
        if count > MOST_AT_ONCE {
            return Err(Trouble::Backend(format!("a message of {count} bytes is too long")));
        }
        self.count(count)?;
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).await.map_err(|error| Trouble::of(&error))?;
        Ok(bytes)
    }

    /// The next line, without its end. What the server said before it closed counts as one.
    pub(super) async fn line(&mut self) -> Result<Vec<u8>, Trouble> {
        let mut line = Vec::new();
        loop {
            let buffer = self.stream.fill_buf().await.map_err(|error| Trouble::of(&error))?;
            if buffer.is_empty() && line.is_empty() {
                return Err(Trouble::Backend("closed without an answer".to_owned()));
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(buffer.len());
            let done = end.is_some() || buffer.is_empty();
            line.extend_from_slice(&buffer[..taken]);
            let used = taken + usize::from(end.is_some());
            self.stream.consume(used);
            self.count(used)?;
            if line.len() > MOST_AT_ONCE {
                return Err(Trouble::Backend(format!("a line is longer than {MOST_AT_ONCE} bytes")));
            }
            if done {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
        }
    }

    /// The stream, for TLS to go on with. What the server said too early would be taken for secure.
    pub(super) fn into_stream(self) -> Result<Stream, Trouble> {
        if self.stream.buffer().is_empty() {
            Ok(self.stream.into_inner())
        } else {
            Err(Trouble::Backend("spoke before TLS was there".to_owned()))
        }
    }

    fn count(&mut self, count: usize) -> Result<(), Trouble> {
        match self.left.checked_sub(count) {
            Some(left) => self.left = left,
            None => return Err(Trouble::Backend(format!("said more than {} KiB", MOST_SAID / 1024))),
        }
        Ok(())
    }
}

const BUFFER: usize = 4096;
/// The longest of the messages that probes wait for is a replica's status, some 4 KiB.
const MOST_AT_ONCE: usize = 16 * 1024;
const MOST_SAID: usize = 64 * 1024;
