//! The status page: one HTML document with all it needs inside, and the JSON that its script asks for again and again.
//!
//! The browser is told to run nothing but the script whose hash the page's policy names, and to ask nobody but where the
//! page came from. Names and details come to the page as text: by `textContent` in the script, escaped in [`plain`].

mod document;
mod network;
mod plain;

use std::sync::LazyLock;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ring::digest::{SHA256, digest};

use super::server::Telemetry;
use crate::dataplane::Error;
use document::{Daemon, Document};

/// `GET /`
pub(super) fn page(telemetry: &Telemetry) -> Response {
    let written = with_document(telemetry, |document| {
        let assets = &*ASSETS;
        [&*assets.before_plain, &plain::render(document), &assets.after_plain].concat()
    });
    match written {
        Ok(text) => {
            let policy = (header::CONTENT_SECURITY_POLICY, ASSETS.policy.clone());
            let kind = (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            ([policy, kind], COMMON_HEADERS, text).into_response()
        }
        Err(error) => unreadable(&error),
    }
}

/// `GET /status.json`
pub(super) fn json(telemetry: &Telemetry) -> Response {
    match with_document(telemetry, |document| serde_json::to_vec(document)) {
        Ok(Ok(text)) => {
            let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            // Nobody may take it for a page.
            let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
            ([kind, (header::CONTENT_SECURITY_POLICY, policy)], COMMON_HEADERS, text).into_response()
        }
        // Its keys are strings and nothing in it is by its nature not JSON.
        Ok(Err(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(error) => unreadable(&error),
    }
}

fn with_document<T>(telemetry: &Telemetry, write: impl FnOnce(&Document<'_>) -> T) -> Result<T, Error> {
    let snapshot = telemetry.snapshot();
    let daemon = Daemon {
        page: &ASSETS.id,
        heartbeat_seconds: telemetry.heartbeat_age().as_secs_f64(),
        discovery: telemetry.discovery(),
        boards: telemetry.boards(),
    };
    Ok(write(&Document::new(&snapshot, telemetry.counters(), daemon)?))
}

fn unreadable(error: &Error) -> Response {
    log::error!("status page: {error}");
    (StatusCode::INTERNAL_SERVER_ERROR, "the counters could not be read\n").into_response()
}

const COMMON_HEADERS: [(header::HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    // For what does not know frame-ancestors.
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// The parts of the page that are the same for everybody.
struct Assets {
    before_plain: String,
    after_plain: String,
    /// What the browser may do with it.
    policy: HeaderValue,
    /// Changes with the page, so that an open one notices when the daemon has another.
    id: String,
}

static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let hash = |text: &str| BASE64.encode(digest(&SHA256, text.as_bytes()));
    let (style, script) = (hash(STYLE), hash(SCRIPT));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let id = hash(&[SKELETON, STYLE, SCRIPT].concat());
    let (head, rest) = SKELETON.split_once("@STYLE@").expect("a place for the style");
    let (middle, rest) = rest.split_once("@PLAIN@").expect("a place for the plain page");
    let (before_script, tail) = rest.split_once("@SCRIPT@").expect("a place for the script");
    Assets {
        before_plain: [&head.replace("@PAGE@", &id), STYLE, middle].concat(),
        after_plain: [before_script, SCRIPT, tail].concat(),
        policy: HeaderValue::try_from(policy).expect("printable characters"),
        id,
    }
});

const SKELETON: &str = include_str!("assets/page.html");
const STYLE: &str = concat!(include_str!("assets/page.css"), include_str!("assets/services.css"));
/// One script, in the order in which its parts need each other.
const SCRIPT: &str = concat!(
    include_str!("assets/format.js"),
    include_str!("assets/history.js"),
    include_str!("assets/dom.js"),
    include_str!("assets/problems.js"),
    include_str!("assets/summary.js"),
    include_str!("assets/backends.js"),
    include_str!("assets/services.js"),
    include_str!("assets/main.js"),
);

#[cfg(test)]
mod tests;
