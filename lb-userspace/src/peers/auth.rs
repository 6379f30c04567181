//! Who may speak: HMAC-SHA-256 over header and body, under a key made from one that all members have.

use lb_common::hash::HashKey;
use ring::hmac;

use super::wire::TAG;
use crate::dataplane::key_bytes;

/// Signs and checks datagrams.
pub struct Keys(hmac::Key);

impl Keys {
    /// The hash key itself signs nothing: what goes over the network is of a key made from it for this purpose alone.
    pub fn derive(key: HashKey) -> Self {
        let master = hmac::Key::new(hmac::HMAC_SHA256, &key_bytes(key));
        Self(hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&master, LABEL).as_ref()))
    }

    /// The datagram, signed.
    pub fn seal(&self, header: &[u8], body: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(header.len() + body.len() + TAG);
        datagram.extend(header);
        datagram.extend(body);
        let tag = hmac::sign(&self.0, &datagram);
        datagram.extend(tag.as_ref());
        datagram
    }

    /// What was signed; `None` if it was not, by this key. Takes the same time wherever it differs.
    pub fn open<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (signed, tag) = datagram.split_at_checked(datagram.len().checked_sub(TAG)?)?;
        hmac::verify(&self.0, signed, tag).ok().map(|()| signed)
    }
}

const LABEL: &[u8] = b"ballast flow replication 1";

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HashKey = HashKey { k0: 7, k1: 9 };

    #[test]
    fn only_what_was_signed_with_the_same_key_opens() {
        let keys = Keys::derive(KEY);
        let datagram = keys.seal(b"header", b"body");
        assert_eq!(keys.open(&datagram), Some(&b"headerbody"[..]));
        assert_eq!(Keys::derive(HashKey { k1: 8, ..KEY }).open(&datagram), None);
        for at in 0..datagram.len() {
            let mut other = datagram.clone();
            other[at] ^= 1;
            assert_eq!(keys.open(&other), None, "byte {at}");
            assert_eq!(keys.open(&datagram[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn another_purpose_is_another_key() {
        let master = hmac::Key::new(hmac::HMAC_SHA256, &key_bytes(KEY));
        let tag = hmac::sign(&master, b"headerbody");
        assert_ne!(Keys::derive(KEY).seal(b"header", b"body")[10..], *tag.as_ref());
    }
}
