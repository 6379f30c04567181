//! JSON of the gateway: what is 0, false or empty is not there, numbers of 64 bits are texts, and bytes are in Base64.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use crate::fleet::book::{Entry, Event};

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

#[derive(Debug, Deserialize)]
pub(super) struct Token {
    pub(super) token: String,
}

/// Of etcd 3.4 and of later ones, and inside a stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    error: Option<String>,
    message: Option<String>,
}

impl Refusal {
    pub(super) fn text(&self) -> &str {
        self.message.as_deref().or(self.error.as_deref()).unwrap_or_default()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub(super) revision: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Range {
    pub(super) header: Header,
    pub(super) kvs: Vec<KeyValue>,
    /// Of all that there are.
    #[serde(deserialize_with = "number")]
    pub(super) count: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    key: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    value: Vec<u8>,
    #[serde(deserialize_with = "number")]
    mod_revision: i64,
}

impl KeyValue {
    fn key(&self) -> String {
        // Keys that are no text are nobody's here, and stay nobody's.
        String::from_utf8_lossy(&self.key).into_owned()
    }
}

impl From<KeyValue> for Entry {
    fn from(of: KeyValue) -> Self {
        Self { key: of.key(), revision: of.mod_revision, value: of.value }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Txn {
    pub(super) header: Header,
    pub(super) succeeded: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Granted {
    #[serde(rename = "ID", deserialize_with = "number")]
    pub(super) id: i64,
    /// Seconds.
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub(super) ttl: i64,
}

/// One line of an answer that goes on.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de> + Default"), default)]
pub(super) struct Line<T> {
    pub(super) result: Option<T>,
    pub(super) error: Option<Refusal>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { result: None, error: None }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Changes {
    pub(super) created: bool,
    pub(super) canceled: bool,
    pub(super) cancel_reason: String,
    #[serde(deserialize_with = "number")]
    pub(super) compact_revision: i64,
    pub(super) events: Vec<Changed>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Changed {
    r#type: String,
    kv: KeyValue,
}

impl From<Changed> for Event {
    fn from(of: Changed) -> Self {
        match of.r#type.as_str() {
            "DELETE" => Self::Deleted { key: of.kv.key() },
            // PUT is the value that may be left out.
            _ => Self::Put(of.kv.into()),
        }
    }
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    BASE64_STANDARD.decode(text.as_bytes()).map_err(de::Error::custom)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    deserializer.deserialize_any(Number)
}

struct Number;

impl Visitor<'_> for Number {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of 64 bits, as a text or not")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<i64, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<i64, E> {
        Ok(number)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<i64, E> {
        number.try_into().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_with_what_is_not_there() {
        let text = r#"{"header":{"cluster_id":"1","revision":"5","raft_term":"2"},"kvs":[
            {"key":"L2EvZmxlZXQ=","create_revision":"2","mod_revision":"4","version":"1","value":"eA=="},
            {"key":"L2I=","mod_revision":3}],"count":"2"}"#;
        let range: Range = serde_json::from_str(text).expect("read");
        assert_eq!(range.header.revision, 5);
        let entries: Vec<Entry> = range.kvs.into_iter().map(Into::into).collect();
        assert_eq!(entries[0], Entry { key: "/a/fleet".into(), value: b"x".to_vec(), revision: 4 });
        assert_eq!(entries[1], Entry { key: "/b".into(), value: Vec::new(), revision: 3 });
        let nothing: Range = serde_json::from_str("{}").expect("read");
        assert!(nothing.kvs.is_empty());
    }

    #[test]
    fn changes_are_put_and_deleted_keys() {
        let text = r#"{"result":{"header":{"revision":"9"},"events":[
            {"kv":{"key":"YQ==","value":"eA==","mod_revision":"9"}},
            {"type":"DELETE","kv":{"key":"Yg==","mod_revision":"9"}}]}}"#;
        let line: Line<Changes> = serde_json::from_str(text).expect("read");
        let events: Vec<Event> = line.result.expect("a result").events.into_iter().map(Into::into).collect();
        let put = Event::Put(Entry { key: "a".into(), value: b"x".to_vec(), revision: 9 });
        assert_eq!(events, [put, Event::Deleted { key: "b".into() }]);
    }

    #[test]
    fn refusals_of_every_version_are_read() {
        for text in [
            r#"{"error":"etcdserver: no leader","code":14,"message":"etcdserver: no leader"}"#,
            r#"{"code":14,"message":"etcdserver: no leader","details":[]}"#,
            r#"{"error":"etcdserver: no leader","code":14}"#,
        ] {
            let refusal: Refusal = serde_json::from_str(text).expect("read");
            assert_eq!(refusal.text(), "etcdserver: no leader");
        }
        let text = r#"{"error":{"grpc_code":14,"http_code":503,"message":"gone","http_status":"x"}}"#;
        let line: Line<Changes> = serde_json::from_str(text).expect("read");
        assert_eq!(line.error.expect("an error").text(), "gone");
    }
}
