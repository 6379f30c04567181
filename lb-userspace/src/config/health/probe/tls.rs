use crate::{
    config::{
        health::text,
        report::{Report, Wrong},
        table::Table,
        values,
    },
    domain::Tls,
};

/// Of a check that always uses TLS.
pub(super) fn read(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Tls> {
    let server_name = match table.get("server_name") {
        Some(item) => item.parse(report, text::server_name).map(|name| Some(name.value)),
        None => Some(None),
    };
    let verify = table.boolean_or("verify", true, report);
    let ca = table.get("ca_file");
    let ca_file = match &ca {
        Some(item) => item.parse(report, values::path).map(|path| Some(path.value)),
        None => Some(None),
    };
    let verify = verify?;
    if let (Some(item), false) = (ca, verify) {
        let wrong = Wrong::new("`ca_file` means nothing with verify = false", "any certificate is taken");
        report.error(item.place, wrong);
        return None;
    }
    Some(Tls { server_name: server_name?, verify, ca_file: ca_file? })
}

/// Of a check that uses TLS with `tls = true`.
pub(super) fn read_optional(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Option<Tls>> {
    if table.boolean_or("tls", false, report)? {
        return read(table, report).map(Some);
    }
    let mut right = true;
    for key in ["server_name", "verify", "ca_file"] {
        if let Some(item) = table.get(key) {
            let wrong =
                Wrong::new(format!("`{key}` means nothing without tls = true"), "this check uses no TLS");
            report.error(item.place, wrong);
            right = false;
        }
    }
    right.then_some(None)
}
