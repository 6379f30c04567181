use std::path::PathBuf;

use crate::{
    config::{
        health::text,
        key::{Boolean, Key, Text},
        reference::Section,
        report::{Report, Wrong},
        table::Table,
        values,
    },
    domain::Tls,
};

/// Of a check that always uses TLS.
pub(super) fn read(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Tls> {
    let server_name = table.read(&SERVER_NAME, report);
    let verify = table.read_or(&VERIFY, true, report);
    let ca_file = table.read(&CA_FILE, report);
    let (verify, ca_file) = (verify?.value, ca_file?);
    if let (Some(file), false) = (&ca_file, verify) {
        let wrong = Wrong::new("`ca_file` means nothing with verify = false", "any certificate is taken");
        report.error(file.place, wrong);
        return None;
    }
    Some(Tls {
        server_name: server_name?.map(|name| name.value),
        verify,
        ca_file: ca_file.map(|file| file.value),
    })
}

/// Of a check that uses TLS with `tls = true`.
pub(super) fn read_optional(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Option<Tls>> {
    if table.read_or(&TLS, false, report)?.value {
        return read(table, report).map(Some);
    }
    let mut right = true;
    for key in [SERVER_NAME.name, VERIFY.name, CA_FILE.name] {
        if let Some(item) = table.get(key) {
            let wrong =
                Wrong::new(format!("`{key}` means nothing without tls = true"), "this check uses no TLS");
            report.error(item.place, wrong);
            right = false;
        }
    }
    right.then_some(None)
}

pub(in crate::config) const SECTION: Section = Section {
    heading: "### TLS: `tls`, `https`, and others with `tls = true`",
    says: "",
    keys: &[&TLS, &SERVER_NAME, &VERIFY, &CA_FILE],
};

const TLS: Key<Boolean> = Key {
    name: "tls",
    takes: Boolean,
    default: "false",
    means: "of `grpc`, `mysql`, `postgres` and `redis`: whether TLS is used",
};
const SERVER_NAME: Key<Text<String>> = Key {
    name: "server_name",
    takes: Text("host or address", text::server_name),
    default: "`host` of `https`, else the address",
    means: "SNI, and the name that the certificate has to be for",
};
const VERIFY: Key<Boolean> = Key {
    name: "verify",
    takes: Boolean,
    default: "true",
    means: "`false` takes any certificate whose key the server has",
};
const CA_FILE: Key<Text<PathBuf>> = Key {
    name: "ca_file",
    takes: Text("absolute path", values::path),
    default: "the host's authorities",
    means: "PEM file with the authorities to trust instead; read again when it changes",
};
