use std::{fmt::Display, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task, time,
};
use tokio_rustls::TlsConnector;

use super::EtcdError;
use crate::config::{Endpoint, FleetConfig};

/// A connection to a member of etcd.
pub(super) async fn connect(
    endpoint: &Endpoint,
    config: &Arc<FleetConfig>,
) -> Result<SendRequest<Full<Bytes>>, EtcdError> {
    let limit = CONNECT_TIMEOUT;
    let unreachable =
        |why: &dyn Display| EtcdError::Unreachable { endpoint: endpoint.to_string(), why: why.to_string() };
    let connecting = async {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
        let stream = stream.map_err(|error| unreachable(&error))?;
        // Questions are small and wait for their answers.
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        // What stands in between forgets connections that say nothing.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(3);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(|error| unreachable(&error))?;
        if !endpoint.tls {
            return shake_hands(stream).await.map_err(|error| unreachable(&error));
        }
        let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| unreachable(&error))?;
        // Read each time: certificates are renewed.
        let tls = task::spawn_blocking({
            let config = Arc::clone(config);
            move || tls(&config)
        });
        let tls = tls.await.map_err(|error| EtcdError::Ours(error.to_string()))??;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await;
        shake_hands(stream.map_err(|error| unreachable(&error))?).await.map_err(|error| unreachable(&error))
    };
    match time::timeout(limit, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(unreachable(&format!("no connection within {} s", limit.as_secs()))),
    }
}

async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> hyper::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends by itself when nobody has the sender or an answer any more.
    task::spawn(connection);
    Ok(sender)
}

fn tls(config: &FleetConfig) -> Result<ClientConfig, EtcdError> {
    let ours = |error: &dyn Display| EtcdError::Ours(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ours(&error))?
        .with_root_certificates(roots(config.ca_file.as_deref())?);
    let mut tls = match (&config.cert_file, &config.key_file) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("cert_file", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| of_file("key_file", key, &error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| ours(&format!("cert_file, key_file: {error}")))?
        }
        _ => builder.with_no_client_auth(),
    };
    // On the same port etcd speaks HTTP/2 with who wants that: gRPC, without the gateway.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, EtcdError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(path) => {
            for certificate in certificates("ca_file", path)? {
                roots.add(certificate).map_err(|error| of_file("ca_file", path, &error))?;
            }
        }
    }
    Ok(roots)
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, EtcdError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(none) if none.is_empty() => Err(of_file(key, path, &"no certificate is in it")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(of_file(key, path, &error)),
    }
}

fn of_file(key: &str, path: &Path, why: &dyn Display) -> EtcdError {
    EtcdError::Ours(format!("{key} {}: {why}", path.display()))
}

const KEEPALIVE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
