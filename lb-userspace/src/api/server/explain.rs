//! `POST /v1/explain`.

use std::{net::SocketAddr, sync::Arc};

use axum::{Json, extract::State};

use super::{Api, ApiError, extract::Settings, routes::Answer};
use crate::{
    api::v1,
    config::shape::{Refused, one_of},
    digits::{hex, unhex},
    domain::Protocol,
    explain::{Explanation, Header, Packet, Question, What},
};

pub(super) async fn explain(
    State(api): State<Api>,
    Settings(body): Settings<v1::Question>,
) -> Answer<v1::Explained> {
    let question = question(body)?;
    let (snapshot, explainer) = (api.control.snapshot(), Arc::clone(&api.explainer));
    let asked = tokio::task::spawn_blocking(move || explainer.explain(&snapshot, &question));
    Ok(Json(explained(asked.await.map_err(|_| ApiError::Lost)??)))
}

fn question(body: v1::Question) -> Result<Question, Refused> {
    let v1::Question { service, from, to, port, protocol, syn, interface, length, frame } = body;
    let what = match (frame, from) {
        (Some(frame), None) => {
            let of_packets = [
                (service.is_some(), "service"),
                (to.is_some(), "to"),
                (port.is_some(), "port"),
                (protocol.is_some(), "protocol"),
                (syn, "syn"),
                (length.is_some(), "length"),
            ];
            if let Some((_, field)) = of_packets.into_iter().find(|(given, _)| *given) {
                return Err(refused(
                    field,
                    format!("`{field}` can't be given with `frame`, which says it all"),
                ));
            }
            What::Frame(unhex(&frame).ok_or_else(|| refused("frame", "it is not hexadecimal".to_owned()))?)
        }
        (None, Some(from)) => What::Packet(Packet {
            from: address("from", &from)?,
            service,
            to: to.map(|to| address("to", &to)).transpose()?,
            port,
            protocol: protocol
                .map(|name| one_of("protocol", &Protocol::ALL, Protocol::as_str, &name))
                .transpose()?,
            syn,
            length,
        }),
        _ => return Err(refused("from", "exactly one of `from` and `frame` is needed".to_owned())),
    };
    Ok(Question { what, interface })
}

fn address(field: &'static str, text: &str) -> Result<SocketAddr, Refused> {
    text.parse().map_err(|_| {
        let message = format!(
            "`{field}` can't be {text:?}: an address and a port, such as 198.51.100.7:40000 or [2001:db8::7]:40000"
        );
        refused(field, message)
    })
}

fn refused(field: &str, message: String) -> Refused {
    Refused { field: field.to_owned(), message }
}

fn explained(explanation: Explanation) -> v1::Explained {
    v1::Explained {
        service: explanation.service,
        slot: explanation.slot,
        backend: explanation.backend,
        reason: explanation.reason.to_owned(),
        tracked: explanation.tracked,
        verdict: explanation.verdict.as_str().to_owned(),
        output: explanation.output.as_deref().map(hex),
        input: hex(&explanation.input),
        interface: explanation.interface,
        egress: explanation.egress,
        explanation: explanation.sentences,
        remedy: explanation.advice.map(ToOwned::to_owned),
        headers: explanation.headers.into_iter().map(header).collect(),
    }
}

fn header(Header { layer, before, after }: Header) -> v1::HeaderPair {
    v1::HeaderPair { layer: layer.to_owned(), before, after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_about_a_frame_or_about_a_packet() {
        let from = Some("198.51.100.7:40000".to_owned());
        let frame = Some("00".repeat(60));
        let asked = |body| question(body).map_err(|refused| refused.field);
        assert!(asked(v1::Question { frame: frame.clone(), ..v1::Question::default() }).is_ok());
        assert!(asked(v1::Question { from: from.clone(), ..v1::Question::default() }).is_ok());
        assert_eq!(asked(v1::Question::default()), Err("from".to_owned()));
        let both = v1::Question { from, frame: frame.clone(), ..v1::Question::default() };
        assert_eq!(asked(both), Err("from".to_owned()));
        let more = v1::Question { frame, syn: true, ..v1::Question::default() };
        assert_eq!(asked(more), Err("syn".to_owned()));
        let nowhere = v1::Question { from: Some("198.51.100.7".to_owned()), ..v1::Question::default() };
        assert_eq!(asked(nowhere), Err("from".to_owned()));
    }
}
