use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::v1::{ErrorBody, ErrorDetail};
use crate::{
    capture::StartError,
    config::{Diagnostics, shape::Refused},
    control::Rejected,
    dataplane,
    explain::ExplainError,
    similar,
};

/// Why the file did not become what runs; nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong.
    #[error("{0}")]
    Config(Diagnostics),
    /// The file is right in itself and was refused all the same.
    #[error(transparent)]
    Rejected(Rejected),
}

/// Everything a request can end with but success.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("only root, the daemon's own user and members of the socket's group may use it")]
    Forbidden,
    #[error("{}", similar::missing(.what, .name, .similar.as_deref()))]
    NoSuchObject { what: &'static str, name: String, similar: Option<String> },
    #[error("this load balancer is in no fleet: its configuration has no [fleet]")]
    NoFleet,
    #[error("there is nothing at {0}")]
    NoSuchPath(String),
    #[error("{0} takes another method")]
    Method(String),
    #[error("{message}")]
    BadRequest { field: &'static str, message: String },
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the request did not arrive in time")]
    TooSlow,
    #[error("others are planning; try again in a moment")]
    Busy,
    #[error(transparent)]
    Reload(#[from] ReloadError),
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// A value of the body that can't be.
    #[error(transparent)]
    Value(#[from] Refused),
    #[error(transparent)]
    Capture(#[from] StartError),
    #[error(transparent)]
    Explain(#[from] ExplainError),
    #[error("can't read the counters: {0}")]
    Counters(#[from] dataplane::Error),
    #[error("the request was given up inside the daemon; its log says why")]
    Lost,
}

impl ApiError {
    /// Of the object that is not among the `known`.
    pub(super) fn no_such<'a>(what: &'static str, name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let similar = similar::closest(name, known).map(ToOwned::to_owned);
        Self::NoSuchObject { what, name: name.to_owned(), similar }
    }

    /// The one place where an error becomes a status.
    fn classify(&self) -> (StatusCode, &'static str, Option<String>) {
        match self {
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", None),
            Self::NoSuchObject { what, .. } => (StatusCode::NOT_FOUND, "not_found", Some((*what).to_owned())),
            Self::NoFleet => (StatusCode::NOT_FOUND, "no_fleet", None),
            Self::NoSuchPath(_) => (StatusCode::NOT_FOUND, "not_found", None),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", None),
            Self::BadRequest { field, .. } => {
                (StatusCode::BAD_REQUEST, "bad_request", Some((*field).to_owned()))
            }
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", None),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", None),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "timeout", None),
            Self::Reload(ReloadError::Config(_)) => (StatusCode::UNPROCESSABLE_ENTITY, "config", None),
            Self::Reload(ReloadError::Rejected(rejected)) | Self::Rejected(rejected) => match rejected {
                Rejected::Owned { field, .. } => (StatusCode::CONFLICT, "owned", Some((*field).to_owned())),
                Rejected::Exists { field, .. } => (StatusCode::CONFLICT, "exists", Some((*field).to_owned())),
                Rejected::Outdated { .. } => (StatusCode::CONFLICT, "outdated", None),
                Rejected::Missing { what, .. } => {
                    (StatusCode::NOT_FOUND, "not_found", Some((*what).to_owned()))
                }
                Rejected::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "store", None),
                Rejected::Invalid { field, .. } => {
                    (StatusCode::UNPROCESSABLE_ENTITY, "invalid", Some(field.clone()))
                }
                Rejected::Limit { limit, .. } => {
                    (StatusCode::UNPROCESSABLE_ENTITY, "limit", Some((*limit).to_owned()))
                }
                Rejected::Dataplane(_) => (StatusCode::INTERNAL_SERVER_ERROR, "dataplane", None),
                Rejected::CutOff(_) => (StatusCode::SERVICE_UNAVAILABLE, "cut_off", None),
                Rejected::NotLive { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "not_live", None),
                Rejected::Uncertain(_) => (StatusCode::BAD_GATEWAY, "uncertain", None),
                Rejected::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", None),
            },
            Self::Value(refused) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid", Some(refused.field.clone()))
            }
            Self::Capture(error) => match error {
                StartError::Busy => (StatusCode::CONFLICT, "capturing", None),
                StartError::NoService { .. } => {
                    (StatusCode::NOT_FOUND, "not_found", Some("service".to_owned()))
                }
                StartError::NoInterface { .. } => {
                    (StatusCode::UNPROCESSABLE_ENTITY, "invalid", Some("interface".to_owned()))
                }
                StartError::Load(_) | StartError::Attach(_) | StartError::Dataplane(_) => {
                    (StatusCode::INTERNAL_SERVER_ERROR, "dataplane", None)
                }
                StartError::System(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", None),
                StartError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", None),
            },
            Self::Explain(error) => match error {
                ExplainError::NoSuchService { .. } => {
                    (StatusCode::NOT_FOUND, "not_found", Some("service".to_owned()))
                }
                ExplainError::Invalid { field, .. } => {
                    (StatusCode::UNPROCESSABLE_ENTITY, "invalid", Some((*field).to_owned()))
                }
                ExplainError::NotLoaded(_) | ExplainError::NotRun(_) => {
                    (StatusCode::INTERNAL_SERVER_ERROR, "dataplane", None)
                }
            },
            Self::Counters(_) => (StatusCode::INTERNAL_SERVER_ERROR, "dataplane", None),
            Self::Lost => (StatusCode::INTERNAL_SERVER_ERROR, "internal", None),
        }
    }
}

impl ApiError {
    fn body(&self) -> (StatusCode, ErrorBody) {
        let (status, kind, field) = self.classify();
        let error = ErrorDetail { kind: kind.to_owned(), message: self.to_string(), field };
        (status, ErrorBody { error })
    }

    /// As it goes over the wire, for who has sent no request that an HTTP library would answer.
    pub(super) fn whole_answer(&self) -> Vec<u8> {
        let (status, body) = self.body();
        let body = serde_json::to_string(&body).unwrap_or_default();
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n\
             {body}"
        )
        .into_bytes()
    }
}

impl IntoResponse for ApiError {
    /// What is the daemon's own fault is in its log as well: whoever is told looks there for more.
    fn into_response(self) -> Response {
        let (status, body) = self.body();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            log::error!("control socket: {} ({})", body.error.message, body.error.kind);
        }
        (status, Json(body)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::dataplane::loader::LoadError;

    /// What was logged in this process.
    struct Lines(Mutex<Vec<String>>);

    static LINES: Lines = Lines(Mutex::new(Vec::new()));

    impl log::Log for Lines {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(format!("{} {}", record.level(), record.args()));
        }

        fn flush(&self) {}
    }

    #[test]
    fn what_is_the_daemons_own_fault_is_logged_once_and_a_clients_is_not() {
        log::set_logger(&LINES).expect("no other test has one");
        log::set_max_level(log::LevelFilter::Error);
        let own = ExplainError::NotLoaded(LoadError::Malformed("broken".to_owned()));
        assert_eq!(ApiError::from(own).into_response().status(), 500);
        let clients = ApiError::no_such("service", "wbe", ["web"].into_iter());
        assert_eq!(clients.into_response().status(), 404);
        let lines = LINES.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told: Vec<_> = lines.iter().filter(|line| line.contains("control socket: ")).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("broken") && told[0].starts_with("ERROR "), "{told:?}");
    }
}
