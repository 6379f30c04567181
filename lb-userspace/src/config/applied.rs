//! The copy of the files that were applied last, by which a start goes on that finds them wrong.

use std::{fmt, hash::Hasher as _, path::PathBuf};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

/// Why a copy is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

/// The text of the copy.
///
/// # Errors
///
/// What can't be written as TOML.
pub fn write(files: &[(PathBuf, String)]) -> Result<String, toml::ser::Error> {
    let file = |(path, text): &(PathBuf, String)| {
        // As seen from anywhere: the next start may be from another directory.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        WrittenFile { path: path.display().to_string(), text: text.clone() }
    };
    let file: Vec<_> = files.iter().map(file).collect();
    let header = Header { version: VERSION, checksum: checksum(&file) };
    Ok(format!("{COMMENT}{}\n{}", toml::to_string(&header)?, toml::to_string(&Files { file })?))
}

/// What the text of a copy says.
///
/// # Errors
///
/// It is not whole, or not as it was written.
pub fn read(text: &str) -> Result<Vec<(PathBuf, String)>, Unreadable> {
    let wrong = |error: &dyn fmt::Display| Unreadable(error.to_string().trim_end().replace('\n', "; "));
    let Header { version, checksum: told } = toml::from_str(text).map_err(|error| wrong(&error))?;
    if version != VERSION {
        return Err(wrong(&format!("it is of version {version}, and this daemon reads {VERSION}")));
    }
    let Files { file } = toml::from_str(text).map_err(|error| wrong(&error))?;
    if told != checksum(&file) {
        return Err(wrong(&"it is not as it was written"));
    }
    Ok(file.into_iter().map(|file| (file.path.into(), file.text)).collect())
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    checksum: String,
}

#[derive(Serialize, Deserialize)]
struct Files {
    #[serde(default)]
    file: Vec<WrittenFile>,
}

#[derive(Serialize, Deserialize)]
struct WrittenFile {
    path: String,
    text: String,
}

fn checksum(files: &[WrittenFile]) -> String {
    let mut hasher = SipHasher13::new();
    for part in files.iter().flat_map(|file| [&file.path, &file.text]) {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part.as_bytes());
    }
    format!("{:016x}", hasher.finish())
}

const COMMENT: &str = "# Kept by the daemon: the configuration as it was applied last. A start goes on with it if the files are wrong.\n";
const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<(PathBuf, String)> {
        let text = "a = \"\"\" \\ '''\n# \u{e9}\r\n[[service]]\n".to_owned();
        vec![("/etc/ballast/config.toml".into(), text), ("/etc/ballast/conf.d/1.toml".into(), String::new())]
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for files in [example(), Vec::new()] {
            let text = write(&files).expect("written");
            assert_eq!(read(&text).expect(&text), files, "{text}");
        }
    }

    #[test]
    fn no_part_of_a_copy_passes_for_the_whole_and_no_other_text_for_it() {
        let text = write(&example()).expect("written");
        for end in 0..text.len() - 1 {
            assert!(read(text.get(..end).unwrap_or_default()).is_err(), "cut after {end} bytes");
        }
        assert!(read(&text.replace("service", "servicf")).is_err());
        let other = read(&text.replace("version = 1", "version = 2")).expect_err("another version");
        assert!(other.to_string().contains("version 2"), "{other}");
    }
}
