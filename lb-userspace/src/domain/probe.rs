use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// No checks: a backend counts as healthy.
    None,
    /// A connection is accepted.
    Tcp,
    /// TLS is agreed on.
    Tls(Tls),
    /// A request is answered as expected.
    Http(Http),
    /// The standard health service says that it serves.
    Grpc(Grpc),
    /// A question is answered as expected.
    Dns(Dns),
    /// An echo request is answered.
    Icmp,
    /// A database lets a user in, and has the role that is needed.
    Database(Database),
    /// HAProxy's agent check says what the server thinks of itself.
    Agent {
        /// Said before the agent answers.
        send: Option<String>,
    },
    /// A program ends with status 0. First its path, then its arguments.
    Exec(Vec<String>),
}

impl Probe {
    /// Whether whoever is checked learns something that is not for everybody: a password, or a header that may be secret.
    pub fn tells_secrets(&self) -> bool {
        match self {
            Self::Http(http) => http.headers.iter().any(|(name, _)| may_be_secret(name)),
            Self::Database(database) => database.password_file.is_some(),
            _ => false,
        }
    }
}

/// Whether the value of the header `name` is likely a secret.
pub fn may_be_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = ["auth", "cookie", "credential", "key", "pass", "secret", "session", "signature", "token"];
    words.iter().any(|word| name.contains(word))
}

/// How TLS is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tls {
    /// SNI, and the name that the certificate has to be for. `None`: the name of the `Host` header, else the address.
    pub server_name: Option<String>,
    /// Whether the certificate has to be valid.
    pub verify: bool,
    /// Authorities that are trusted instead of the host's, as PEM.
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Http {
    pub tls: Option<Tls>,
    pub method: String,
    /// With the query.
    pub path: String,
    /// `Host` header; the backend's address where there is none.
    pub host: Option<String>,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    pub expect_status: Vec<RangeInclusive<u16>>,
    /// Text that has to be in the body.
    pub expect_body: Option<String>,
}

impl Http {
    /// Most statuses that say all is well.
    pub const DEFAULT_STATUS: RangeInclusive<u16> = 200..=399;
}

impl Default for Http {
    /// `GET /` in the clear.
    fn default() -> Self {
        Self {
            tls: None,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: None,
            headers: Vec::new(),
            expect_status: vec![Self::DEFAULT_STATUS],
            expect_body: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grpc {
    /// Which service's health; empty is the server's. At most 255 bytes.
    pub service: String,
    pub tls: Option<Tls>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Database {
    pub engine: Engine,
    pub role: Role,
    pub user: Option<String>,
    /// The first line of it is the password.
    pub password_file: Option<PathBuf>,
    /// `None`: the one with the user's name. For PostgreSQL alone.
    pub database: Option<String>,
    /// How far a replica may be behind.
    pub max_lag: Option<Duration>,
    pub tls: Option<Tls>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// MariaDB too.
    Mysql,
    Postgres,
    /// Valkey too.
    Redis,
}

/// What a service needs its databases to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Primary,
    Replica,
    Any,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Primary, Self::Replica, Self::Any];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Any => "any",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dns {
    /// Labels of 1 to 63 bytes, 253 altogether; `.` is the root.
    pub name: String,
    pub record: RecordType,
    pub rcode: Rcode,
    /// Addresses that have to be among the answers. Only for A and AAAA.
    pub answers: BTreeSet<IpAddr>,
}

/// A type of DNS records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordType {
    A,
    Aaaa,
    Cname,
    Mx,
    Ns,
    Ptr,
    Soa,
    Srv,
    Txt,
}

impl RecordType {
    pub const ALL: [Self; 9] =
        [Self::A, Self::Aaaa, Self::Cname, Self::Mx, Self::Ns, Self::Ptr, Self::Soa, Self::Srv, Self::Txt];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Mx => "MX",
            Self::Ns => "NS",
            Self::Ptr => "PTR",
            Self::Soa => "SOA",
            Self::Srv => "SRV",
            Self::Txt => "TXT",
        }
    }

    /// As on the wire (IANA, "DNS Parameters").
    pub const fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Ns => 2,
            Self::Cname => 5,
            Self::Soa => 6,
            Self::Ptr => 12,
            Self::Mx => 15,
            Self::Txt => 16,
            Self::Aaaa => 28,
            Self::Srv => 33,
        }
    }
}

/// How a DNS server says that a question went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rcode {
    NoError,
    ServFail,
    NxDomain,
    NotImp,
    Refused,
}

impl Rcode {
    pub const ALL: [Self; 5] = [Self::NoError, Self::ServFail, Self::NxDomain, Self::NotImp, Self::Refused];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "noerror",
            Self::ServFail => "servfail",
            Self::NxDomain => "nxdomain",
            Self::NotImp => "notimp",
            Self::Refused => "refused",
        }
    }

    pub const fn code(self) -> u8 {
        match self {
            Self::NoError => 0,
            Self::ServFail => 2,
            Self::NxDomain => 3,
            Self::NotImp => 4,
            Self::Refused => 5,
        }
    }

    /// The opposite of [`Self::code`].
    pub fn named(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|rcode| rcode.code() == code)
    }
}
