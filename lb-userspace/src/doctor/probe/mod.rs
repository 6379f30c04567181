//! Questions on the wire: a few small packets to each backend, and who answers for a VIP.
//!
//! [`frame`] makes them, [`answer`] reads what comes back, both pure; [`socket`] is the wire. All questions are under way at
//! the same time. Connections that a question opens are taken back at once.

mod answer;
mod frame;
mod socket;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

pub(crate) use answer::Refusal;
pub(crate) use frame::{Path, overhead};

use answer::Told;
use frame::Segment;
use socket::Frames;

use crate::domain::Forwarding;

/// What is asked; each once, whoever wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// Who holds this address on this interface's network?
    Holder(IpAddr, u32),
    /// Does the backend answer echo at its own address?
    Own(IpAddr),
    /// Does it take connections there?
    OwnPort(SocketAddr),
    /// Does it answer echo at the VIP, when it gets the packet as a client's?
    Vip(Forwarding, IpAddr, IpAddr),
    /// Does it take connections there?
    VipPort(Forwarding, SocketAddr, IpAddr),
    /// Does it answer one that is as large as clients send?
    VipLarge(Forwarding, IpAddr, IpAddr),
    /// Does its answer to this client come back here?
    Client(IpAddr, IpAddr),
}

/// How a question is put.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asking {
    Echo {
        path: Path,
        from: IpAddr,
        to: IpAddr,
        size: usize,
    },
    Connect {
        path: Path,
        from: IpAddr,
        to: SocketAddr,
    },
    /// From this MAC address.
    Holder {
        interface: u32,
        from: [u8; 6],
        address: IpAddr,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) what: What,
    /// Where it came in.
    pub(crate) interface: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Echo,
    Accepted,
    /// The host is there, and nobody listens.
    Closed,
    Refused(Refusal),
    Holder([u8; 6]),
}

/// All that was asked and answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) asked: HashSet<Question>,
    pub(crate) answers: HashMap<Question, Vec<Answer>>,
    /// Whether there were more questions than are asked.
    pub(crate) left_out: bool,
}

impl Heard {
    pub(crate) fn to(&self, question: Question) -> &[Answer] {
        self.answers.get(&question).map_or(&[], Vec::as_slice)
    }

    /// The first answer that is no refusal.
    pub(crate) fn answer(&self, question: Question) -> Option<Answer> {
        self.to(question).iter().copied().find(|answer| !matches!(answer.what, What::Refused(_)))
    }

    /// Why a question was not asked, which but for their number it would have been unless `otherwise`.
    pub(crate) fn why_not(&self, otherwise: &str) -> String {
        match self.left_out {
            true => {
                format!("there are more than {MOST} questions, and this is not among those that were asked")
            }
            false => otherwise.to_owned(),
        }
    }

    pub(crate) fn refusal(&self, question: Question) -> Option<Refusal> {
        self.to(question).iter().find_map(|answer| match answer.what {
            What::Refused(why) => Some(why),
            _ => None,
        })
    }
}

struct Sent {
    question: Question,
    asking: Asking,
    frame: Vec<u8>,
    /// Sent when a connection is offered.
    reset: Option<Vec<u8>>,
    answered: bool,
}

/// Asks everything and collects answers for [`PATIENCE`] at most: at least for [`SILENCE`], and until all have come that should.
///
/// # Errors
///
/// No packet socket can be had; it takes CAP_NET_RAW.
pub(crate) fn ask(questions: Vec<(Question, Asking)>) -> io::Result<Heard> {
    let mut frames = Frames::open()?;
    let id = fastrand::u16(..);
    let sequence = fastrand::u32(..);
    let port = frames.port();
    let mut heard = Heard::default();
    let mut sent: Vec<Sent> = Vec::new();
    for (question, asking) in questions {
        if heard.asked.contains(&question) {
            continue;
        }
        if sent.len() == MOST {
            heard.left_out = true;
            break;
        }
        heard.asked.insert(question);
        let token = sent.len() as u16;
        let (frame, reset) = frames_of(&asking, token, id, port, sequence);
        sent.push(Sent { question, asking, frame, reset, answered: false });
    }
    let start = Instant::now();
    let mut round = 0;
    loop {
        let elapsed = start.elapsed();
        let waiting = sent.iter().any(|one| !one.answered && !matches!(one.question, Question::Holder(..)));
        if elapsed >= PATIENCE || elapsed >= SILENCE && !waiting {
            return Ok(heard);
        }
        if elapsed >= ROUND * round {
            round += 1;
            // An interface that went down meanwhile takes nothing, which shows as silence.
            for one in sent.iter().filter(|one| !one.answered) {
                let _ = frames.send(interface_of(&one.asking), &one.frame);
            }
        }
        let told = frames.receive()?.and_then(|(interface, frame)| Some((interface, answer::read(frame)?)));
        let Some((interface, told)) = told else { continue };
        let Some((at, what)) = matching(&sent, told, id, sequence) else { continue };
        let Some(one) = sent.get_mut(at) else { continue };
        // One that was refused, by a router for one, may be answered all the same.
        one.answered |= !matches!(what, What::Refused(_) | What::Holder(_));
        if let (What::Accepted, Some(reset)) = (what, &one.reset) {
            let _ = frames.send(interface_of(&one.asking), reset);
        }
        let answers = heard.answers.entry(one.question).or_default();
        let answer = Answer { what, interface };
        if !answers.contains(&answer) {
            answers.push(answer);
        }
    }
}

fn frames_of(asking: &Asking, token: u16, id: u16, port: u16, sequence: u32) -> (Vec<u8>, Option<Vec<u8>>) {
    match *asking {
        Asking::Echo { path, from, to, size } => {
            (path.frame(token, from, to, Segment::Echo { id, sequence: token, size }), None)
        }
        Asking::Connect { path, from, to } => {
            let sequence = sequence.wrapping_add(u32::from(token) << 8);
            let syn = Segment::Syn { from: port, to: to.port(), sequence };
            let next = sequence.wrapping_add(1);
            let reset = Segment::Reset { from: port, to: to.port(), sequence: next };
            (path.frame(token, from, to.ip(), syn), Some(path.frame(token, from, to.ip(), reset)))
        }
        Asking::Holder { from, address: IpAddr::V4(address), .. } => (frame::arp_probe(from, address), None),
        Asking::Holder { from, address: IpAddr::V6(address), .. } => {
            (frame::neighbour_probe(from, address), None)
        }
    }
}

fn interface_of(asking: &Asking) -> u32 {
    match asking {
        Asking::Echo { path, .. } | Asking::Connect { path, .. } => path.interface,
        Asking::Holder { interface, .. } => *interface,
    }
}

/// Which question is answered, and how.
fn matching(sent: &[Sent], told: Told, id: u16, sequence: u32) -> Option<(usize, What)> {
    match told {
        Told::Echo { from, to, id: found, sequence: token } => {
            let one = sent.get(usize::from(token)).filter(|_| found == id)?;
            let Asking::Echo { from: asker, to: asked, .. } = one.asking else { return None };
            (from == asked && to == asker).then_some((token.into(), What::Echo))
        }
        Told::Segment { from, to, acknowledged, accepts } => {
            let token = acknowledged.wrapping_sub(1).wrapping_sub(sequence) >> 8;
            let at = token as usize;
            let Asking::Connect { from: asker, to: asked, .. } = sent.get(at)?.asking else { return None };
            let what = if accepts { What::Accepted } else { What::Closed };
            (from == asked && to.ip() == asker).then_some((at, what))
        }
        Told::Error { about, token, why } => {
            let (path, to) = match sent.get(usize::from(token))?.asking {
                Asking::Echo { path, to, .. } => (path, to),
                Asking::Connect { path, to, .. } => (path, to.ip()),
                Asking::Holder { .. } => return None,
            };
            let outermost = path.outer.map_or(to, |(_, destination, _)| destination);
            (outermost == about).then_some((token.into(), What::Refused(why)))
        }
        Told::Holder { address, mac } => {
            let is_asked =
                |one: &Sent| matches!(one.asking, Asking::Holder { address: asked, .. } if asked == address);
            sent.iter().position(is_asked).map(|at| (at, What::Holder(mac)))
        }
    }
}

/// So long anybody may take to say that an address is his: a few hundred times what it takes.
const SILENCE: Duration = Duration::from_millis(600);
const PATIENCE: Duration = Duration::from_millis(1600);
/// Between asking and asking again.
const ROUND: Duration = Duration::from_millis(300);
/// Tokens are 16 bits, and this is a question and no load test.
const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn sent(question: Question, asking: Asking) -> Sent {
        Sent { question, asking, frame: Vec::new(), reset: None, answered: false }
    }

    /// An echo to a VIP inside a tunnel, and a connection to a backend.
    fn questions() -> [Sent; 2] {
        let (own, vip, backend) = (ip("10.0.0.1"), ip("203.0.113.10"), ip("10.0.0.9"));
        let outer = Some((own, backend, Forwarding::Ipip));
        let path = Path { interface: 2, from: [2; 6], to: [4; 6], outer };
        let to = SocketAddr::new(backend, 80);
        [
            sent(
                Question::Vip(Forwarding::Ipip, vip, backend),
                Asking::Echo { path, from: own, to: vip, size: 84 },
            ),
            sent(
                Question::OwnPort(to),
                Asking::Connect { path: Path { outer: None, ..path }, from: own, to },
            ),
        ]
    }

    const ID: u16 = 77;
    const SEQUENCE: u32 = 0xffff_ff80;

    #[test]
    fn an_echo_answers_its_own_question_and_no_other() {
        let sent = questions();
        let echo =
            |from, to, id, sequence| matching(&sent, Told::Echo { from, to, id, sequence }, ID, SEQUENCE);
        let (own, vip) = (ip("10.0.0.1"), ip("203.0.113.10"));
        assert_eq!(echo(vip, own, ID, 0), Some((0, What::Echo)));
        // Another process's, another question's, another host's, and a number that was never given.
        assert_eq!(echo(vip, own, ID + 1, 0), None);
        assert_eq!(echo(vip, own, ID, 1), None);
        assert_eq!(echo(ip("10.0.0.9"), own, ID, 0), None);
        assert_eq!(echo(vip, ip("10.0.0.2"), ID, 0), None);
        assert_eq!(echo(vip, own, ID, 9), None);
    }

    #[test]
    fn a_segment_answers_by_what_it_acknowledges() {
        let sent = questions();
        let segment = |acknowledged, accepts| {
            let (from, to) = (SocketAddr::new(ip("10.0.0.9"), 80), SocketAddr::new(ip("10.0.0.1"), 4000));
            matching(&sent, Told::Segment { from, to, acknowledged, accepts }, ID, SEQUENCE)
        };
        // Question number 1, whose sequence number went over the end.
        let acknowledged = SEQUENCE.wrapping_add(1 << 8).wrapping_add(1);
        assert_eq!(segment(acknowledged, true), Some((1, What::Accepted)));
        assert_eq!(segment(acknowledged, false), Some((1, What::Closed)));
        assert_eq!(segment(SEQUENCE.wrapping_add(1), true), None);
    }

    #[test]
    fn an_error_is_about_the_outermost_header() {
        let sent = questions();
        let error = |about, token| {
            matching(&sent, Told::Error { about, token, why: Refusal::Protocol }, ID, SEQUENCE)
        };
        assert_eq!(error(ip("10.0.0.9"), 0), Some((0, What::Refused(Refusal::Protocol))));
        assert_eq!(error(ip("203.0.113.10"), 0), None);
        assert_eq!(error(ip("10.0.0.9"), 9), None);
    }
}
