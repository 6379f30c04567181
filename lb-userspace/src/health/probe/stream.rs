use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
};

use super::{Target, Trouble};

/// A connection, in the clear or not.
pub(super) type Stream = Box<dyn Connection>;

pub(super) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

pub(super) async fn connect(target: &Target) -> Result<TcpStream, Trouble> {
    let socket = match target.address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(|error| Trouble::of(&error))?;
    target.prepare_tcp(&SockRef::from(&socket))?;
    let connected = async {
        if let Some(source) = target.source {
            socket.bind((source, 0).into())?;
        }
        socket.connect(target.address).await
    };
    let stream = connected.await.map_err(|error| Trouble::of(&error))?;
    target.heard.store(true, Relaxed);
    Ok(stream)
}
