//! Asks DNS servers: over UDP, and over TCP where the answer was cut off. Each question has a socket of its own, whose random
//! port an answer has to know, for no longer than it takes.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

use super::lookup::{Asked, Round};
use crate::{
    config::DiscoveryConfig,
    dns::{Answer, MAX_DATAGRAM, Question},
    domain::{Rcode, RecordType},
};

pub(super) struct Resolver {
    /// Empty: those of `/etc/resolv.conf`.
    configured: Vec<SocketAddr>,
    timeout: Duration,
    /// The one that answered last is asked first, so that a dead one costs its timeout once.
    preferred: AtomicUsize,
}

impl Resolver {
    pub(super) fn new(config: &DiscoveryConfig) -> Self {
        let (configured, timeout) = (config.resolvers.clone(), config.timeout);
        Self { configured, timeout, preferred: AtomicUsize::new(0) }
    }

    /// Asks for the addresses of `host`: IPv4, IPv6. The second question waits for the first.
    pub(super) async fn round(&self, host: &str, [v4, v6]: [bool; 2]) -> Round {
        let servers = self.servers().await;
        let mut round = [None, None];
        if v4 {
            round[0] = Some(self.ask(&servers, host, RecordType::A).await);
        }
        if v6 {
            round[1] = Some(self.ask(&servers, host, RecordType::Aaaa).await);
        }
        round
    }

    async fn servers(&self) -> Vec<SocketAddr> {
        if !self.configured.is_empty() {
            return self.configured.clone();
        }
        let text = tokio::fs::read_to_string(RESOLV_CONF).await.unwrap_or_default();
        let mut servers = nameservers(&text);
        if servers.is_empty() {
            // As resolv.conf(5) has it.
            servers.push((Ipv4Addr::LOCALHOST, 53).into());
        }
        servers
    }

    /// Each server twice at most, until one answers with something that is no failure of its own.
    async fn ask(&self, servers: &[SocketAddr], host: &str, record: RecordType) -> Asked {
        let mut failure = String::new();
        let first = self.preferred.load(Relaxed);
        for turn in 0..servers.len() * TRIES {
            let number = (first + turn) % servers.len();
            let server = servers[number];
            let question = Question::new(host, record, fastrand::u16(..));
            let answered = tokio::time::timeout(self.timeout, exchange(&question, server));
            match answered.await {
                Ok(Ok(answer)) => match read(&answer, record) {
                    Asked::Failed(why) => failure = format!("{server} says {why}"),
                    asked => {
                        self.preferred.store(number, Relaxed);
                        return asked;
                    }
                },
                Ok(Err(error)) => failure = format!("{server}: {error}"),
                Err(_) => failure = format!("{server} does not answer"),
            }
        }
        Asked::Failed(failure)
    }
}

fn read(answer: &Answer, record: RecordType) -> Asked {
    let addresses: BTreeSet<IpAddr> = answer.addresses.iter().copied().collect();
    match (Rcode::named(answer.rcode), answer.ttl) {
        (Some(Rcode::NoError), Some(ttl)) if !addresses.is_empty() => Asked::Addresses { addresses, ttl },
        (Some(Rcode::NoError), _) if record == RecordType::A => Asked::Nothing("no A record"),
        (Some(Rcode::NoError), _) => Asked::Nothing("no AAAA record"),
        (Some(Rcode::NxDomain), _) => Asked::Nothing("nxdomain"),
        (Some(rcode), _) => Asked::Failed(rcode.as_str().to_owned()),
        (None, _) => Asked::Failed(format!("rcode {}", answer.rcode)),
    }
}

async fn exchange(question: &Question, server: SocketAddr) -> io::Result<Answer> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // From then on nobody else is heard, and a closed port is.
    socket.connect(server).await?;
    socket.send(&question.message).await?;
    let mut buffer = [0; MAX_DATAGRAM];
    loop {
        let count = socket.recv(&mut buffer).await?;
        // What does not answer this question may be late, or forged.
        match question.answer(buffer.get(..count).unwrap_or_default()) {
            None => {}
            Some(answer) if answer.truncated => break,
            Some(answer) => return Ok(answer),
        }
    }
    drop(socket);
    over_tcp(question, server).await
}

async fn over_tcp(question: &Question, server: SocketAddr) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    // A question has at most 271 bytes.
    let length = (question.message.len() as u16).to_be_bytes();
    stream.write_all(&[&length[..], &question.message].concat()).await?;
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    let whole = question.answer(&message).filter(|answer| !answer.truncated);
    whole.ok_or_else(|| io::Error::other("not what a DNS server says"))
}

/// Those of a text like resolv.conf(5), as many as the C library takes.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let nameserver = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        scoped(words.next()?)
    };
    text.lines().filter_map(nameserver).take(MOST_NAMESERVERS).collect()
}

/// An address, perhaps with the interface on whose link it is: `fe80::1%eth0`.
fn scoped(text: &str) -> Option<SocketAddr> {
    let Some((address, interface)) = text.split_once('%') else {
        return text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 53));
    };
    let scope = nix::net::if_::if_nametoindex(interface).ok().or_else(|| interface.parse().ok())?;
    Some(SocketAddrV6::new(address.parse().ok()?, 53, 0, scope).into())
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
const TRIES: usize = 2;
const MOST_NAMESERVERS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_those_of_the_file() {
        let text = "# nameserver 192.0.2.9\nsearch example.org\nnameserver 192.0.2.1 # the first\n\
                    nameserver\t2001:db8::1\nnameserver nonsense\nnameserver fe80::1%7\nnameserver 192.0.2.4\n";
        let servers: Vec<_> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%7]:53"]);
        assert_eq!(nameservers(""), []);
    }

    #[test]
    fn an_answer_is_addresses_nothing_or_a_failure() {
        let answer = |rcode, addresses: &[&str]| Answer {
            truncated: false,
            rcode,
            records: addresses.len(),
            addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
            ttl: (!addresses.is_empty()).then_some(Duration::from_secs(9)),
        };
        let read = |answer: &Answer| read(answer, RecordType::A);
        let two = read(&answer(0, &["192.0.2.2", "192.0.2.1", "192.0.2.2"]));
        assert!(matches!(two, Asked::Addresses { addresses, .. } if addresses.len() == 2));
        assert_eq!(read(&answer(0, &[])), Asked::Nothing("no A record"));
        assert_eq!(read(&answer(3, &[])), Asked::Nothing("nxdomain"));
        assert_eq!(read(&answer(2, &[])), Asked::Failed("servfail".to_owned()));
        assert_eq!(read(&answer(11, &[])), Asked::Failed("rcode 11".to_owned()));
    }
}
