use super::{
    super::{super::fields::Fields, secured},
    Talk, Target, Trouble, garbled,
};
use crate::domain::Database;

/// Packets with their sequence numbers.
pub(super) struct Wire {
    talk: Talk,
    sequence: u8,
}

/// The rows of a text result set. `None` is NULL.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Option<String>>>,
}

impl Wire {
    pub(super) fn new(talk: Talk) -> Self {
        Self { talk, sequence: 0 }
    }

    pub(super) async fn secured(self, database: &Database, target: &Target) -> Result<Self, Trouble> {
        Ok(Self { talk: secured(self.talk, database, target).await?, sequence: self.sequence })
    }

    pub(super) async fn receive(&mut self) -> Result<Vec<u8>, Trouble> {
        let header = self.talk.bytes(4).await?;
        let [low, middle, high, sequence] = header.try_into().map_err(|_| garbled("MySQL"))?;
        self.sequence = sequence.wrapping_add(1);
        let packet = self.talk.bytes(u32::from_le_bytes([low, middle, high, 0]) as usize).await?;
        match packet.first() {
            Some(&ERROR) => Err(error(&packet)),
            Some(_) => Ok(packet),
            None => Err(garbled("MySQL")),
        }
    }

    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<(), Trouble> {
        let length = u32::try_from(payload.len()).map_err(|_| garbled("MySQL"))?.to_le_bytes();
        let mut packet = vec![length[0], length[1], length[2], self.sequence];
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.talk.send(&packet).await
    }

    pub(super) async fn command(&mut self, command: u8, argument: &[u8]) -> Result<(), Trouble> {
        self.sequence = 0;
        self.send(&[&[command], argument].concat()).await
    }

    /// The answer to a query.
    pub(super) async fn rows(&mut self) -> Result<Rows, Trouble> {
        let first = self.receive().await?;
        let count = Fields::of(&first).length().filter(|count| *count <= MAX_COLUMNS);
        let mut rows = Rows::default();
        for _ in 0..count.ok_or_else(|| garbled("MySQL"))? {
            let definition = self.receive().await?;
            rows.columns.push(column_name(&definition).ok_or_else(|| garbled("MySQL"))?);
        }
        if !is_end(&self.receive().await?) {
            return Err(garbled("MySQL"));
        }
        loop {
            let packet = self.receive().await?;
            if is_end(&packet) {
                return Ok(rows);
            }
            let mut fields = Fields::of(&packet);
            let row = rows.columns.iter().map(|_| fields.value()).collect::<Option<Vec<_>>>();
            rows.rows.push(row.ok_or_else(|| garbled("MySQL"))?);
        }
    }
}

impl<'a> Fields<'a> {
    /// A length-encoded integer.
    fn length(&mut self) -> Option<u64> {
        match self.byte()? {
            small @ 0..=250 => Some(u64::from(small)),
            252 => self.little_u16().map(u64::from),
            253 => self.array::<3>().map(|[a, b, c]| u64::from(u32::from_le_bytes([a, b, c, 0]))),
            254 => self.array().map(u64::from_le_bytes),
            _ => None,
        }
    }

    /// A length-encoded string.
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(usize::try_from(length).ok()?)
    }

    /// A value of a row: a length-encoded string, or NULL.
    fn value(&mut self) -> Option<Option<String>> {
        if self.rest().first() == Some(&NULL) {
            self.byte()?;
            return Some(None);
        }
        Some(Some(String::from_utf8_lossy(self.text()?).into_owned()))
    }
}

/// Catalog, schema, table and original table stand before the name.
fn column_name(definition: &[u8]) -> Option<String> {
    let mut fields = Fields::of(definition);
    for _ in 0..4 {
        fields.text()?;
    }
    Some(String::from_utf8_lossy(fields.text()?).into_owned())
}

fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&END) && packet.len() < 9
}

/// What an ERR packet says.
fn error(packet: &[u8]) -> Trouble {
    let mut fields = Fields::of(packet);
    let code = fields.byte().and_then(|_| fields.little_u16());
    let Some(code) = code else { return garbled("MySQL") };
    if fields.rest().first() == Some(&b'#') {
        fields.take(6);
    }
    Trouble::Backend(format!("error {code}: {}", String::from_utf8_lossy(fields.rest())))
}

const ERROR: u8 = 0xff;
const END: u8 = 0xfe;
const NULL: u8 = 0xfb;
/// A replica's status has some 60.
const MAX_COLUMNS: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_lie_about_their_length_are_refused() {
        assert_eq!(Fields::of(&[252, 1, 2]).length(), Some(513));
        assert_eq!(Fields::of(&[253, 1, 0, 1]).length(), Some(65_537));
        assert_eq!(Fields::of(&[3, b'a', b'b']).text(), None);
        assert_eq!(Fields::of(&[254, 255, 255, 255, 255, 255, 255, 255, 255]).text(), None);
        assert_eq!(Fields::of(&[NULL]).value(), Some(None));
        assert_eq!(Fields::of(&[2, b'O', b'N']).value(), Some(Some("ON".to_owned())));
    }

    #[test]
    fn an_error_is_told_as_the_server_tells_it() {
        let packet = b"\xff\x15\x04#28000Access denied for user 'ballast'";
        let Trouble::Backend(detail) = error(packet) else { panic!("not the backend's") };
        assert_eq!(detail, "error 1045: Access denied for user 'ballast'");
        assert!(matches!(error(b"\xff"), Trouble::Backend(_)));
    }
}
