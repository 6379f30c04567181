use proptest::{collection::vec, prelude::*};

use super::*;

/// Bodies with these flows of a service; as many as it takes.
pub(crate) fn flows(service: ServiceId, bucket_bits: u8, records: &[Record]) -> Vec<(Vec<u8>, usize)> {
    let mut bodies = FlowBodies::new(service, bucket_bits);
    records.iter().for_each(|record| bodies.push(record));
    bodies.finish()
}

fn service() -> ServiceId {
    let shape = Shape { forwarding: 1, hash_key: 2, selection: 0, slots_log2: 14, idle: 900 };
    ServiceId { address: [7; 16], port: 443, protocol: 6, shape }
}

fn told() -> impl Strategy<Value = Option<Told>> {
    // Few names as well as many.
    let name = prop_oneof![0..4u64, any::<u64>()];
    let told = (name.clone(), name, any::<bool>());
    proptest::option::of(told.prop_map(|(current, previous, tracked)| Told { current, previous, tracked }))
}

fn chunk() -> impl Strategy<Value = Chunk> {
    (0..512u32, proptest::array::uniform32(told())).prop_map(|(number, slots)| Chunk { number, slots })
}

fn record() -> impl Strategy<Value = Record> {
    let backend = prop_oneof![1..4u64, 1..=u64::MAX];
    (0..1u64 << 52, backend, any::<u16>(), any::<[bool; 3]>()).prop_map(
        |(hash, backend, age, [closing, changed, doubtful])| Record {
            hash,
            backend,
            age,
            closing,
            changed,
            doubtful,
        },
    )
}

proptest! {
    #[test]
    fn slots_arrive_as_they_were_told(chunks in vec(chunk(), 0..40), version: u64) {
        let bodies = slots(service(), version, &chunks);
        prop_assert!(bodies.iter().all(|body| body.len() <= MAX_BODY));
        let mut arrived = Vec::new();
        for body in bodies {
            let message = Slots::decode(&body).unwrap();
            prop_assert_eq!((message.service, message.version), (service(), version));
            arrived.extend(message.chunks);
        }
        prop_assert_eq!(arrived, chunks);
    }

    #[test]
    fn flows_arrive_as_they_were_told(records in vec(record(), 0..400), bits in 0..=23u8) {
        let bodies = flows(service(), bits, &records);
        prop_assert!(bodies.iter().all(|(body, _)| body.len() <= MAX_BODY));
        let mut arrived = Vec::new();
        for (body, count) in bodies {
            let message = Flows::decode(&body).unwrap();
            prop_assert_eq!((message.service, message.bucket_bits, message.records.len()), (service(), bits, count));
            arrived.extend(message.records);
        }
        prop_assert_eq!(arrived, records);
    }

    #[test]
    fn a_header_arrives_as_it_was_sent(
        kind in 0..5usize, fingerprint: [u8; 8], session: u64, sequence: u64, sent: u64, held: u32,
    ) {
        let fingerprint = KeyFingerprint::from_bytes(fingerprint);
        let header = Header { kind: Kind::ALL[kind], fingerprint, session, sequence, sent, held };
        let mut datagram = header.encode().to_vec();
        datagram.extend([0; TAG]);
        prop_assert_eq!(Header::decode(&datagram), Ok(header));
        prop_assert_eq!(Header::decode(&datagram[1..]), Err(Wrong::Malformed));
        datagram[4] += 1;
        prop_assert_eq!(Header::decode(&datagram), Err(Wrong::Version));
        datagram.resize(MAX_DATAGRAM + 1, 0);
        prop_assert_eq!(Header::decode(&datagram), Err(Wrong::Malformed));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..1400)) {
        let _ = Header::decode(&bytes);
        let _ = Hello::decode(&bytes);
        let _ = Ack::decode(&bytes);
        let _ = Slots::decode(&bytes);
        let _ = Flows::decode(&bytes);
    }

    #[test]
    fn a_body_with_a_byte_changed_or_cut_off_is_read_or_refused(
        chunks in vec(chunk(), 1..4), records in vec(record(), 1..60), at: prop::sample::Index, byte: u8,
    ) {
        for mut body in slots(service(), 1, &chunks) {
            let at = at.index(body.len());
            prop_assert!(Slots::decode(&body[..at]).is_err());
            body[at] = byte;
            let _ = Slots::decode(&body);
        }
        for (mut body, _) in flows(service(), 9, &records) {
            let at = at.index(body.len());
            prop_assert!(Flows::decode(&body[..at]).is_err());
            body[at] = byte;
            let _ = Flows::decode(&body);
        }
    }
}

#[test]
fn hellos_and_acks_arrive_as_they_were_sent() {
    let hello = Hello { life: 1, hears: 4, offer: 2, tables: 3, age: 5 };
    assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    let ack = Ack { session: 4, sequences: (0..Ack::MOST as u64).collect() };
    assert!(ack.encode().len() <= MAX_BODY);
    assert_eq!(Ack::decode(&ack.encode()), Ok(ack));
}

#[test]
fn a_chunk_outside_of_the_service_is_refused() {
    let chunk = Chunk { number: 512, slots: [Some(Told::default()); CHUNK] };
    let bodies = slots(service(), 1, &[chunk]);
    assert_eq!(Slots::decode(&bodies[0]), Err(Wrong::Malformed));
}
