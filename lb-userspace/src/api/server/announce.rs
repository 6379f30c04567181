//! `/v1/announce`.

use axum::{Json, extract::State};

use super::{
    Api,
    extract::Settings,
    routes::{Answer, edit},
};
use crate::{
    api::{v1, view},
    config::shape::Refused,
    control::Edit,
};

pub(super) async fn show(State(api): State<Api>) -> Answer<Option<v1::Announce>> {
    Ok(Json(view::announce(&api.control.snapshot(), &*api.counters, &api.boards.announce)?))
}

pub(super) async fn set(
    State(api): State<Api>,
    Settings(body): Settings<v1::Announcing>,
) -> Answer<v1::Changed> {
    let refused = |message: String| Refused { field: "vip".to_owned(), message };
    let vip = body.vip.map(|vip| vip.parse().map_err(|_| refused(format!("{vip:?} is not an address"))));
    if api.boards.announce.report().is_none() {
        let message = "this host announces nothing: there is no [announce] with `method` \"route\" in the configuration";
        return Err(refused(message.to_owned()).into());
    }
    edit(&api, Edit::Announce { vip: vip.transpose()?, on: body.on }).await
}
