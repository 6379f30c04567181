use std::ops::RangeInclusive;

use crate::{
    config::{
        health::text,
        key::{Key, List, Printable, Text},
        reference::Section,
        report::{Report, Wrong},
        table::Table,
        values,
    },
    domain::{Http, Tls},
};

pub(super) fn read(table: &mut Table<'_>, tls: Option<Tls>, report: &mut Report<'_>) -> Option<Http> {
    let defaults = Http::default();
    let path = table.read_or(&PATH, defaults.path, report);
    let host = table.read_or(&HOST, None, report);
    let method = table.read_or(&METHOD, defaults.method, report);
    let headers = read_headers(table, report);
    let expect_status = table.read_or(&EXPECT_STATUS, defaults.expect_status, report);
    let expect_body = table.read(&EXPECT_BODY, report);
    let (method, expect_body) = (method?, expect_body?);
    if let Some(body) = expect_body.as_ref().filter(|_| method.value == "HEAD") {
        let wrong =
            Wrong::new("`expect_body` means nothing with method = \"HEAD\"", "no body is answered to it");
        report.error(body.place, wrong);
        return None;
    }
    Some(Http {
        tls,
        method: method.value,
        path: path?.value,
        host: host?.value,
        headers: headers?,
        expect_status: expect_status?.value,
        expect_body: expect_body.map(|body| body.value),
    })
}

fn read_headers(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Vec<(String, String)>> {
    let Some(item) = table.get(&HEADERS) else { return Some(Vec::new()) };
    let right = item.is_array();
    let elements = item.array("such as [\"X-Probe: ballast\"]", report);
    if elements.len() > MAX_HEADERS {
        let wrong =
            Wrong::new(format!("`headers` holds {}", elements.len()), format!("at most {MAX_HEADERS}"));
        report.error(item.place, wrong);
        return None;
    }
    let parsed: Vec<_> = elements.iter().map(|element| element.parse(report, text::header)).collect();
    let headers = parsed.into_iter().map(|header| header.map(|header| header.value)).collect::<Option<_>>();
    headers.filter(|_| right)
}

const MAX_HEADERS: usize = 32;

pub(in crate::config) const HTTP: Section = Section {
    heading: "### `http`, `https`",
    says: "",
    keys: &[&PATH, &HOST, &METHOD, &HEADERS, &EXPECT_STATUS, &EXPECT_BODY],
};

pub(in crate::config::health) const PATH: Key<Text<String>> = Key {
    name: "path",
    takes: Text("text, 1 to 1,024 bytes", values::http_path),
    default: "`\"/\"`",
    means: "with a query if need be",
};
const HOST: Key<Text<Option<String>>> = Key {
    name: "host",
    takes: Text("host, with a port if need be", values::http_host),
    default: "address and port",
    means: "`Host` header",
};
const METHOD: Key<Text<String>> = Key {
    name: "method",
    takes: Text("in upper case", text::method),
    default: "`\"GET\"`",
    means: "sent without a body",
};
const HEADERS: Key<List> = Key {
    name: "headers",
    takes: List("up to 32 texts"),
    default: "`[]`",
    means: "further headers: `[\"X-Probe: ballast\", \"Authorization: Basic ...\"]`",
};
const EXPECT_STATUS: Key<Text<Vec<RangeInclusive<u16>>>> = Key {
    name: "expect_status",
    takes: Text("statuses", text::statuses),
    default: "`\"200-399\"`",
    means: "such as `\"200\"` or `\"200-299,304\"`",
};
const EXPECT_BODY: Key<Printable> = Key {
    name: "expect_body",
    takes: Printable(1, 1024),
    default: "none",
    means: "text that has to be in the first MiB of the body",
};
