//! A question to a DNS server (RFC 1035), over UDP, and over TCP if the answer was cut off.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::Ordering::Relaxed,
};

use socket2::SockRef;
use tokio::net::UdpSocket;

use super::{Target, Trouble, stream, talk::Talk};
use crate::{
    dns::{Answer, MAX_DATAGRAM, Question},
    domain::{Dns, Rcode},
};

pub(super) async fn ask(dns: &Dns, target: &Target) -> Result<String, Trouble> {
    let question = Question::new(&dns.name, dns.record, fastrand::u16(..));
    let mut answer = over_udp(&question, target).await?;
    if answer.truncated {
        answer = over_tcp(&question, target).await?;
    }
    verdict(dns, &answer)
}

async fn over_udp(question: &Question, target: &Target) -> Result<Answer, Trouble> {
    let any = match target.address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((target.source.unwrap_or(any), 0)).await;
    let socket = socket.map_err(|error| Trouble::of(&error))?;
    target.prepare(&SockRef::from(&socket))?;
    let opened = async {
        // From then on nobody else is heard, and a closed port is.
        socket.connect(target.address).await?;
        socket.send(&question.message).await.map(drop)
    };
    opened.await.map_err(|error| Trouble::of(&error))?;
    let mut buffer = [0; MAX_DATAGRAM];
    loop {
        let count = socket.recv(&mut buffer).await.map_err(|error| Trouble::of(&error))?;
        target.heard.store(true, Relaxed);
        // What does not answer this question may be late, or forged.
        if let Some(answer) = question.answer(buffer.get(..count).unwrap_or_default()) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(question: &Question, target: &Target) -> Result<Answer, Trouble> {
    let mut talk = Talk::new(Box::new(stream::connect(target).await?));
    // A question has at most 271 bytes.
    let length = (question.message.len() as u16).to_be_bytes();
    talk.send(&[&length[..], &question.message].concat()).await?;
    let garbled = || Trouble::Backend("not what a DNS server says".to_owned());
    let length: [u8; 2] = talk.bytes(2).await?.try_into().map_err(|_| garbled())?;
    let message = talk.bytes(usize::from(u16::from_be_bytes(length))).await?;
    question.answer(&message).ok_or_else(garbled)
}

fn verdict(dns: &Dns, answer: &Answer) -> Result<String, Trouble> {
    let rcode = Rcode::named(answer.rcode)
        .map_or_else(|| format!("rcode {}", answer.rcode), |rcode| rcode.as_str().to_owned());
    if answer.rcode != dns.rcode.code() {
        return Err(Trouble::Backend(rcode));
    }
    let missing = dns.answers.iter().find(|address| !answer.addresses.contains(address));
    match missing {
        Some(address) => Err(Trouble::Backend(format!("{rcode}, and {address} is not among the answers"))),
        None if dns.rcode == Rcode::NoError && answer.records == 0 => {
            Err(Trouble::Backend(format!("{rcode} without a {} record", dns.record.as_str())))
        }
        None if answer.records == 1 => Ok(format!("{rcode}, 1 record")),
        None => Ok(format!("{rcode}, {} records", answer.records)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::RecordType;

    #[test]
    fn code_and_records_have_to_be_those_expected() {
        let dns = |rcode, answers: &[&str]| Dns {
            name: "example.org".to_owned(),
            record: RecordType::A,
            rcode,
            answers: answers.iter().map(|address| address.parse().unwrap()).collect::<BTreeSet<_>>(),
        };
        let answer = |rcode, addresses: &[&str]| Answer {
            truncated: false,
            rcode,
            records: addresses.len(),
            ttl: None,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        let said = |dns: &Dns, answer: &Answer| match verdict(dns, answer) {
            Ok(detail) => format!("ok: {detail}"),
            Err(Trouble::Backend(detail)) => detail,
            Err(other) => panic!("{other:?}"),
        };
        let plain = dns(Rcode::NoError, &[]);
        assert_eq!(said(&plain, &answer(0, &["192.0.2.1"])), "ok: noerror, 1 record");
        assert_eq!(said(&plain, &answer(0, &[])), "noerror without a A record");
        assert_eq!(said(&plain, &answer(2, &[])), "servfail");
        assert_eq!(said(&plain, &answer(11, &[])), "rcode 11");
        let named = dns(Rcode::NoError, &["192.0.2.1", "192.0.2.2"]);
        assert_eq!(
            said(&named, &answer(0, &["192.0.2.2", "192.0.2.1", "192.0.2.3"])),
            "ok: noerror, 3 records"
        );
        assert_eq!(
            said(&named, &answer(0, &["192.0.2.1"])),
            "noerror, and 192.0.2.2 is not among the answers"
        );
        assert_eq!(said(&dns(Rcode::NxDomain, &[]), &answer(3, &[])), "ok: nxdomain, 0 records");
    }
}
