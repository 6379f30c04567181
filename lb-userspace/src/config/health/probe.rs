//! The types of checks, and the keys that only some of them have.

use crate::{
    config::{
        report::{At, Report, Wrong},
        table::Table,
        values,
    },
    domain::Probe,
};

/// `type` of a check.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeType {
    None,
    Tcp,
    Http,
}

impl ProbeType {
    pub(super) const ALL: [Self; 3] = [Self::None, Self::Tcp, Self::Http];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }

    pub(super) const fn of(probe: &Probe) -> Self {
        match probe {
            Probe::None => Self::None,
            Probe::Tcp => Self::Tcp,
            Probe::Http { .. } => Self::Http,
        }
    }

    /// Whether it asks a TCP port.
    pub(super) fn is_for_tcp(self) -> bool {
        self != Self::None
    }
}

/// `None` if anything was wrong, which is reported.
pub(super) fn read(
    table: &mut Table<'_>,
    probe_type: Option<At<ProbeType>>,
    report: &mut Report<'_>,
) -> Option<Probe> {
    let misplaced = report_misplaced(table, probe_type, report);
    let probe = match probe_type?.value {
        ProbeType::None => Probe::None,
        ProbeType::Tcp => Probe::Tcp,
        ProbeType::Http => {
            let path = table.text_or("path", "/".to_owned(), report, values::http_path);
            let host = table.text_or("host", None, report, values::http_host);
            Probe::Http { path: path?.value, host: host?.value }
        }
    };
    (!misplaced).then_some(probe)
}

/// Reports the keys that are for other types of checks, and whether there are any.
fn report_misplaced(
    table: &mut Table<'_>,
    probe_type: Option<At<ProbeType>>,
    report: &mut Report<'_>,
) -> bool {
    let mut misplaced = false;
    for (key, types) in KEYS {
        if probe_type.is_some_and(|probe| types.contains(&probe.value)) || !table.has(key) {
            continue;
        }
        // Of a type that is wrong itself nobody can say what it takes.
        let (Some(item), Some(probe)) = (table.get(key), probe_type) else { continue };
        let of: Vec<_> = types.iter().map(|of| format!("{:?}", of.as_str())).collect();
        let message = format!("`{key}` means nothing to a check of type \"{}\"", probe.value.as_str());
        report.error(item.place, Wrong::new(message, format!("only for type = {}", of.join(" or "))));
        misplaced = true;
    }
    misplaced
}

const KEYS: [(&str, &[ProbeType]); 2] = [("path", &[ProbeType::Http]), ("host", &[ProbeType::Http])];
