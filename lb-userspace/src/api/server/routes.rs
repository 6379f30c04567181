use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequest as _, RawQuery, Request, State},
    http::Uri,
    routing::{get, post},
};
use hyper::body::Body as _;
use serde_json::Value;

use super::{
    Api, ApiError, announce, capture,
    explain::explain,
    extract::{Names, Patch, Settings, nonsense},
    fleet::fleet,
};
use crate::{
    api::{server::Reloading, v1, view},
    config::shape::{Refused, one_of},
    control::{Applied, Edit, Rejected, ServiceView, Snapshot},
    domain::{Admin, HealthCheck, Name, OnAllDown, Service},
};

pub(super) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services).post(add_service))
        .route("/v1/services/{service}", get(service).patch(set_service).delete(remove_service))
        .route("/v1/services/{service}/backends", get(backends).post(add_backend))
        .route(
            "/v1/services/{service}/backends/{backend}",
            get(backend).patch(set_backend).delete(remove_backend),
        )
        .route("/v1/fleet", get(fleet))
        .route("/v1/announce", get(announce::show).patch(announce::set))
        .route("/v1/reload", post(reload))
        .route("/v1/explain", post(explain))
        // Its body was bounded when it was read.
        .route(PLAN, post(plan).layer(DefaultBodyLimit::disable()))
        .route("/v1/capture", post(capture::begin))
        .fallback(async |uri: Uri| ApiError::NoSuchPath(uri.path().to_owned()))
        .method_not_allowed_fallback(async |uri: Uri| ApiError::Method(uri.path().to_owned()))
        .with_state(api)
}

pub(super) type Answer<T> = Result<Json<T>, ApiError>;

async fn status(State(api): State<Api>) -> Answer<v1::Status> {
    Ok(Json(view::status(&api.control.snapshot(), &*api.counters, &api.discovery, &api.boards)?))
}

async fn services(State(api): State<Api>) -> Answer<Vec<v1::Service>> {
    Ok(Json(view::services(&api.control.snapshot(), &*api.counters, &api.discovery)?))
}

async fn service(State(api): State<Api>, Names(name): Names<String>) -> Answer<v1::Service> {
    let snapshot = api.control.snapshot();
    Ok(Json(view::service(find(&snapshot, &name)?, &*api.counters, &api.discovery)?))
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
        return Err(ApiError::no_such("backend", &name, backend_names(view)));
    };
    Ok(Json(view::backend(&view.service, declared, observed, &*api.counters)?))
}

async fn reload(State(api): State<Api>, RawQuery(query): RawQuery) -> Answer<v1::Reload> {
    let [dry_run, disruptive] = switches(query.as_deref(), ["dry_run", "disruptive"])?;
    reloaded(&api, Reloading { files: None, dry_run, disruptive }).await
}

async fn plan(State(api): State<Api>, RawQuery(query): RawQuery, request: Request) -> Answer<v1::Reload> {
    let [disruptive] = switches(query.as_deref(), ["disruptive"])?;
    let files = match request.body().is_end_stream() {
        true => None,
        false => {
            let Settings(v1::Plan { files }) = Settings::from_request(request, &api).await?;
            Some(files.into_iter().map(|file| (file.path.into(), file.text)).collect())
        }
    };
    reloaded(&api, Reloading { files, dry_run: true, disruptive }).await
}

async fn reloaded(api: &Api, reloading: Reloading) -> Answer<v1::Reload> {
    let dry_run = reloading.dry_run;
    // In a task of its own, so that a client that hangs up does not stop it half-way.
    let applied = tokio::spawn((api.reload)(reloading)).await.map_err(|_| ApiError::Lost)??;
    Ok(Json(view::reload(applied, dry_run)))
}

/// Which of the `known` words of a query are true; one that is not there is not.
fn switches<const N: usize>(query: Option<&str>, known: [&'static str; N]) -> Result<[bool; N], ApiError> {
    let mut values = [false; N];
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let (word, value) = part.split_once('=').unwrap_or((part, ""));
        let at = known.iter().position(|known| *known == word);
        match (at.and_then(|at| values.get_mut(at)), value) {
            (Some(slot), "true" | "false") => *slot = value == "true",
            _ => {
                let all: Vec<_> = known.iter().map(|word| format!("{word}=true|false")).collect();
                let message = format!("unknown query {part:?}; there is {}", all.join(" and "));
                return Err(ApiError::BadRequest { field: "query", message });
            }
        }
    }
    Ok(values)
}

async fn add_service(
    State(api): State<Api>,
    Settings(body): Settings<v1::ServiceSettings>,
) -> Answer<v1::Changed> {
    only_for_files(&body)?;
    edit(&api, Edit::AddService(Box::new(body.validate()?))).await
}

async fn set_service(
    State(api): State<Api>,
    Names(name): Names<String>,
    Patch { settings: body, json }: Patch<v1::ServiceSettings>,
) -> Answer<v1::Changed> {
    if !body.backend.is_empty() {
        let message = "backends are added and removed one by one, under the service's /backends".to_owned();
        return Err(Refused { field: "backend".to_owned(), message }.into());
    }
    only_for_files(&body)?;
    // What is changed is what was seen: somebody else may be quicker, and then both changes shall hold. Of those who come
    // this way one at a time looks and changes; the others are few.
    let _turn = api.turn.lock().await;
    let mut tries = 0;
    loop {
        let seen = (*find(&api.control.snapshot(), &name)?.service).clone();
        let mut settings = v1::ServiceSettings::from(&seen);
        if json.get("health").is_some() && seen.on_all_down == OnAllDown::default_of(&seen.health) {
            // Nobody chose it, so that it goes by the new check.
            settings.on_all_down = None;
        }
        let to = settings.patched(&json).map_err(nonsense)?.validate()?;
        check_audience(&seen, &to, &json)?;
        tries += 1;
        match applied(&api, Edit::SetService { seen: Box::new(seen), to: Box::new(to) }).await {
            Err(ApiError::Rejected(Rejected::Outdated { .. })) if tries < MAX_TRIES => {}
            outcome => return Ok(Json(view::changed(outcome?))),
        }
    }
}

/// Whoever may use the socket may steer the load balancer, and no more: programs and files that the daemon runs and reads with
/// its own rights are named in the configuration.
fn only_for_files(body: &v1::ServiceSettings) -> Result<(), ApiError> {
    let refused = |field: &str, what: &str| {
        let message = format!("{what} can be named in the configuration file alone");
        Err(Refused { field: field.to_owned(), message }.into())
    };
    if body.backends_file.is_some() {
        return refused("backends_file", "a file to read");
    }
    if !body.dns.is_empty() {
        return refused("dns", "what backends are looked up in");
    }
    let Some(health) = &body.health else { return Ok(()) };
    if health.kind.as_deref() == Some("exec") || health.command.is_some() {
        refused("health.type", "a program to run")
    } else if health.password_file.is_some() {
        refused("health.password_file", "a file to read")
    } else if health.ca_file.is_some() {
        refused("health.ca_file", "a file to read")
    } else {
        Ok(())
    }
}

async fn remove_service(State(api): State<Api>, Names(name): Names<String>) -> Answer<v1::Changed> {
    edit(&api, Edit::RemoveService(valid_name("service", &name)?)).await
}

async fn add_backend(
    State(api): State<Api>,
    Names(service): Names<String>,
    Settings(body): Settings<v1::NewBackend>,
) -> Answer<v1::Changed> {
    let service = valid_name("service", &service)?;
    let backend = body.validate()?;
    let snapshot = api.control.snapshot();
    let known = snapshot.services.iter().find(|view| view.service.name == service);
    if known.is_some_and(|view| view.service.health.probe.tells_secrets()) {
        let message = format!(
            "checks of service {service} tell its backends a password or a secret header: who they are is said where the \
             secret is, in the configuration file, or when the service is added"
        );
        return Err(Refused { field: "service".to_owned(), message }.into());
    }
    edit(&api, Edit::AddBackend { service, backend }).await
}

/// Whether a change would have checks tell somebody else what `seen` keeps secret.
fn check_audience(seen: &Service, to: &Service, patch: &Value) -> Result<(), ApiError> {
    let told = |service: &Service| {
        let HealthCheck { address, port, via, .. } = &service.health;
        (service.vip, *address, *port, *via)
    };
    let named_anew = patch.pointer("/health/headers").is_some();
    if named_anew || !to.health.probe.tells_secrets() || told(seen) == told(to) {
        return Ok(());
    }
    let message = "checks would tell their secret headers to another server: name `headers` again".to_owned();
    Err(Refused { field: "health.headers".to_owned(), message }.into())
}

async fn set_backend(
    State(api): State<Api>,
    Names((service, backend)): Names<(String, String)>,
    Settings(body): Settings<v1::BackendSettings>,
) -> Answer<v1::Changed> {
    let (service, backend) = (valid_name("service", &service)?, valid_name("backend", &backend)?);
    if usize::from(body.reset) + body.weight.iter().count() + body.admin.iter().count() != 1 {
        let message = "exactly one of `weight`, `admin` and `reset` (true) is needed".to_owned();
        return Err(Refused { field: "body".to_owned(), message }.into());
    }
    let asked = match (body.weight, body.admin) {
        (Some(weight), _) => Edit::SetWeight { service, backend, weight: valid_weight(weight)? },
        (_, Some(admin)) => Edit::SetAdmin { service, backend, admin: valid_admin(&admin)? },
        _ => Edit::Reset { service, backend },
    };
    edit(&api, asked).await
}

async fn remove_backend(
    State(api): State<Api>,
    Names((service, backend)): Names<(String, String)>,
) -> Answer<v1::Changed> {
    let (service, backend) = (valid_name("service", &service)?, valid_name("backend", &backend)?);
    edit(&api, Edit::RemoveBackend { service, backend }).await
}

pub(super) async fn edit(api: &Api, edit: Edit) -> Answer<v1::Changed> {
    Ok(Json(view::changed(applied(api, edit).await?)))
}

/// In a task of its own, as a reload.
async fn applied(api: &Api, edit: Edit) -> Result<Applied, ApiError> {
    let service = edit.service().cloned();
    match tokio::spawn((api.edit)(edit)).await.map_err(|_| ApiError::Lost)? {
        Ok(applied) => Ok(applied),
        Err(Rejected::Missing { what, name }) => {
            Err(missing(&api.control.snapshot(), what, service.as_ref(), name.as_str()))
        }
        Err(rejected) => Err(rejected.into()),
    }
}

/// A service, or a backend of `service`, that is not there; with the one that may have been meant.
fn missing(snapshot: &Snapshot, what: &'static str, service: Option<&Name>, name: &str) -> ApiError {
    let of = snapshot.services.iter().find(|view| Some(&view.service.name) == service);
    match (what, of) {
        ("service", _) => ApiError::no_such(what, name, service_names(snapshot)),
        (_, Some(view)) => ApiError::no_such(what, name, backend_names(view)),
        (_, None) => ApiError::no_such(what, name, std::iter::empty()),
    }
}

fn service_names(snapshot: &Snapshot) -> impl Iterator<Item = &str> {
    snapshot.services.iter().map(|view| view.service.name.as_str())
}

fn backend_names(view: &ServiceView) -> impl Iterator<Item = &str> {
    view.backends.iter().map(|backend| backend.name.as_str())
}

/// A name that can't be one is the name of nothing.
fn valid_name(what: &'static str, name: &str) -> Result<Name, ApiError> {
    name.parse().map_err(|_| ApiError::no_such(what, name, std::iter::empty()))
}

fn valid_weight(weight: i64) -> Result<u16, ApiError> {
    u16::try_from(weight).map_err(|_| {
        let message = format!("`weight` can't be {weight}: an integer from 0 to 65535");
        Refused { field: "weight".to_owned(), message }.into()
    })
}

fn valid_admin(admin: &str) -> Result<Admin, ApiError> {
    Ok(one_of("admin", &Admin::ALL, Admin::as_str, admin)?)
}

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a ServiceView, ApiError> {
    let found = snapshot.services.iter().find(|view| view.service.name.as_str() == name);
    found.ok_or_else(|| ApiError::no_such("service", name, service_names(snapshot)))
}

/// Where plans are asked for.
pub(super) const PLAN: &str = "/v1/plan";

const MAX_TRIES: u32 = 10;
