//! The hash key's file, and what tells keys apart in public.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use lb_common::hash::HashKey;
use ring::hmac;

use super::sys;
use crate::digits::hex;

/// Why there is no hash key. The operator's fault, or the file system's.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("hash key {}: could not {operation}: {source}", path.display())]
    Io { path: PathBuf, operation: &'static str, source: io::Error },
    #[error(
        "hash key {} can be read by others than its owner (mode {mode:04o}): whoever knows it can aim traffic at one \
         backend; `chmod 600` it",
        path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    /// What is wrong with it is told without anything of what it holds.
    #[error(
        "hash key {} does not hold 32 hexadecimal digits: {why}; copy it from another member of the fleet, or remove it to \
         have a new one made, which sends clients to other backends",
        path.display()
    )]
    Malformed { path: PathBuf, why: String },
}

/// Tells hash keys apart without giving them away: HMAC-SHA-256 of a label under the key, cut to 64 bits. It may be shown to
/// anybody, and is: in `status`, metrics and messages to other load balancers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFingerprint([u8; 8]);

impl KeyFingerprint {
    pub fn of(key: HashKey) -> Self {
        let digest = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key_bytes(key)), FINGERPRINT_LABEL);
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_ref()[..8]);
        Self(first)
    }

    /// As [`Self::bytes`] gave them, perhaps on another load balancer.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

/// Sixteen hexadecimal digits.
impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFingerprint({self})")
    }
}

/// A key as its file has it: bytes in the order of the digits.
pub(crate) fn key_bytes(key: HashKey) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key.k0.to_le_bytes());
    bytes[8..].copy_from_slice(&key.k1.to_le_bytes());
    bytes
}

/// Another label is another fingerprint, so this never changes.
const FINGERPRINT_LABEL: &[u8] = b"ballast hash key fingerprint 1";

/// Reads the 128-bit key from `path`, or makes a new one there: a file of mode 0600 with 32 hexadecimal digits.
///
/// # Errors
///
/// If the file is not of that form, is readable by others, or can't be read or made.
pub fn load_or_create_key(path: &Path) -> Result<HashKey, KeyError> {
    match read(path)? {
        Some(key) => Ok(key),
        None => {
            create(path).map_err(failed(path, "create it"))?;
            // Whoever was first: if another process made one in the meantime, its key counts.
            read(path)?.ok_or_else(|| failed(path, "read it")(io::ErrorKind::NotFound.into()))
        }
    }
}

/// Reads a key of the same form that somebody else made: one that is not there is an error.
///
/// # Errors
///
/// As [`load_or_create_key`].
pub fn load_key(path: &Path) -> Result<HashKey, KeyError> {
    read(path)?.ok_or_else(|| failed(path, "open it")(io::ErrorKind::NotFound.into()))
}

fn read(path: &Path) -> Result<Option<HashKey>, KeyError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, "open it")(error)),
    };
    let metadata = file.metadata().map_err(failed(path, "inspect it"))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.into(), mode });
    }
    let text = io::read_to_string(io::Read::take(file, MAX_LENGTH)).map_err(failed(path, "read it"))?;
    parse(text.trim()).map(Some).map_err(|why| KeyError::Malformed { path: path.into(), why })
}

/// The file appears whole or not at all, and never replaces one.
fn create(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Made with mode 0600.
    let mut file = tempfile::Builder::new().prefix(".hash-key-").tempfile_in(directory)?;
    writeln!(file, "{}", hex(&sys::random::<16>()?))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => return Err(error.error),
        _ => {}
    }
    fs::File::open(directory)?.sync_all()
}

fn parse(digits: &str) -> Result<HashKey, String> {
    if let Some(at) = digits.chars().position(|digit| !digit.is_ascii_hexdigit()) {
        return Err(format!("character {} is no such digit", at + 1));
    }
    if digits.len() != 32 {
        return Err(match digits.len() as u64 {
            0 => "it is empty".to_owned(),
            MAX_LENGTH.. => format!("there are {MAX_LENGTH} characters and more"),
            count => format!("there are {count}"),
        });
    }
    // Read as bytes in the order they are written.
    let word =
        |half: &str| u64::from_str_radix(half, 16).map(u64::swap_bytes).map_err(|error| error.to_string());
    let (k0, k1) = digits.split_at(16);
    Ok(HashKey { k0: word(k0)?, k1: word(k1)? })
}

fn failed(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { path, operation, source }
}

/// Bytes of the file that are looked at.
const MAX_LENGTH: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_kept_and_private() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("state/hash.key");
        let key = load_or_create_key(&path).expect("a new key");
        assert_ne!(key, HashKey::default());
        assert_eq!(load_or_create_key(&path).expect("the same key"), key);
        assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn digits_are_bytes_in_the_order_of_siphash() {
        let key = parse("000102030405060708090A0b0c0d0e0f").expect("a key");
        assert_eq!(key, HashKey { k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908 });
    }

    #[test]
    fn a_key_shows_nothing_of_itself() {
        let shown = format!("{:?} {:#?}", HashKey { k0: 1, k1: 2 }, Some(HashKey { k0: 3, k1: 4 }));
        assert!(!shown.contains(|c: char| c.is_ascii_digit()), "{shown}");
    }

    #[test]
    fn a_fingerprint_is_the_hmac_of_its_label_and_of_one_key_alone() {
        let key = parse("000102030405060708090a0b0c0d0e0f").expect("a key");
        // printf 'ballast hash key fingerprint 1' | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102...0f
        let fingerprint = KeyFingerprint::of(key);
        assert_eq!(fingerprint.to_string(), "cdc828542823e816");
        assert_eq!(KeyFingerprint::from_bytes(fingerprint.bytes()), fingerprint);
        assert_ne!(KeyFingerprint::of(HashKey { k1: key.k1 ^ 1, ..key }), fingerprint);
    }

    #[test]
    fn an_exposed_or_malformed_file_is_refused_and_kept() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("hash.key");
        let write = |text: &str, mode| {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode set");
        };
        write(&"0".repeat(32), 0o640);
        assert!(matches!(load_or_create_key(&path), Err(KeyError::Exposed { mode: 0o640, .. })));
        for (wrong, why) in [
            ("", "it is empty"),
            ("abc", "there are 3"),
            (&"g".repeat(32), "character 1 is no such digit"),
            (&"0".repeat(33), "there are 33"),
            (&"0".repeat(1000), "there are 256 characters and more"),
            ("+0000000000000000000000000000000", "character 1 is no such digit"),
            ("fedcba9876543210 edcba9876543210", "character 17 is no such digit"),
        ] {
            write(wrong, 0o600);
            let error = load_or_create_key(&path).expect_err("it is wrong");
            assert!(matches!(&error, KeyError::Malformed { why: told, .. } if told == why), "{error}");
            assert!(wrong.is_empty() || !error.to_string().contains(wrong), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("still there"), wrong);
        }
        assert!(matches!(load_key(&directory.path().join("none")), Err(KeyError::Io { .. })));
    }
}
