//! What a backend's checks ask.

use super::{Notes, sections::Line};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Check {
    #[default]
    Tcp,
    Tls,
    Http(Http),
    Mysql {
        user: String,
    },
    Postgres {
        user: String,
    },
    Redis,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Http {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) host: Option<String>,
    /// `Name: value`.
    pub(super) headers: Vec<String>,
    pub(super) expect_status: Option<String>,
    pub(super) expect_body: Option<String>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            // HAProxy's own default.
            method: "OPTIONS".into(),
            path: "/".into(),
            host: None,
            headers: Vec::new(),
            expect_status: None,
            expect_body: None,
        }
    }
}

impl Check {
    /// Takes an `option` that is about checks; `false` if this one is not.
    pub(super) fn option(&mut self, line: &Line, notes: &mut Notes) -> bool {
        let named_user = || line.words.iter().skip_while(|word| *word != "user").nth(1).cloned();
        *self = match line.word(1) {
            "httpchk" => Self::Http(httpchk(line, self.http())),
            "ssl-hello-chk" => Self::Tls,
            "redis-check" => Self::Redis,
            "tcp-check" => Self::Tcp,
            "mysql-check" => match named_user() {
                Some(user) => Self::Mysql { user },
                None => {
                    notes
                        .add(line, "without a user nobody can log in: a connection is all that is asked for");
                    Self::Tcp
                }
            },
            "pgsql-check" => match named_user() {
                Some(user) => {
                    notes.add(line, "a whole login is made, not just its begin: give the role a `password_file` if it has a password");
                    Self::Postgres { user }
                }
                None => Self::Tcp,
            },
            "external-check" => {
                notes.add(line, "a program is run by a check of `type = \"exec\"`; a connection is all that is asked for until then");
                Self::Tcp
            }
            "smtpchk" | "ldap-check" | "spop-check" => {
                notes.add(line, "there is no such check: a connection is all that is asked for");
                Self::Tcp
            }
            _ => return false,
        };
        true
    }

    pub(super) fn http_check(&mut self, line: &Line, notes: &mut Notes) {
        let mut http = self.http();
        let words: Vec<_> = line.words.iter().skip(2).map(String::as_str).collect();
        match line.word(1) {
            "send" => send(&mut http, line, &words, notes),
            "expect" => expect(&mut http, line, &words, notes),
            "send-state" | "disable-on-404" => {
                notes.add(line, "a check that is answered passes or fails, and tells the backend nothing");
            }
            _ => notes.add(line, "a check is one request and its answer"),
        }
        // Without `option httpchk` these lines mean nothing, yet.
        if let Self::Http(known) = self {
            *known = http;
        }
    }

    fn http(&self) -> Http {
        match self {
            Self::Http(http) => http.clone(),
            _ => Http::default(),
        }
    }
}

/// `option httpchk [[METHOD] URI [VERSION]]`, where what follows the version are headers.
fn httpchk(line: &Line, mut http: Http) -> Http {
    match (line.word(2), line.word(3)) {
        ("", _) => {}
        (path, "") => http.path = path.to_owned(),
        (method, path) => {
            http.method = method.to_owned();
            http.path = path.to_owned();
        }
    }
    let version: Vec<_> = line.words.iter().skip(4).map(String::as_str).collect();
    version.join(" ").split("\r\n").skip(1).for_each(|header| add_header(&mut http, header));
    http
}

fn send(http: &mut Http, line: &Line, words: &[&str], notes: &mut Notes) {
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default().to_owned();
        match word {
            "meth" => http.method = value(),
            "uri" | "uri-lf" => http.path = value(),
            "ver" => drop(value()),
            "hdr" => {
                let name = value();
                let value = value();
                add_header(http, &format!("{name}: {value}"));
            }
            "comment" => drop(value()),
            _ => {
                let value = value();
                notes.add(line, format!("`{word} {value}`: requests are sent without a body"));
            }
        }
    }
}

fn expect(http: &mut Http, line: &Line, words: &[&str], notes: &mut Notes) {
    match words {
        ["status", codes] if are_statuses(codes) => http.expect_status = Some((*codes).to_owned()),
        ["string", text] => http.expect_body = Some((*text).to_owned()),
        _ => notes.add(line, "an answer is judged by its status (`expect_status`) and a text that it has to hold (`expect_body`)"),
    }
}

/// `200`, `200-299,304`.
fn are_statuses(codes: &str) -> bool {
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    codes.split(',').all(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        status(first).zip(status(last)).is_some_and(|(first, last)| first <= last)
    })
}

fn add_header(http: &mut Http, header: &str) {
    let Some((name, value)) = header.split_once(':') else { return };
    let (name, value) = (name.trim(), value.trim());
    if name.eq_ignore_ascii_case("host") {
        http.host = Some(value.to_owned());
    } else if !name.eq_ignore_ascii_case("connection") {
        http.headers.push(format!("{name}: {value}"));
    }
}
