//! A capture under way. While there is one, interfaces run a program that copies packets; when it ends, however it ends, they
//! run the other one again. That program stops copying by itself when nobody moves its deadline on.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use nix::time::ClockId;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{OwnedSemaphorePermit, Semaphore, SetOnce, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    Board, Client, Counts, Request,
    board::Entry,
    encoder::Encoder,
    filter::{Filter, now},
    names::Names,
};
use crate::{
    control::Handle,
    dataplane::{
        self, CaptureLoader, CaptureProgram,
        loader::{AttachError, Attachments, LoadError, lock},
    },
    domain::Name,
    similar,
};

/// What captures are made with, one at a time.
pub struct Captures {
    loader: CaptureLoader,
    attachments: Arc<Mutex<Attachments>>,
    control: Handle,
    board: Board,
    free: Arc<Semaphore>,
    stop: watch::Sender<bool>,
}

/// A capture that has begun. It ends when `blocks` is dropped.
#[derive(Debug)]
pub struct Started {
    /// What there is to read, in whole blocks or lines.
    pub blocks: mpsc::Receiver<Bytes>,
    /// Set when nothing more will come.
    pub ended: Arc<SetOnce<()>>,
}

/// Why a capture did not begin. Interfaces run what they ran.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("another capture is running, and there is one at a time; it ends when its client hangs up")]
    Busy,
    #[error("{}", similar::missing("service", .name.as_str(), .similar.as_deref()))]
    NoService { name: Name, similar: Option<String> },
    #[error("packets are not captured on {name}; there is {}", known.join(", "))]
    NoInterface { name: String, known: Vec<String> },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Dataplane(#[from] dataplane::Error),
    #[error("could not wait for packets: {0}")]
    System(#[from] io::Error),
    #[error("the daemon is stopping")]
    Stopping,
}

/// Why one ended, for the log.
enum End {
    Gone,
    Count,
    Unread,
    Stopping,
    Failed(String),
}

impl Captures {
    /// `board` is where they are written down.
    pub fn new(
        loader: CaptureLoader,
        attachments: Arc<Mutex<Attachments>>,
        control: Handle,
        board: Board,
    ) -> Self {
        let free = Arc::new(Semaphore::new(1));
        Self { loader, attachments, control, board, free, stop: watch::Sender::new(false) }
    }

    /// Begins a capture for a client.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn start(&self, request: Request, client: Client) -> Result<Started, StartError> {
        // One whose client has just hung up takes a moment to end.
        let place = timeout(PATIENCE, Arc::clone(&self.free).acquire_owned()).await;
        let place = place.ok().and_then(Result::ok).ok_or(StartError::Busy)?;
        let snapshot = self.control.snapshot();
        let filter = Filter::new(&request, &snapshot)?;
        let loader = self.loader.clone();
        // The verifier takes its time.
        let loading = tokio::task::spawn_blocking(move || loader.load()).await;
        let program = loading.map_err(io::Error::other)??;
        program.set(&filter.settings(&snapshot))?;
        let copy = program.program().try_clone_to_owned()?;
        // SAFETY: its descriptor is the map's, which it owns, and always that one.
        let program = unsafe { AsyncFd::register_with_interest(program, Interest::READABLE) };
        let program = program.map_err(io::Error::from)?;
        let interfaces = snapshot.interfaces.iter().map(|interface| interface.name.clone());
        let encoder = Encoder::new(request.format, interfaces.collect(), request.snaplen)?;
        let substituted = Substituted::new(&self.attachments, copy, &self.stop)?;
        log::info!(
            "capture: begun by {client}: {request}; interfaces run a program that copies packets until it ends"
        );

        let (listener, blocks) = mpsc::channel(UNREAD_BLOCKS);
        let ended = Arc::new(SetOnce::new());
        let session = Session {
            names: Names::new(self.control.clone()),
            entry: self.board.begin(client, request.to_string()),
            filter,
            program,
            encoder,
            listener,
            left: request.count,
            packets: 0,
            packets_at_tick: 0,
            missed: 0,
            told: 0,
            unread: 0,
            stuck: None,
            more: false,
        };
        tokio::spawn(session.finish(self.stop.subscribe(), substituted, Arc::clone(&ended), place));
        Ok(Started { blocks, ended })
    }

    /// Ends the capture that is running, if one is, for good: when this returns interfaces run the program itself.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        // Whoever has the place gives it back when it is done.
        let _ = timeout(PATIENCE, self.free.acquire()).await;
        if let Err(error) = lock(&self.attachments).restore() {
            log::error!("capture: {error}");
        }
    }
}

/// The program that copies, on every interface for as long as this lives.
struct Substituted(Arc<Mutex<Attachments>>);

impl Substituted {
    fn new(
        attachments: &Arc<Mutex<Attachments>>,
        program: std::os::fd::OwnedFd,
        stop: &watch::Sender<bool>,
    ) -> Result<Self, StartError> {
        let mut locked = lock(attachments);
        // Asked while nobody else can put the program back.
        if *stop.borrow() {
            return Err(StartError::Stopping);
        }
        locked.substitute(program)?;
        Ok(Self(Arc::clone(attachments)))
    }
}

impl Drop for Substituted {
    fn drop(&mut self) {
        if let Err(error) = lock(&self.0).restore() {
            log::error!("capture: {error}; trying again");
        }
    }
}

struct Session {
    names: Names,
    entry: Entry,
    filter: Filter,
    program: AsyncFd<CaptureProgram>,
    encoder: Encoder,
    listener: mpsc::Sender<Bytes>,
    /// Packets until the end, if there is a number.
    left: Option<u64>,
    /// Packets handed to the listener.
    packets: u64,
    packets_at_tick: u64,
    /// Wanted ones that were not captured, and how many of them the listener has been told of.
    missed: u64,
    told: u64,
    /// Captured ones that the listener was too slow for.
    unread: u64,
    /// Since when the listener has taken nothing though there was something.
    stuck: Option<Instant>,
    /// There may be packets that have not been fetched.
    more: bool,
}

impl Session {
    /// Runs it to its end, and leaves nothing behind.
    async fn finish(
        mut self,
        stop: watch::Receiver<bool>,
        substituted: Substituted,
        ended: Arc<SetOnce<()>>,
        place: OwnedSemaphorePermit,
    ) {
        let end = self.run(stop).await;
        drop(substituted);
        let why = match end {
            End::Gone => "its client is gone".to_owned(),
            End::Count => "it has all packets that it was to have".to_owned(),
            End::Unread => format!("its client has read nothing for {} s", UNREAD_FOR.as_secs()),
            End::Stopping => "the daemon is stopping".to_owned(),
            End::Failed(error) => error,
        };
        let Counts { captured, missed } = self.counts();
        log::info!("capture: ended: {why}; {captured} packets, {missed} missed");
        self.entry.count(self.counts());
        // What is in the channel is still to be read.
        drop(self);
        let _ = ended.set(());
        drop(place);
    }

    async fn run(&mut self, mut stop: watch::Receiver<bool>) -> End {
        let head = self.encoder.take();
        // There is nothing else in the channel yet.
        if !head.is_empty() && self.listener.try_send(head.into()).is_err() {
            return End::Gone;
        }
        let mut tick = interval(HEARTBEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let outcome = tokio::select! {
                biased;
                () = self.listener.closed() => return End::Gone,
                _ = stop.wait_for(|stop| *stop) => return End::Stopping,
                _ = tick.tick() => {
                    self.more = true;
                    self.go_on()
                }
                () = tokio::task::yield_now(), if self.more => self.fetch(),
                ready = self.program.readable_mut() => match ready {
                    Ok(mut ready) => {
                        // What comes after this is told of again.
                        ready.clear_ready();
                        self.more = true;
                        Ok(None)
                    }
                    Err(error) => return End::Failed(format!("waiting for packets: {error}")),
                },
            };
            match outcome {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(error) => return End::Failed(error.to_string()),
            }
        }
    }

    /// Has the program go on for a while.
    fn go_on(&mut self) -> Result<Option<End>, dataplane::Error> {
        self.program.get_ref().set(&self.filter.settings(&self.names.snapshot()))?;
        self.names.look_again();
        if self.packets == self.packets_at_tick
            && let Some(end) = self.tell_missed()?
        {
            return Ok(Some(end));
        }
        self.packets_at_tick = self.packets;
        if self.listener.capacity() > 0 {
            self.stuck = None;
        }
        Ok(self.stuck.is_some_and(|since| since.elapsed() >= UNREAD_FOR).then_some(End::Unread))
    }

    /// Tells what was missed if no packet does.
    fn tell_missed(&mut self) -> Result<Option<End>, dataplane::Error> {
        self.count_missed()?;
        let missed = self.counts().missed;
        if missed > self.told
            && let Ok(place) = self.listener.try_reserve()
        {
            match self.encoder.missed(missed - self.told, missed, now(ClockId::CLOCK_REALTIME)) {
                Ok(block) => place.send(block.into()),
                Err(error) => return Ok(Some(End::Failed(error.to_string()))),
            }
            self.told = missed;
        }
        Ok(None)
    }

    fn count_missed(&mut self) -> Result<(), dataplane::Error> {
        let counters = self.program.get_ref().missed()?;
        self.missed = counters.beyond_rate + counters.no_room;
        self.entry.count(self.counts());
        Ok(())
    }

    fn counts(&self) -> Counts {
        Counts { captured: self.packets, missed: self.missed + self.unread }
    }

    /// Hands on some of what has been captured. A listener that is too slow misses something, and is never waited for.
    fn fetch(&mut self) -> Result<Option<End>, dataplane::Error> {
        self.count_missed()?;
        for _ in 0..BATCH {
            let Some(captured) = self.program.get_mut().fetch()? else {
                self.more = false;
                break;
            };
            // Before the packet is written: what is written has to be read, because what follows builds on it.
            let Ok(place) = self.listener.try_reserve() else {
                self.unread += 1;
                self.stuck.get_or_insert_with(Instant::now);
                continue;
            };
            let missed = self.counts().missed;
            let packet = self.names.name(captured, missed - self.told);
            match self.encoder.packet(&packet) {
                Ok(block) => place.send(block.into()),
                Err(error) => return Ok(Some(End::Failed(error.to_string()))),
            }
            self.stuck = None;
            self.told = missed;
            self.packets += 1;
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    return Ok(Some(End::Count));
                }
            }
        }
        Ok(None)
    }
}

/// How often the program's deadline is moved on, to [`filter::LIFE`](super::filter::LIFE) from then.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Packets that may wait for the listener: of 1,500 bytes 3 MB, 19 MB at most, and twice that as JSON.
const UNREAD_BLOCKS: usize = 1024;
/// How long a listener may read nothing.
const UNREAD_FOR: Duration = Duration::from_secs(10);
/// Packets between two looks at everything else.
const BATCH: u32 = 256;
/// A capture ends in a moment.
const PATIENCE: Duration = Duration::from_secs(1);
