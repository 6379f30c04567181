//! The standard health service of gRPC (github.com/grpc/grpc, doc/health-checking.md), over a minimum of HTTP/2.

use bytes::{Buf as _, Bytes};
use h2::client;
use hyper::{HeaderMap, Request, header};

use super::{
    Target, Trouble, describe,
    fields::Fields,
    stream::{self, Stream},
    tls,
};
use crate::domain::Grpc;

pub(super) async fn ask(grpc: &Grpc, target: &Target) -> Result<String, Trouble> {
    let mut stream: Stream = Box::new(stream::connect(target).await?);
    if let Some(settings) = &grpc.tls {
        stream = Box::new(tls::wrap(stream, settings, None, target, &[b"h2"]).await?);
    }
    let scheme = if grpc.tls.is_some() { "https" } else { "http" };
    let request = Request::post(format!("{scheme}://{}/grpc.health.v1.Health/Check", target.address))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, super::USER_AGENT)
        .body(())
        .map_err(|error| Trouble::Backend(format!("the request can't be made: {error}")))?;

    let mut builder = client::Builder::new();
    builder.enable_push(false).max_header_list_size(MAX_HEADERS).max_send_buffer_size(MAX_MESSAGE);
    let (sender, connection) = builder.handshake(stream).await.map_err(|error| broken(&error))?;
    // The connection is driven here rather than in a task, so that it ends with the check.
    tokio::select! {
        biased;
        answer = exchange(sender, request, message(&grpc.service)) => answer,
        Err(error) = connection => Err(broken(&error)),
    }
}

async fn exchange(
    sender: client::SendRequest<Bytes>,
    request: Request<()>,
    message: Bytes,
) -> Result<String, Trouble> {
    let broken = |error: h2::Error| broken(&error);
    let mut sender = sender.ready().await.map_err(broken)?;
    let (response, mut body) = sender.send_request(request, false).map_err(broken)?;
    body.send_data(message, true).map_err(broken)?;
    let response = response.await.map_err(broken)?;
    if response.status() != 200 {
        return Err(Trouble::Backend(format!("HTTP {}", response.status().as_u16())));
    }
    refused(response.headers())?;
    let mut body = response.into_body();
    let mut answer = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(broken)?;
        if answer.len() + chunk.len() > MAX_MESSAGE {
            return Err(Trouble::Backend(format!("the answer is longer than {MAX_MESSAGE} bytes")));
        }
        answer.extend_from_slice(&chunk);
        // Of a stream that has ended there is no capacity to give back.
        let _ = body.flow_control().release_capacity(chunk.remaining());
    }
    if let Some(trailers) = body.trailers().await.map_err(broken)? {
        refused(&trailers)?;
    }
    verdict(&answer)
}

fn refused(headers: &HeaderMap) -> Result<(), Trouble> {
    let Some(status) = headers.get("grpc-status").map(|status| status.to_str().unwrap_or("?")) else {
        return Ok(());
    };
    let meaning = match status {
        "0" => return Ok(()),
        "5" => " (the service is not known)",
        "12" => " (there is no health service)",
        "14" => " (unavailable)",
        "7" | "16" => " (not allowed)",
        _ => "",
    };
    Err(Trouble::Backend(format!("gRPC status {status}{meaning}")))
}

fn verdict(answer: &[u8]) -> Result<String, Trouble> {
    match status(answer) {
        Some(1) => Ok("SERVING".to_owned()),
        Some(2) => Err(Trouble::Backend("NOT_SERVING".to_owned())),
        Some(3) => Err(Trouble::Backend("SERVICE_UNKNOWN".to_owned())),
        Some(_) => Err(Trouble::Backend("UNKNOWN".to_owned())),
        None => Err(Trouble::Backend("not an answer of a health service".to_owned())),
    }
}

/// A frame with a `HealthCheckRequest`: not compressed, its length, field 1.
fn message(service: &str) -> Bytes {
    let mut request = Vec::new();
    if !service.is_empty() {
        // A name has at most 255 bytes: a length of two bytes.
        request.push(FIELD_1_TEXT);
        let length = service.len();
        match u8::try_from(length) {
            Ok(short @ 0..=127) => request.push(short),
            _ => request.extend_from_slice(&[(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]),
        }
        request.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0, 0, 0];
    // At most 258 bytes.
    frame.extend_from_slice(&(request.len() as u16).to_be_bytes());
    frame.extend_from_slice(&request);
    frame.into()
}

/// Field 1 of the `HealthCheckResponse` in a frame; 0 where it is not there.
fn status(answer: &[u8]) -> Option<u64> {
    let mut fields = Fields::of(answer);
    if fields.byte()? != 0 {
        return None;
    }
    let length = fields.big_u32()?;
    let mut fields = Fields::of(fields.take(usize::try_from(length).ok()?)?);
    let mut status = 0;
    while !fields.rest().is_empty() {
        let tag = variable(&mut fields)?;
        match tag & 7 {
            0 => {
                let value = variable(&mut fields)?;
                status = if tag >> 3 == 1 { value } else { status };
            }
            2 => {
                let length = usize::try_from(variable(&mut fields)?).ok()?;
                fields.take(length)?;
            }
            _ => return None,
        }
    }
    Some(status)
}

/// An integer of up to ten bytes, seven bits each.
fn variable(fields: &mut Fields<'_>) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = fields.byte()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn broken(error: &h2::Error) -> Trouble {
    match error.get_io() {
        Some(error) => Trouble::Backend(describe(error)),
        None if error.is_go_away() || error.is_reset() => Trouble::Backend(error.to_string()),
        None => Trouble::Backend("not an HTTP/2 server".to_owned()),
    }
}

const FIELD_1_TEXT: u8 = 1 << 3 | 2;
const MAX_HEADERS: u32 = 16 * 1024;
const MAX_MESSAGE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_health_service() {
        assert_eq!(message("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(message("db").as_ref(), [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        let long = message(&"x".repeat(255));
        assert_eq!(long[..8], [0, 0, 0, 1, 2, 0x0a, 0xff, 1]);
        assert_eq!(long.len(), 5 + 3 + 255);
    }

    #[test]
    fn answers_are_read_whatever_else_they_hold() {
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(status(&[0, 0, 0, 0, 6, 0x12, 2, 8, 1, 8, 2]), Some(2));
        for broken in
            [&[][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 2, 8], &[0, 255, 255, 255, 255], &[0, 0, 0, 0, 1, 0x0b]]
        {
            assert_eq!(status(broken), None, "{broken:?}");
        }
        let endless = [vec![0, 0, 0, 0, 11], vec![0xff; 11]].concat();
        assert_eq!(status(&endless), None);
    }
}
