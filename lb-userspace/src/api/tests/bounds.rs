//! What clients may do to the server: too much, too slowly, too many of them.

use super::*;

#[tokio::test]
async fn malformed_requests_get_an_error_body_and_harm_nobody() {
    let daemon = Daemon::start(applied).await;
    let cases: &[(&str, &str, &str)] = &[
        ("GET /v2/status HTTP/1.1\r\nhost: x\r\n\r\n", "404", "not_found"),
        ("DELETE /v1/status HTTP/1.1\r\nhost: x\r\n\r\n", "405", "method_not_allowed"),
        ("GET /v1/reload HTTP/1.1\r\nhost: x\r\n\r\n", "405", "method_not_allowed"),
        ("POST /v1/reload?dry_run=maybe HTTP/1.1\r\nhost: x\r\n\r\n", "400", "bad_request"),
        ("POST /v1/reload?dryrun=true HTTP/1.1\r\nhost: x\r\n\r\n", "400", "bad_request"),
        ("POST /v1/plan?dry_run=false HTTP/1.1\r\nhost: x\r\n\r\n", "400", "bad_request"),
        ("POST /v1/plan HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n[]", "400", "bad_request"),
        ("POST /v1/plan HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n", "413", "too_large"),
        ("POST /v1/capture HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{\"rate\":0}", "422", "invalid"),
        (
            "POST /v1/capture HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n{\"interface\":\"eth7\"}",
            "409",
            "capturing",
        ),
        ("GET /v1/services/%ff HTTP/1.1\r\nhost: x\r\n\r\n", "400", "bad_request"),
        ("POST /v1/reload HTTP/1.1\r\nhost: x\r\ncontent-length: 65537\r\n\r\n", "413", "too_large"),
    ];
    for (request, status, kind) in cases {
        let (line, body) = daemon.send(request.as_bytes()).await;
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {line}");
        let body: v1::ErrorBody = serde_json::from_str(&body).expect(&body);
        assert_eq!(body.error.kind, *kind, "{request}");
    }
    let (line, _) = daemon.send(b"\x16\x03\x01 not HTTP at all\r\n\r\n").await;
    assert!(line.starts_with("HTTP/1.1 400 "), "{line}");
    assert_eq!(daemon.reloads.load(Ordering::SeqCst), 0);
    daemon.client().status().await.unwrap();
}

#[tokio::test]
async fn bodies_and_headers_are_bounded() {
    let daemon = Daemon::start(applied).await;
    // Its length unannounced, so that only counting finds it too large.
    let mut request = b"POST /v1/reload HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..=MAX_REQUEST / 0x1000 {
        request.extend_from_slice(b"1000\r\n");
        request.extend_from_slice(&[b'x'; 0x1000]);
        request.extend_from_slice(b"\r\n");
    }
    let (line, _) = daemon.send(&request).await;
    assert!(line.starts_with("HTTP/1.1 413 "), "{line}");
    let request = format!("GET /v1/status HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(2 * MAX_REQUEST));
    let (line, _) = daemon.send(request.as_bytes()).await;
    assert!(line.starts_with("HTTP/1.1 431 "), "{line}");
    assert_eq!(daemon.reloads.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn who_keeps_the_server_waiting_gives_way_to_who_comes() {
    let daemon = Daemon::start(applied).await;
    let connect = async || UnixStream::connect(daemon.socket()).await.unwrap();
    // Those that were refused and have gone are waited for no more.
    for _ in 0..100 {
        let refused = b"POST /v1/reload HTTP/1.1\r\nhost: x\r\ncontent-length: 65537\r\n\r\n";
        assert!(daemon.send(refused).await.0.starts_with("HTTP/1.1 413 "));
    }
    let mut idle = Vec::new();
    for _ in 0..server::MAX_CLIENTS {
        let mut stream = connect().await;
        stream.write_all(b"POST /v1/reload HTTP/1.1\r\ncontent-le").await.unwrap();
        idle.push(stream);
    }
    // Nobody waits for the others' time to be over.
    let answered = tokio::time::timeout(Duration::from_secs(5), daemon.client().status()).await;
    answered.expect("a place is made").unwrap();
    let (line, body) = answer(&mut idle[0]).await;
    assert!(line.starts_with("HTTP/1.1 408 "), "{line}");
    assert_eq!(serde_json::from_str::<v1::ErrorBody>(&body).expect(&body).error.kind, "timeout");
    // It was the first who came, and one was enough.
    idle[1].write_all(b"ngth: 0\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(answer(&mut idle[1]).await.0, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn who_waits_for_the_server_keeps_the_place_and_the_next_one_waits() {
    let daemon = Daemon::start(applied).await;
    let mut clients = Vec::new();
    for _ in 0..=server::MAX_CLIENTS {
        let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
        stream.write_all(b"POST /v1/reload HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        clients.push(stream);
    }
    for client in &mut clients {
        assert_eq!(answer(client).await.0, "HTTP/1.1 200 OK");
    }
    assert_eq!(daemon.reloads.load(Ordering::SeqCst), clients.len());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_or_a_byte_a_second_is_sent_away() {
    let daemon = Daemon::start(applied).await;
    let body = "POST /v1/reload HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n";
    for (begun, drips) in [("", false), ("GET /v1/status HT", false), (body, false), ("", true), (body, true)]
    {
        let started = tokio::time::Instant::now();
        let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        let dripping = tokio::spawn(async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            while drips && writing.write_all(b"x").await.is_ok() {
                second.tick().await;
            }
            // Who is silent keeps the connection open all the same.
            std::future::pending::<()>().await;
        });
        let (line, body) = answer(&mut reading).await;
        dripping.abort();
        assert!(line.starts_with("HTTP/1.1 408 "), "{begun:?}, {drips}: {line}");
        assert!(body.contains("did not arrive in time"), "{begun:?}, {drips}: {body}");
        let took = started.elapsed();
        assert!((9..=15).contains(&took.as_secs()), "{begun:?}, {drips}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_answer_is_sent_away() {
    // More than the kernel keeps for who does not read.
    let daemon = Daemon::start(|_| {
        let warnings = vec!["x".repeat(1 << 20); 8];
        Ok(Applied { revision: 1, changes: Vec::new(), warnings, impacts: Vec::new() })
    })
    .await;
    let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
    stream.write_all(b"POST /v1/reload HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received).await;
    assert!((1..4 << 20).contains(&received.len()), "{} bytes", received.len());
}

const CAPTURE: &str = "POST /v1/capture HTTP/1.1\r\nhost: x\r\n";

#[tokio::test(start_paused = true)]
async fn a_capture_goes_on_for_as_long_as_its_client_likes() {
    let daemon = Daemon::start(applied).await;
    let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
    stream.write_all(format!("{CAPTURE}\r\n").as_bytes()).await.unwrap();
    let mut read = 0;
    let mut buffer = vec![0; 64 << 10];
    while read < 64 << 10 {
        read += stream.read(&mut buffer).await.unwrap();
    }
    let hours = Duration::from_secs(10_000);
    // What follows the block is read with it, or a moment later.
    let mut waited = tokio::time::timeout(hours, stream.read(&mut buffer)).await;
    if waited.is_ok() {
        waited = tokio::time::timeout(hours, stream.read(&mut buffer)).await;
    }
    assert!(waited.is_err(), "it was ended: {waited:?}");
    daemon.client().status().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_capture_that_has_ended_is_read_in_time_or_never() {
    let daemon = Daemon::start(applied).await;
    let body = "{\"count\": 128}";
    let request = format!("{CAPTURE}content-length: {}\r\n\r\n{body}", body.len());
    let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received).await;
    assert!((1..4 << 20).contains(&received.len()), "{} bytes of 8 MiB", received.len());
    // Who reads at once gets all of it.
    let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert!(received.len() > 8 << 20, "{} bytes of 8 MiB", received.len());
}
