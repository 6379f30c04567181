//! A UDP socket whose errors matter.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use lb_tests::lab::{Namespace, wait_for};
use socket2::SockRef;

use crate::scene::SOON;

/// Text in datagrams.
pub(crate) struct Datagrams(UdpSocket);

impl Datagrams {
    pub(crate) fn bind(namespace: &Namespace, local: SocketAddr) -> Result<Self> {
        let socket =
            namespace.enter(|| UdpSocket::bind(local).with_context(|| format!("bind to {local}")))?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(Self(socket))
    }

    pub(crate) fn connect(&self, to: SocketAddr) -> Result<()> {
        self.0.connect(to).with_context(|| format!("connect to {to}"))
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    /// TTL or hop limit of what is sent from now on.
    pub(crate) fn set_ttl(&self, ttl: u32) -> Result<()> {
        let socket = SockRef::from(&self.0);
        let set = if self.0.local_addr()?.is_ipv4() {
            socket.set_ttl_v4(ttl)
        } else {
            socket.set_unicast_hops_v6(ttl)
        };
        set.context("set the TTL")
    }

    /// To whom it is connected. An error that came for an earlier datagram is taken away first.
    pub(crate) fn send(&self, text: &str) -> Result<()> {
        self.0.take_error()?;
        self.0.send(text.as_bytes()).map(drop).context("send")
    }

    /// The next datagram and who sent it.
    pub(crate) fn receive(&self) -> Result<(String, SocketAddr)> {
        let mut buffer = [0; 2_048];
        let (length, from) = self.0.recv_from(&mut buffer).context("receive")?;
        Ok((String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned(), from))
    }

    /// Waits for an ICMP error to come to this connected socket.
    pub(crate) fn wait_for_error(&self, what: &str, timeout: Duration) -> Result<io::Error> {
        wait_for(what, timeout, || self.0.take_error().transpose())?.context("ask a socket for its error")
    }
}
