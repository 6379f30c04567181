//! `POST /v1/capture`: the one answer that is not read within a time, but as long as its client likes.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequest as _, Request, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use hyper::body::Body as _;
use tokio::sync::SetOnce;

use super::{Api, ApiError, extract::Settings};
use crate::{
    api::v1,
    capture::{Format, Started},
};

/// Marks an answer that goes on for as long as its client likes.
#[derive(Clone, Debug)]
pub(super) struct Stream(Arc<SetOnce<()>>);

impl Stream {
    /// Returns when all of it is there to be read.
    pub(super) async fn ended(&self) {
        self.0.wait().await;
    }
}

pub(super) async fn begin(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let client = request.extensions().get().copied().unwrap_or_default();
    let asked = match request.body().is_end_stream() {
        true => v1::Capture::default(),
        false => Settings::<v1::Capture>::from_request(request, &api).await?.0,
    };
    let asked = asked.validate()?;
    let kind = match asked.format {
        Format::Pcapng => "application/x-pcapng",
        Format::Json => "application/x-ndjson",
    };
    let Started { mut blocks, ended } = (api.capture)(asked, client).await?;
    let blocks =
        stream::poll_fn(move |context| blocks.poll_recv(context).map(|block| block.map(Ok::<_, ApiError>)));
    let mut answer = ([(header::CONTENT_TYPE, kind)], Body::from_stream(blocks)).into_response();
    answer.extensions_mut().insert(Stream(ended));
    Ok(answer)
}
