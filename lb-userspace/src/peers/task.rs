//! Carries datagrams.

use std::{
    io,
    net::{SocketAddr, UdpSocket as StdSocket},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UdpSocket,
    time::Instant,
};

use super::{Exchange, wire::MAX_DATAGRAM};

/// Carries datagrams between the sockets and `exchange` for as long as the runtime lives. `flow_news` is readable when there
/// are flows that peers have to know; `clock` is boot time.
///
/// # Errors
///
/// If a socket can't be used by the runtime.
pub fn spawn(
    sockets: Vec<StdSocket>,
    flow_news: OwnedFd,
    exchange: &Arc<Exchange>,
    clock: fn() -> Duration,
) -> io::Result<()> {
    // SAFETY: an `OwnedFd` is the same open descriptor until it is dropped.
    let flow_news = unsafe { AsyncFd::register_with_interest(flow_news, Interest::READABLE)? };
    tokio::spawn(watch(flow_news, Arc::clone(exchange)));
    let sockets: Vec<_> = sockets
        .into_iter()
        .map(|socket| UdpSocket::from_std(socket).map(Arc::new))
        .collect::<Result<_, _>>()?;
    for socket in &sockets {
        tokio::spawn(receive(Arc::clone(socket), Arc::clone(exchange), clock));
    }
    tokio::spawn(send(sockets, Arc::clone(exchange), clock));
    Ok(())
}

async fn watch(flow_news: AsyncFd<OwnedFd>, exchange: Arc<Exchange>) {
    loop {
        match flow_news.readable().await {
            // Before anything is taken: what comes then wakes us again.
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => {
                log::warn!("peers: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
        exchange.give_work();
    }
}

async fn receive(socket: Arc<UdpSocket>, exchange: Arc<Exchange>, clock: fn() -> Duration) {
    // A byte more than is allowed tells what is too long.
    let mut buffer = [0; MAX_DATAGRAM + 1];
    loop {
        if let Err(error) = socket.readable().await {
            log::warn!("peers: {error}");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        for _ in 0..AT_ONCE {
            match socket.try_recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    exchange.endpoint().receive(canonical(from), datagram, clock());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What an earlier datagram brought back (ICMP) says nothing that silence would not.
                Err(_) => {}
            }
        }
        exchange.wake();
        if exchange.endpoint().has_events() {
            exchange.give_work();
        }
        // A flood must not keep others from their turn.
        tokio::task::yield_now().await;
    }
}

async fn send(sockets: Vec<Arc<UdpSocket>>, exchange: Arc<Exchange>, clock: fn() -> Duration) {
    let of_family = |socket: Arc<UdpSocket>| Some((socket.local_addr().ok()?.is_ipv4(), socket));
    let sockets: Vec<_> = sockets.into_iter().filter_map(of_family).collect();
    loop {
        let next = exchange.endpoint().transmit(clock());
        if let Some((to, datagram)) = next {
            let socket = sockets.iter().find(|(is_ipv4, _)| *is_ipv4 == to.is_ipv4());
            let Some((_, socket)) = socket else { continue };
            // What does not leave is lost, as on the way; what counts is sent again.
            let _ = socket.async_io(Interest::WRITABLE, || socket.try_send_to(&datagram, to)).await;
            continue;
        }
        let now = clock();
        let wake = exchange.endpoint().wake(now).saturating_sub(now).max(LEAST_SLEEP);
        tokio::select! {
            () = exchange.news() => {}
            () = tokio::time::sleep_until(Instant::now() + wake) => {}
        }
    }
}

fn canonical(from: SocketAddr) -> SocketAddr {
    // Without scope and flow label, as the configuration has it.
    SocketAddr::new(from.ip(), from.port())
}

/// Datagrams that are read in a turn.
const AT_ONCE: usize = 64;
const PAUSE: Duration = Duration::from_millis(100);
const LEAST_SLEEP: Duration = Duration::from_millis(1);
