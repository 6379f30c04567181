//! Frames as they pass an interface, and frames put on one.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::namespace::Namespace;
use super::packet_socket::PacketSocket;
use super::stop::Stop;
use super::wait::wait_for;

/// Enough for the longest frame of any interface here, GSO frames included.
const LONGEST_FRAME: usize = 70_000;

/// A captured frame, from its Ethernet header on. VLAN tags are where they were on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When it passed. The kernel turns timestamps on a moment after the first capture began; until then it is when
    /// the frame was read, up to a few milliseconds later: frames of two captures are not ordered by it.
    pub time: SystemTime,
    /// Whether the interface sent it (else it received it).
    pub outgoing: bool,
    pub bytes: Vec<u8>,
}

/// A running capture. Frames that pass after [`Capture::start`] returned and before [`Capture::stop`] was called are
/// in it.
#[derive(Debug)]
pub struct Capture {
    stop: Stop,
    frames: Arc<Mutex<Vec<Frame>>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    socket: Arc<PacketSocket>,
    place: String,
}

impl Capture {
    /// Captures every frame that passes `interface`.
    pub fn start(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::start_filtered(namespace, interface, |_| true)
    }

    /// Captures the frames that `keep` returns true for.
    pub fn start_filtered(
        namespace: &Namespace,
        interface: &str,
        keep: impl Fn(&Frame) -> bool + Send + 'static,
    ) -> Result<Self> {
        let place = format!("{interface} in {}", namespace.name());
        let socket = namespace
            .enter(|| PacketSocket::capture(interface))
            .with_context(|| format!("capture on {place}"))?;
        let socket = Arc::new(socket);
        let frames = Arc::new(Mutex::new(Vec::new()));
        let stop = Stop::new()?;
        let thread = std::thread::Builder::new().name(format!("capture {interface}")).spawn({
            let (stop, frames, socket) = (stop.clone(), frames.clone(), socket.clone());
            move || collect(&socket, &stop, &frames, keep)
        })?;
        Ok(Self { stop, frames, thread: Some(thread), socket, place })
    }

    /// What is captured so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<Frame> {
        lock(&self.frames).clone()
    }

    /// How many frames are captured so far.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.frames).len()
    }

    /// Whether such a frame is captured already.
    pub fn has(&self, wanted: impl FnMut(&Frame) -> bool) -> bool {
        lock(&self.frames).iter().any(wanted)
    }

    /// Waits for a frame that `wanted` returns true for (one captured already counts) and returns the first.
    pub fn wait_for(&self, what: &str, timeout: Duration, wanted: impl Fn(&Frame) -> bool) -> Result<Frame> {
        let mut seen = 0;
        wait_for(&format!("{what} on {}", self.place), timeout, || {
            let frames = lock(&self.frames);
            let found = frames.iter().skip(seen).find(|frame| wanted(frame)).cloned();
            seen = frames.len();
            found
        })
    }

    /// Ends the capture and returns its frames, in the order they passed.
    ///
    /// Fails if frames were lost because the capture was too slow: what is missing there proves nothing.
    pub fn stop(mut self) -> Result<Vec<Frame>> {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .expect("a capture does not panic")
                .with_context(|| format!("capture on {}", self.place))?;
        }
        let lost = self.socket.lost()?;
        anyhow::ensure!(lost == 0, "capture on {}: {lost} frames came too fast to be captured", self.place);
        Ok(std::mem::take(&mut lock(&self.frames)))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Namespace {
    /// Puts a frame (from its Ethernet header on) on the wire at `interface`, as it is.
    pub fn inject(&self, interface: &str, frame: &[u8]) -> Result<()> {
        self.inject_all(interface, [frame])
    }

    /// Puts frames on the wire at `interface`, one after the other.
    pub fn inject_all<F: AsRef<[u8]>>(
        &self,
        interface: &str,
        frames: impl IntoIterator<Item = F> + Send,
    ) -> Result<()> {
        self.enter(|| {
            let socket = PacketSocket::send_only(interface)?;
            for (number, frame) in frames.into_iter().enumerate() {
                let frame = frame.as_ref();
                socket.send(frame).with_context(|| format!("frame {number} of {} bytes", frame.len()))?;
            }
            Ok(())
        })
        .with_context(|| format!("inject at {interface} in {}", self.name()))
    }
}

fn collect(
    socket: &PacketSocket,
    stop: &Stop,
    frames: &Mutex<Vec<Frame>>,
    keep: impl Fn(&Frame) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; LONGEST_FRAME];
    loop {
        // What is asked for first: if stop was set before, all that passed until then is in the socket by now.
        let stopping = stop.is_set();
        while let Some(frame) = socket.receive(&mut buffer)? {
            if keep(&frame) {
                lock(frames).push(frame);
            }
        }
        if stopping {
            return Ok(());
        }
        stop.wait_readable(socket.as_fd())?;
    }
}

/// A filter that panicked leaves whole frames behind.
fn lock(frames: &Mutex<Vec<Frame>>) -> MutexGuard<'_, Vec<Frame>> {
    frames.lock().unwrap_or_else(PoisonError::into_inner)
}
