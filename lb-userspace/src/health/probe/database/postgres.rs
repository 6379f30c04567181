//! PostgreSQL: the few messages of the frontend/backend protocol, version 3.0, that a check needs (postgresql.org,
//! "Message Formats").

use md5::{Digest as _, Md5};

use super::{
    super::fields::Fields, Standing, Talk, Target, Trouble, garbled, password, scram::Scram, secured,
};
use crate::{
    digits::hex,
    domain::{Database, Role},
};

pub(super) async fn ask(database: &Database, target: &Target, mut talk: Talk) -> Result<String, Trouble> {
    if database.tls.is_some() {
        talk.send(&[&8u32.to_be_bytes()[..], &SSL_REQUEST.to_be_bytes()].concat()).await?;
        match talk.bytes(1).await?.as_slice() {
            b"S" => talk = secured(talk, database, target).await?,
            b"N" => return Err(Trouble::Backend("the server has no TLS".to_owned())),
            _ => return Err(garbled("PostgreSQL")),
        }
    }
    let mut wire = Wire { talk };
    log_in(&mut wire, database).await?;
    let row = query(&mut wire, if database.max_lag.is_some() { ROLE_AND_LAG } else { ROLE }).await?;
    // Without it the server would log a lost connection.
    let _ = wire.send(b'X', b"").await;
    standing(&row, database)?.judge(database.role)
}

fn standing(row: &[Option<String>], database: &Database) -> Result<Standing, Trouble> {
    let standing = |role, detail: &str| Standing { role, detail: detail.to_owned(), trouble: None };
    match row.first() {
        Some(Some(recovers)) if recovers == "f" => {
            return Ok(standing(Role::Primary, "primary: not in recovery"));
        }
        Some(Some(recovers)) if recovers == "t" => {}
        _ => return Err(garbled("PostgreSQL")),
    }
    let Some(most) = database.max_lag else { return Ok(standing(Role::Replica, "replica: in recovery")) };
    let lag = row.get(1).and_then(|lag| lag.as_deref()).and_then(|lag| lag.parse::<f64>().ok());
    let (detail, late) = match lag {
        Some(lag) => (format!("replica, {:.1} s behind", lag.max(0.0)), lag > most.as_secs_f64()),
        None => ("replica, lag not known".to_owned(), true),
    };
    Ok(Standing { role: Role::Replica, trouble: late.then(|| detail.clone()), detail })
}

/// Messages with their types.
struct Wire {
    talk: Talk,
}

impl Wire {
    /// A message that is no notice and no setting. An error becomes the backend's trouble.
    async fn receive(&mut self) -> Result<(u8, Vec<u8>), Trouble> {
        loop {
            let header = self.talk.bytes(5).await?;
            let mut fields = Fields::of(&header);
            let (Some(kind), Some(length)) = (fields.byte(), fields.big_u32()) else {
                return Err(garbled("PostgreSQL"));
            };
            let known = b"ERSNKZTDCI".contains(&kind);
            let length = length.checked_sub(4).filter(|_| known).ok_or_else(|| garbled("PostgreSQL"))?;
            let body = self.talk.bytes(length as usize).await?;
            match kind {
                b'N' | b'S' => {}
                b'E' => return Err(error(&body)),
                _ => return Ok((kind, body)),
            }
        }
    }

    async fn send(&mut self, kind: u8, body: &[u8]) -> Result<(), Trouble> {
        let length = u32::try_from(body.len() + 4).map_err(|_| garbled("PostgreSQL"))?;
        self.talk.send(&[&[kind], &length.to_be_bytes()[..], body].concat()).await
    }
}

async fn log_in(wire: &mut Wire, database: &Database) -> Result<(), Trouble> {
    let user = database.user.as_deref().unwrap_or_default();
    let name = database.database.as_deref().unwrap_or(user);
    let settings = ["user", user, "database", name, "application_name", "ballast"];
    let mut start = PROTOCOL.to_be_bytes().to_vec();
    for text in settings {
        start.extend_from_slice(text.as_bytes());
        start.push(0);
    }
    start.push(0);
    let length = u32::try_from(start.len() + 4).map_err(|_| garbled("PostgreSQL"))?;
    wire.talk.send(&[&length.to_be_bytes()[..], &start].concat()).await?;

    let secret = || password(database.password_file.as_deref());
    let mut scram: Option<Scram> = None;
    loop {
        let (kind, body) = wire.receive().await?;
        let mut fields = Fields::of(&body);
        match (kind, fields.big_u32(), fields.rest()) {
            (b'R', Some(AUTHENTICATED), _) => {}
            (b'R', Some(PASSWORD), _) => wire.send(b'p', &[&secret().await?[..], &[0]].concat()).await?,
            (b'R', Some(MD5), salt) => {
                let proof = md5_proof(&secret().await?, user, salt);
                wire.send(b'p', &[proof.as_bytes(), &[0]].concat()).await?;
            }
            (b'R', Some(SASL), mechanisms) => {
                if !mechanisms.split(|byte| *byte == 0).any(|name| name == SCRAM.as_bytes()) {
                    return Err(Trouble::Backend(format!("the server does not offer {SCRAM}")));
                }
                let exchange = Scram::new(secret().await?)?;
                let first = exchange.first();
                let length = u32::try_from(first.len()).map_err(|_| garbled("PostgreSQL"))?;
                let body = [SCRAM.as_bytes(), &[0], &length.to_be_bytes()[..], first.as_bytes()].concat();
                wire.send(b'p', &body).await?;
                scram = Some(exchange);
            }
            (b'R', Some(SASL_CONTINUE), challenge) => {
                let exchange = scram.as_mut().ok_or_else(|| garbled("PostgreSQL"))?;
                wire.send(b'p', exchange.answer(challenge).await?.as_bytes()).await?;
            }
            (b'R', Some(SASL_FINAL), proof) => {
                scram.as_ref().ok_or_else(|| garbled("PostgreSQL"))?.verify(proof)?;
            }
            (b'R', Some(other), _) => {
                return Err(Trouble::Backend(format!(
                    "the server wants authentication {other}, which checks lack"
                )));
            }
            (b'K', ..) => {}
            (b'Z', ..) => return Ok(()),
            _ => return Err(garbled("PostgreSQL")),
        }
    }
}

/// The one row that `text` gives.
async fn query(wire: &mut Wire, text: &str) -> Result<Vec<Option<String>>, Trouble> {
    wire.send(b'Q', &[text.as_bytes(), &[0]].concat()).await?;
    let mut row = None;
    loop {
        let (kind, body) = wire.receive().await?;
        match kind {
            b'D' => row = Some(values(&body).ok_or_else(|| garbled("PostgreSQL"))?),
            b'Z' => return row.ok_or_else(|| garbled("PostgreSQL")),
            _ => {}
        }
    }
}

fn values(row: &[u8]) -> Option<Vec<Option<String>>> {
    let mut fields = Fields::of(row);
    let count = fields.big_u16()?;
    let value = |_| match fields.big_u32()? {
        u32::MAX => Some(None),
        length => Some(Some(String::from_utf8_lossy(fields.take(length as usize)?).into_owned())),
    };
    (0..count).map(value).collect()
}

/// `md5(md5(password user) salt)`, as text each.
fn md5_proof(password: &[u8], user: &str, salt: &[u8]) -> String {
    let inner = hex(&Md5::digest([password, user.as_bytes()].concat()));
    format!("md5{}", hex(&Md5::digest([inner.as_bytes(), salt].concat())))
}

/// The message of an ErrorResponse.
fn error(body: &[u8]) -> Trouble {
    let mut message = None;
    for field in body.split(|byte| *byte == 0) {
        if let Some((b'M', text)) = field.split_first() {
            message = Some(String::from_utf8_lossy(text).into_owned());
        }
    }
    message.map_or_else(|| garbled("PostgreSQL"), Trouble::Backend)
}

const PROTOCOL: u32 = 3 << 16;
const SSL_REQUEST: u32 = 80_877_103;
const AUTHENTICATED: u32 = 0;
const PASSWORD: u32 = 3;
const MD5: u32 = 5;
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;
const SCRAM: &str = "SCRAM-SHA-256";
const ROLE: &str = "SELECT pg_is_in_recovery()";
/// A replica that has replayed all it received is not behind, however long ago the last transaction was.
const ROLE_AND_LAG: &str = "SELECT pg_is_in_recovery(), CASE WHEN NOT pg_is_in_recovery() \
    OR pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0 \
    ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_broken_ones_are_refused() {
        let row = [&[0, 2][..], &1u32.to_be_bytes(), b"t", &u32::MAX.to_be_bytes()].concat();
        assert_eq!(values(&row), Some(vec![Some("t".to_owned()), None]));
        assert_eq!(values(&row[..row.len() - 1]), None);
        assert_eq!(values(&[255, 255]), None);
    }

    /// `SELECT 'md5' || md5(md5('secret' || 'ballast') || 'salt')`
    #[test]
    fn an_md5_proof_is_what_the_server_computes() {
        assert_eq!(md5_proof(b"secret", "ballast", b"salt"), "md554f504ad8fa3fb377076a700a257efff");
    }

    #[test]
    fn an_error_is_told_as_the_server_tells_it() {
        let body = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
        let Trouble::Backend(detail) = error(body) else { panic!("not the backend's") };
        assert_eq!(detail, "the database system is starting up");
    }
}
