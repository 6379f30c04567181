use axum::{Json, extract::State};

use super::{Api, ApiError, routes::Answer};
use crate::api::{v1, view};

pub(super) async fn fleet(State(api): State<Api>) -> Answer<v1::Fleet> {
    match &api.boards.fleet {
        Some(views) => Ok(Json(view::fleet::fleet(views))),
        None => Err(ApiError::NoFleet),
    }
}
