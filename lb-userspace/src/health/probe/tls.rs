use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::SystemTime,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Target, Trouble, apart, stream::Stream};
use crate::domain::Tls;

pub(super) const NO_ALPN: &[&[u8]] = &[];

/// Puts TLS around a connection. The server's name is what the settings say, else `host`, else the address.
pub(super) async fn wrap(
    stream: Stream,
    settings: &Tls,
    host: Option<&str>,
    target: &Target,
    alpn: &'static [&'static [u8]],
) -> Result<TlsStream<Stream>, Trouble> {
    let name = match settings.server_name.as_deref().or(host) {
        Some(name) => ServerName::try_from(name.to_owned())
            .map_err(|_| Trouble::Backend(format!("\"{name}\" can't be a server's name")))?,
        None => ServerName::from(target.address.ip()),
    };
    let trust = Trust { ca_file: settings.ca_file.clone(), verify: settings.verify, alpn };
    let config = apart(move || config(trust)).await?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| trouble(&error))
}

/// Shakes hands, and says goodbye.
pub(super) async fn ask(settings: &Tls, target: &Target) -> Result<String, Trouble> {
    let stream = Box::new(super::stream::connect(target).await?);
    let stream = wrap(stream, settings, None, target, NO_ALPN).await?;
    Ok(described(&stream))
}

/// `TLS 1.3`.
pub(super) fn described(stream: &TlsStream<Stream>) -> String {
    match stream.get_ref().1.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2".to_owned(),
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3".to_owned(),
        other => format!("TLS {other:?}"),
    }
}

fn trouble(error: &io::Error) -> Trouble {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(inner) = inner else { return Trouble::of(error) };
    Trouble::Backend(match inner {
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the certificate has expired".to_owned()
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the certificate is from no authority that is trusted".to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the certificate is for another name".to_owned(),
        Error::InvalidMessage(_) => "not what a TLS server says".to_owned(),
        other => other.to_string(),
    })
}

/// What decides how a connection is made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Trust {
    /// `None`: the host's certificates.
    ca_file: Option<PathBuf>,
    verify: bool,
    alpn: &'static [&'static [u8]],
}

/// A file as it was read; another time or length is another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

type Known = HashMap<Trust, (Option<Stamp>, Arc<ClientConfig>)>;

/// Made once for each way to trust, and again when the file has changed.
fn config(trust: Trust) -> Result<Arc<ClientConfig>, Trouble> {
    static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let stamp = match trust.ca_file.as_deref().filter(|_| trust.verify) {
        Some(path) => Some(stamp(path)?),
        None => None,
    };
    match known.get(&trust) {
        Some((of, config)) if *of == stamp => return Ok(Arc::clone(config)),
        _ => {}
    }
    let config = Arc::new(make(&trust)?);
    known.insert(trust, (stamp, Arc::clone(&config)));
    Ok(config)
}

fn make(trust: &Trust) -> Result<ClientConfig, Trouble> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Trouble::Ours(error.to_string()))?;
    let mut config = if trust.verify {
        builder.with_root_certificates(roots(trust.ca_file.as_deref())?).with_no_client_auth()
    } else {
        let anyone = Arc::new(Anyone(provider));
        builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth()
    };
    config.alpn_protocols = trust.alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // A resumed session would prove less.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, Trouble> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let ours = |why: &dyn std::fmt::Display| Trouble::Ours(format!("ca_file {}: {why}", path.display()));
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| ours(&error))? {
        let certificate = certificate.map_err(|error| ours(&error))?;
        roots.add(certificate).map_err(|error| ours(&error))?;
    }
    if roots.is_empty() { Err(ours(&"no certificate is in it")) } else { Ok(roots) }
}

fn stamp(path: &Path) -> Result<Stamp, Trouble> {
    let metadata =
        fs::metadata(path).map_err(|error| Trouble::Ours(format!("ca_file {}: {error}", path.display())))?;
    Ok(Stamp { modified: metadata.modified().ok(), length: metadata.len() })
}

/// Takes any certificate, as long as the server has its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
