use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

use super::Name;

/// What a service looks its backends up in, besides those that are declared one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// A file of backends that is watched.
    pub file: Option<Arc<PathBuf>>,
    /// Names in the DNS, in the order of the configuration.
    pub names: Vec<DnsBackends>,
}

/// The addresses of a name are backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsBackends {
    pub name: DnsName,
    /// Of each of them.
    pub weight: u16,
    pub backup: bool,
}

/// A name in the DNS, and the port of the backends at its addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName {
    /// In lower case, without the dot at the end.
    pub host: Arc<str>,
    /// 0: none, of a service on every port.
    pub port: u16,
}

/// One thing that backends are looked up in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    File(Arc<PathBuf>),
    Dns(DnsName),
}

impl Discovery {
    pub fn is_empty(&self) -> bool {
        self.file.is_none() && self.names.is_empty()
    }

    /// Everything there is to look up. Of two sources that find the same backend the first has it.
    pub fn sources(&self) -> impl Iterator<Item = Source> {
        let names = self.names.iter().map(|of| Source::Dns(of.name.clone()));
        self.file.iter().cloned().map(Source::File).chain(names)
    }

    pub fn has(&self, source: &Source) -> bool {
        self.sources().any(|one| one == *source)
    }

    /// What is said of the backends of a name; `None` if it is none of the service's.
    pub fn of_name(&self, name: &DnsName) -> Option<&DnsBackends> {
        self.names.iter().find(|of| of.name == *name)
    }
}

impl Source {
    /// `file` or `dns`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Dns(_) => "dns",
        }
    }

    /// The path, or the name with its port.
    pub fn place(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Dns(name) => name.to_string(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.place())
    }
}

impl fmt::Display for DnsName {
    /// As the configuration may write it: `web.example.org:80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            0 => f.write_str(&self.host),
            port => write!(f, "{}:{port}", self.host),
        }
    }
}

/// What a backend is called that has nothing but an address: `10.0.0.11-80`, `2001-db8--11-80`. Tables are seeded with names,
/// so that two hosts agree whatever the order of the answers.
pub fn name_of(address: SocketAddr) -> Name {
    let host = address.ip().to_string().replace(':', "-");
    let zero = if host.starts_with('-') { "0" } else { "" };
    let text = match address.port() {
        0 => format!("{zero}{host}"),
        port => format!("{zero}{host}-{port}"),
    };
    text.parse()
        .unwrap_or_else(|_| unreachable!("an address has no other characters, and at most 46: {text}"))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::IpAddr};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_backend_is_called_by_its_address() {
        for (address, name) in [
            ("10.0.0.11:80", "10.0.0.11-80"),
            ("[2001:db8::11]:443", "2001-db8--11-443"),
            ("[::2]:80", "0--2-80"),
            ("10.0.0.11:0", "10.0.0.11"),
        ] {
            assert_eq!(name_of(address.parse().expect("an address")).as_str(), name);
        }
    }

    proptest! {
        #[test]
        fn no_two_addresses_share_a_name(all in prop::collection::hash_set((any::<IpAddr>(), any::<u16>()), 0..50)) {
            let names: HashSet<_> = all.iter().map(|of| name_of((*of).into())).collect();
            prop_assert_eq!(names.len(), all.len());
        }
    }
}
