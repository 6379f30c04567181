use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use super::{super::super::fields::Fields, Trouble, garbled, packet::Wire};
use crate::domain::Database;

/// The server's first packet, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    salt: Vec<u8>,
    plugin: Plugin,
    capabilities: u32,
}

/// How a password is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    /// `mysql_native_password`
    Native,
    /// `caching_sha2_password`
    Sha2,
}

impl Plugin {
    const fn name(self) -> &'static str {
        match self {
            Self::Native => "mysql_native_password",
            Self::Sha2 => "caching_sha2_password",
        }
    }

    fn named(name: &[u8]) -> Option<Self> {
        [Self::Native, Self::Sha2].into_iter().find(|plugin| plugin.name().as_bytes() == name)
    }

    /// What proves that the client knows the password.
    fn proof(self, password: &[u8], salt: &[u8]) -> Vec<u8> {
        if password.is_empty() {
            return Vec::new();
        }
        let (once, mixed) = match self {
            Self::Native => {
                let once = digest(&SHA1_FOR_LEGACY_USE_ONLY, password);
                let twice = digest(&SHA1_FOR_LEGACY_USE_ONLY, once.as_ref());
                (once, digest(&SHA1_FOR_LEGACY_USE_ONLY, &[salt, twice.as_ref()].concat()))
            }
            Self::Sha2 => {
                let once = digest(&SHA256, password);
                let twice = digest(&SHA256, once.as_ref());
                (once, digest(&SHA256, &[twice.as_ref(), salt].concat()))
            }
        };
        once.as_ref().iter().zip(mixed.as_ref()).map(|(a, b)| a ^ b).collect()
    }
}

impl Greeting {
    pub(super) fn read(packet: &[u8]) -> Result<Self, Trouble> {
        Self::parse(packet).ok_or_else(|| garbled("MySQL"))
    }

    fn parse(packet: &[u8]) -> Option<Self> {
        let mut fields = Fields::of(packet);
        if fields.byte()? != PROTOCOL_VERSION {
            return None;
        }
        let _version = fields.until_zero()?;
        let _thread = fields.take(4)?;
        let mut salt = fields.take(8)?.to_vec();
        let _filler = fields.byte()?;
        let low = fields.little_u16()?;
        let _character_set = fields.byte()?;
        let _status = fields.little_u16()?;
        let high = fields.little_u16()?;
        let length = usize::from(fields.byte()?);
        let _reserved = fields.take(10)?;
        // A zero byte ends the salt, and counts.
        salt.extend_from_slice(fields.take(length.saturating_sub(8).max(13))?.strip_suffix(&[0])?);
        let plugin = fields.until_zero().and_then(Plugin::named).unwrap_or(Plugin::Native);
        Some(Self { salt, plugin, capabilities: u32::from(high) << 16 | u32::from(low) })
    }
}

/// Asks the server to go on with TLS.
pub(super) fn tls_request(greeting: &Greeting) -> Result<Vec<u8>, Trouble> {
    if greeting.capabilities & CLIENT_SSL == 0 {
        return Err(Trouble::Backend("the server has no TLS".to_owned()));
    }
    Ok(client_header(CAPABILITIES | CLIENT_SSL))
}

pub(super) async fn log_in(
    wire: &mut Wire,
    greeting: &Greeting,
    database: &Database,
    password: &[u8],
) -> Result<(), Trouble> {
    let secure = database.tls.is_some();
    let mut plugin = greeting.plugin;
    let proof = plugin.proof(password, &greeting.salt);
    let mut login = client_header(CAPABILITIES | if secure { CLIENT_SSL } else { 0 });
    login.extend_from_slice(database.user.as_deref().unwrap_or_default().as_bytes());
    login.push(0);
    // Neither proof has more than 32 bytes.
    login.push(u8::try_from(proof.len()).map_err(|_| garbled("MySQL"))?);
    login.extend_from_slice(&proof);
    login.extend_from_slice(plugin.name().as_bytes());
    login.push(0);
    wire.send(&login).await?;
    for _ in 0..MAX_ROUNDS {
        let packet = wire.receive().await?;
        let mut fields = Fields::of(&packet);
        match (fields.byte(), fields.rest()) {
            (Some(OK), _) => return Ok(()),
            (Some(SWITCH), rest) => {
                let mut fields = Fields::of(rest);
                let name = fields.until_zero().ok_or_else(|| garbled("MySQL"))?;
                plugin = Plugin::named(name).ok_or_else(|| {
                    let name = String::from_utf8_lossy(name);
                    Trouble::Backend(format!("the user's plugin {name} is not one that checks know"))
                })?;
                let salt = fields.rest().strip_suffix(&[0]).unwrap_or(fields.rest());
                wire.send(&plugin.proof(password, salt)).await?;
            }
            (Some(MORE), [FAST_DONE]) if plugin == Plugin::Sha2 => {}
            (Some(MORE), [FULL_WANTED]) if plugin == Plugin::Sha2 => {
                if !secure {
                    return Err(Trouble::Backend(FULL_NEEDS_TLS.to_owned()));
                }
                wire.send(&[password, &[0]].concat()).await?;
            }
            _ => return Err(garbled("MySQL")),
        }
    }
    Err(garbled("MySQL"))
}

/// Capabilities, largest packet, character set and 23 zero bytes.
fn client_header(capabilities: u32) -> Vec<u8> {
    let mut header = capabilities.to_le_bytes().to_vec();
    header.extend_from_slice(&MAX_PACKET.to_le_bytes());
    header.push(UTF8MB4);
    header.resize(32, 0);
    header
}

const PROTOCOL_VERSION: u8 = 10;
const OK: u8 = 0;
const MORE: u8 = 1;
const SWITCH: u8 = 0xfe;
const FAST_DONE: u8 = 3;
const FULL_WANTED: u8 = 4;
/// A login takes three: a switch, the fast answer, and OK.
const MAX_ROUNDS: u32 = 5;
const MAX_PACKET: u32 = 16 * 1024;
/// `utf8mb4_general_ci`, which MySQL and MariaDB both have.
const UTF8MB4: u8 = 45;
const CLIENT_LONG_PASSWORD: u32 = 1;
const CLIENT_PROTOCOL_41: u32 = 1 << 9;
const CLIENT_SSL: u32 = 1 << 11;
const CLIENT_SECURE_CONNECTION: u32 = 1 << 15;
const CLIENT_PLUGIN_AUTH: u32 = 1 << 19;
const CAPABILITIES: u32 =
    CLIENT_LONG_PASSWORD | CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION | CLIENT_PLUGIN_AUTH;
const FULL_NEEDS_TLS: &str =
    "caching_sha2_password wants the password itself, which takes tls = true (or log in once by other means)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_names_salt_and_plugin() {
        let mut packet =
            b"\x0a5.5.5-10.11.6-MariaDB\0\x01\0\0\0abcdefgh\0\xfe\xff\x2d\x02\0\xff\x81\x15".to_vec();
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(b"ijklmnopqrst\0mysql_native_password\0");
        let greeting = Greeting::parse(&packet).unwrap();
        assert_eq!(greeting.salt, b"abcdefghijklmnopqrst");
        assert_eq!((greeting.plugin, greeting.capabilities & CLIENT_SSL), (Plugin::Native, CLIENT_SSL));
        for length in 0..packet.len() - 23 {
            assert_eq!(Greeting::parse(&packet[..length]), None, "{length}");
        }
    }

    /// From the definitions, with what `SHA1()` and `SHA2()` of a server say.
    #[test]
    fn proofs_are_what_servers_expect() {
        let salt = b"abcdefghijklmnopqrst";
        assert_eq!(Plugin::Native.proof(b"", salt), b"");
        assert_eq!(Plugin::Native.proof(b"secret", salt).len(), 20);
        // The server knows SHA1(SHA1(password)) and gets SHA1(password) out of the proof.
        let twice = digest(&SHA1_FOR_LEGACY_USE_ONLY, digest(&SHA1_FOR_LEGACY_USE_ONLY, b"secret").as_ref());
        let mask = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[&salt[..], twice.as_ref()].concat());
        let once: Vec<u8> =
            Plugin::Native.proof(b"secret", salt).iter().zip(mask.as_ref()).map(|(a, b)| a ^ b).collect();
        assert_eq!(digest(&SHA1_FOR_LEGACY_USE_ONLY, &once).as_ref(), twice.as_ref());
        let twice = digest(&SHA256, digest(&SHA256, b"secret").as_ref());
        let mask = digest(&SHA256, &[twice.as_ref(), &salt[..]].concat());
        let once: Vec<u8> =
            Plugin::Sha2.proof(b"secret", salt).iter().zip(mask.as_ref()).map(|(a, b)| a ^ b).collect();
        assert_eq!(digest(&SHA256, &once).as_ref(), twice.as_ref());
    }
}
