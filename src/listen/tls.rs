//! TLS for all listeners: the certificate, and the authority of clients' certificates. They can be replaced while
//! connections stand; those that are open keep what they began with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;

use super::Protocol;

/// The section `[tls]`. Off while it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The certificate and those between it and its authority, PEM.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Clients must have a certificate of this authority, PEM.
    pub client_ca_file: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum BadTls {
    #[error("tls.cert_file and tls.key_file go together, and tls.client_ca_file needs both")]
    Incomplete,
    #[error("{key} {}: {problem}", path.display())]
    File { key: &'static str, path: PathBuf, problem: String },
}

impl TlsConfig {
    pub fn is_on(&self) -> bool {
        named(&self.cert_file).is_some()
    }

    /// All files that are named.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.cert_file, &self.key_file, &self.client_ca_file].into_iter().filter_map(|path| named(path))
    }
}

/// An empty name is none.
fn named(path: &Path) -> Option<&Path> {
    Some(path).filter(|path| !path.as_os_str().is_empty())
}

/// What was read of the files; nothing where TLS is off.
pub struct Certificates(Option<Loaded>);

struct Loaded {
    http1: TlsAcceptor,
    http2: TlsAcceptor,
    wants_clients: bool,
}

impl Certificates {
    pub fn read(config: &TlsConfig) -> Result<Self, BadTls> {
        let (cert, key, authority) = (named(&config.cert_file), named(&config.key_file), named(&config.client_ca_file));
        let (Some(cert), Some(key)) = (cert, key) else {
            let is_off = cert.is_none() && key.is_none() && authority.is_none();
            return if is_off { Ok(Self(None)) } else { Err(BadTls::Incomplete) };
        };
        let provider = Arc::new(ring::default_provider());
        let verifier = authority.map(|path| verifier(path, &provider)).transpose()?;
        let wants_clients = verifier.is_some();
        let chain = certificates("tls.cert_file", cert)?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| bad("tls.key_file", key, &error))?;
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.map_err(|error| bad("tls.cert_file", cert, &error))?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let server = builder.with_single_cert(chain, secret).map_err(|error| bad("tls.key_file", key, &error))?;
        let speaking = |protocol: &[u8]| {
            let mut server = server.clone();
            server.alpn_protocols = vec![protocol.to_vec()];
            TlsAcceptor::from(Arc::new(server))
        };
        Ok(Self(Some(Loaded { http1: speaking(b"http/1.1"), http2: speaking(b"h2"), wants_clients })))
    }
}

/// One without a certificate gets through, so that it can be told; the guard lets it see no more than that Tacho is
/// there.
fn verifier(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, BadTls> {
    const KEY: &str = "tls.client_ca_file";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(KEY, path)? {
        roots.add(certificate).map_err(|error| bad(KEY, path, &error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    builder.allow_unauthenticated().build().map_err(|error| bad(KEY, path, &error))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, BadTls> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| bad(key, path, &error))?;
    if read.is_empty() { Err(bad(key, path, &"holds no certificate")) } else { Ok(read) }
}

fn bad(key: &'static str, path: &Path, problem: &dyn std::fmt::Display) -> BadTls {
    BadTls::File { key, path: path.to_owned(), problem: problem.to_string() }
}

/// What is in use.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Certificates>>);

impl Tls {
    pub fn new(certificates: Certificates) -> Self {
        Self(Arc::new(RwLock::new(certificates)))
    }

    pub fn replace(&self, certificates: Certificates) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificates;
    }

    /// How a connection begins, and whether its client must have a certificate. `None`: it begins at once.
    pub(super) fn acceptor(&self, protocol: Protocol) -> Option<(TlsAcceptor, bool)> {
        let certificates = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let loaded = certificates.0.as_ref()?;
        let acceptor = match protocol {
            Protocol::Http1 => &loaded.http1,
            Protocol::Http2 => &loaded.http2,
        };
        Some((acceptor.clone(), loaded.wants_clients))
    }
}
