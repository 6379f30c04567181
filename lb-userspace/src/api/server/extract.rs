//! What handlers take out of a request, with errors of ours.

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::request::Parts,
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ApiError;

/// Names in a path; like [`Path`], with an error of ours.
pub(super) struct Names<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Names<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(error) => Err(ApiError::BadRequest { field: "path", message: error.body_text() }),
        }
    }
}

/// A body; like [`Json`], with an error of ours, and whatever the client calls it.
pub(super) struct Settings<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Settings<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        read(request, state).await.map(|(settings, _)| Self(settings))
    }
}

/// The same of what is laid over settings, where a key that is `null` is not one that is not there.
pub(super) struct Patch<T> {
    pub(super) settings: T,
    pub(super) json: Value,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Patch<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        read(request, state).await.map(|(settings, json)| Self { settings, json })
    }
}

async fn read<T: DeserializeOwned>(
    request: Request,
    state: &(impl Send + Sync),
) -> Result<(T, Value), ApiError> {
    // It is whole and within its bounds by now.
    let bytes = Bytes::from_request(request, state).await.map_err(|error| wrong(error.body_text()))?;
    // Serde would take an array for the fields in their order, which is nothing to rely on.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(wrong("the body has to be a JSON object, not an array".to_owned()));
    }
    let settings = serde_json::from_slice(&bytes).map_err(nonsense)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(nonsense)?;
    match array_for_object(&value) {
        None => Ok((settings, value)),
        Some(key) => {
            Err(wrong(format!("the body makes no sense: `{key}` has to be a JSON object, not an array")))
        }
    }
}

fn wrong(message: String) -> ApiError {
    ApiError::BadRequest { field: "body", message }
}

pub(super) fn nonsense(error: serde_json::Error) -> ApiError {
    wrong(format!("the body makes no sense: {error}"))
}

/// Key of the part of a service that is an array in an object's place.
fn array_for_object(body: &Value) -> Option<&'static str> {
    let holds_arrays = |key: &str| {
        let all = body.get(key).and_then(Value::as_array);
        all.is_some_and(|all| all.iter().any(Value::is_array))
    };
    if body.get("health").is_some_and(Value::is_array) {
        return Some("health");
    }
    ["backend", "dns"].into_iter().find(|key| holds_arrays(key))
}
