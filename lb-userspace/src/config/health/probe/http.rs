use crate::{
    config::{
        health::text,
        report::{Report, Wrong},
        table::Table,
        values,
    },
    domain::{Http, Tls},
};

pub(super) fn read(table: &mut Table<'_>, tls: Option<Tls>, report: &mut Report<'_>) -> Option<Http> {
    let defaults = Http::default();
    let path = table.text_or("path", defaults.path, report, values::http_path);
    let host = table.text_or("host", None, report, values::http_host);
    let method = table.text_or("method", defaults.method, report, text::method);
    let headers = read_headers(table, report);
    let expect_status = table.text_or("expect_status", defaults.expect_status, report, text::statuses);
    let expect_body = match table.get("expect_body") {
        Some(item) => item.parse(report, text::of(1..=1024)).map(Some),
        None => Some(None),
    };
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
    let Some(item) = table.get("headers") else { return Some(Vec::new()) };
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
