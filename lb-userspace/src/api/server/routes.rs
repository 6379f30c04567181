use axum::{
    Json, Router,
    extract::{FromRequestParts, Path, RawQuery, State},
    http::{Uri, request::Parts},
    routing::{get, post},
};
use serde::de::DeserializeOwned;

use super::{Api, ApiError};
use crate::{
    api::{v1, view},
    control::{ServiceView, Snapshot},
};

pub(super) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/services/{service}", get(service))
        .route("/v1/services/{service}/backends", get(backends))
        .route("/v1/services/{service}/backends/{backend}", get(backend))
        .route("/v1/reload", post(reload))
        .fallback(async |uri: Uri| ApiError::NoSuchPath(uri.path().to_owned()))
        .method_not_allowed_fallback(async |uri: Uri| ApiError::Method(uri.path().to_owned()))
        .with_state(api)
}

type Answer<T> = Result<Json<T>, ApiError>;

async fn status(State(api): State<Api>) -> Answer<v1::Status> {
    Ok(Json(view::status(&api.control.snapshot(), &*api.counters)?))
}

async fn services(State(api): State<Api>) -> Answer<Vec<v1::Service>> {
    Ok(Json(view::services(&api.control.snapshot(), &*api.counters)?))
}

async fn service(State(api): State<Api>, Names(name): Names<String>) -> Answer<v1::Service> {
    let snapshot = api.control.snapshot();
    Ok(Json(view::service(find(&snapshot, &name)?, &*api.counters)?))
}

async fn backends(State(api): State<Api>, Names(name): Names<String>) -> Answer<Vec<v1::Backend>> {
    let snapshot = api.control.snapshot();
    Ok(Json(view::backends(find(&snapshot, &name)?, &*api.counters)?))
}

async fn backend(
    State(api): State<Api>,
    Names((service, name)): Names<(String, String)>,
) -> Answer<v1::Backend> {
    let snapshot = api.control.snapshot();
    let view = find(&snapshot, &service)?;
    let observed = view.backends.iter().find(|backend| backend.name.as_str() == name);
    let (Some(observed), Some(declared)) = (observed, view.service.backends.get(name.as_str())) else {
        return Err(ApiError::NoSuchObject { what: "backend", name });
    };
    Ok(Json(view::backend(view.service.protocol, declared, observed, &*api.counters)?))
}

async fn reload(State(api): State<Api>, RawQuery(query): RawQuery) -> Answer<v1::Reload> {
    let dry_run = match query.as_deref() {
        None | Some("" | "dry_run=false") => false,
        Some("dry_run=true") => true,
        Some(other) => {
            let message =
                format!("unknown query {other:?}; dry_run=true and dry_run=false are what there is");
            return Err(ApiError::BadRequest { field: "dry_run", message });
        }
    };
    // In a task of its own, so that a client that hangs up does not stop it half-way.
    let applied = tokio::spawn((api.reload)(dry_run)).await.map_err(|_| ApiError::Lost)??;
    Ok(Json(view::reload(applied, dry_run)))
}

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a ServiceView, ApiError> {
    let found = snapshot.services.iter().find(|view| view.service.name.as_str() == name);
    found.ok_or_else(|| ApiError::NoSuchObject { what: "service", name: name.to_owned() })
}

/// Names in a path; like [`Path`], with an error of ours.
struct Names<T>(T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Names<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(error) => Err(ApiError::BadRequest { field: "path", message: error.body_text() }),
        }
    }
}
