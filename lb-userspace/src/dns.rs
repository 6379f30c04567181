//! Questions to DNS servers and their answers, as messages (RFC 1035).

use std::{net::IpAddr, time::Duration};

use crate::{domain::RecordType, health::probe::fields::Fields};

/// A question and how it is written.
pub(crate) struct Question {
    pub(crate) message: Vec<u8>,
    record: RecordType,
}

/// What a server answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) truncated: bool,
    pub(crate) rcode: u8,
    /// How many records of the type asked for.
    pub(crate) records: usize,
    /// Those of A and AAAA records.
    pub(crate) addresses: Vec<IpAddr>,
    /// How long all of it holds; `None` without a record.
    pub(crate) ttl: Option<Duration>,
}

impl Question {
    /// `name` is one that [`Dns`](crate::domain::Dns) may hold: labels of at most 63 bytes.
    pub(crate) fn new(name: &str, record: RecordType, id: u16) -> Self {
        let mut message = id.to_be_bytes().to_vec();
        // A query that wants recursion, with one question.
        message.extend_from_slice(&[RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.').filter(|label| !label.is_empty()) {
            message.push(label.len() as u8 & MAX_LABEL);
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend_from_slice(&record.code().to_be_bytes());
        message.extend_from_slice(&CLASS_IN.to_be_bytes());
        Self { message, record }
    }

    /// What `message` answers to this question; `None` if it answers another, or is broken.
    pub(crate) fn answer(&self, message: &[u8]) -> Option<Answer> {
        let mut fields = Fields::of(message);
        let same_id = fields.take(2)? == self.message.get(..2)?;
        let [high, low] = fields.array()?;
        let questions = fields.big_u16()?;
        let records = fields.big_u16()?;
        let _authorities_and_more = fields.take(4)?;
        if !same_id || high & IS_ANSWER == 0 {
            return None;
        }
        let mut answer = Answer {
            truncated: high & TRUNCATED != 0,
            rcode: low & 0x0f,
            records: 0,
            addresses: Vec::new(),
            ttl: None,
        };
        match questions {
            // An error may come without the question.
            0 if answer.rcode != 0 => return Some(answer),
            1 => {}
            _ => return None,
        }
        let question = self.message.get(HEADER..)?;
        if !fields.take(question.len())?.eq_ignore_ascii_case(question) {
            return None;
        }
        if answer.truncated {
            return Some(answer);
        }
        for _ in 0..records {
            skip_name(&mut fields)?;
            let kind = fields.big_u16()?;
            let class = fields.big_u16()?;
            let ttl = seconds(fields.big_u32()?);
            let length = fields.big_u16()?;
            let data = fields.take(usize::from(length))?;
            // An alias on the way may change before what it leads to.
            answer.ttl = Some(answer.ttl.map_or(ttl, |known| known.min(ttl)));
            if kind != self.record.code() || class != CLASS_IN {
                continue;
            }
            answer.records += 1;
            let address = match self.record {
                RecordType::A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
                RecordType::Aaaa => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
                _ => None,
            };
            answer.addresses.extend(address);
        }
        Some(answer)
    }
}

/// A time to live with the top bit is none (RFC 2181, section 8).
fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(if ttl > i32::MAX as u32 { 0 } else { ttl.into() })
}

/// A name ends with an empty label or a pointer; where that points does not matter here.
fn skip_name(fields: &mut Fields<'_>) -> Option<()> {
    loop {
        match fields.byte()? {
            0 => return Some(()),
            length @ 1..=MAX_LABEL => fields.take(usize::from(length))?,
            0xc0.. => return fields.take(1).map(drop),
            _ => return None,
        };
    }
}

/// Without EDNS no server sends more than 512 bytes.
pub(crate) const MAX_DATAGRAM: usize = 512;

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const MAX_LABEL: u8 = 63;
/// Of the first byte of the flags.
const RECURSION_DESIRED: u8 = 1;
const TRUNCATED: u8 = 2;
const IS_ANSWER: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(question: &Question, flags: [u8; 2], records: &[&[u8]]) -> Vec<u8> {
        let mut message = question.message[..2].to_vec();
        message.extend_from_slice(&flags);
        message.extend_from_slice(&[0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
        message.extend_from_slice(&question.message[HEADER..]);
        message.extend(records.iter().copied().flatten());
        message
    }

    const ADDRESS: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
    const ALIAS: &[u8] = &[1, b'x', 0, 0, 5, 0, 1, 0, 0, 0, 20, 0, 2, 0xc0, 12];

    #[test]
    fn a_question_is_written_as_it_should_be() {
        let question = Question::new("www.example.org.", RecordType::A, 0x1234);
        let expected = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01";
        assert_eq!(question.message, expected);
        assert_eq!(Question::new(".", RecordType::Ns, 0).message[HEADER..], [0, 0, 2, 0, 1]);
    }

    #[test]
    fn only_what_answers_the_question_is_an_answer() {
        let question = Question::new("www.example.org", RecordType::A, 7);
        let good = answer(&question, [0x81, 0x80], &[ALIAS, ADDRESS]);
        let read = question.answer(&good).unwrap();
        assert_eq!((read.rcode, read.records, read.addresses), (0, 1, vec!["192.0.2.1".parse().unwrap()]));
        assert_eq!(read.ttl, Some(Duration::from_secs(20)), "the alias goes first");
        for length in 0..good.len() {
            assert_eq!(question.answer(&good[..length]), None, "{length}");
        }
        // Another id, another question, and the question itself.
        assert_eq!(Question::new("www.example.org", RecordType::A, 8).answer(&good), None);
        assert_eq!(Question::new("ftp.example.org", RecordType::A, 7).answer(&good), None);
        assert_eq!(question.answer(&question.message), None);
        // Upper case is the same name.
        assert!(Question::new("WWW.example.org", RecordType::A, 7).answer(&good).is_some());
        assert!(question.answer(&answer(&question, [0x83, 0x80], &[])).unwrap().truncated);
        assert_eq!(question.answer(&answer(&question, [0x81, 0x83], &[])).unwrap().rcode, 3);
    }
}
