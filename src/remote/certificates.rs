//! The certificates by which a server is known, and by which it knows us: read from the files that the configuration
//! names.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// As a section of the configuration names them. With `ca_file` a server must speak TLS and show a certificate of that
/// authority for its host name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The name of the section, for messages.
    pub section: &'static str,
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, for a server that asks for one; with `key_file`.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// What the files hold, all PEM.
#[derive(Clone, Default)]
pub struct Certificates {
    pub authority: Option<Vec<u8>>,
    /// Certificate and key.
    pub own: Option<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{section}.{key}: {problem}")]
pub struct Misconfigured {
    section: &'static str,
    key: &'static str,
    problem: String,
}

impl CertificateFiles {
    /// Reads and checks them. A text of a URL is no part of it: whether an address goes with them says its owner.
    pub fn read(&self) -> Result<Certificates, Misconfigured> {
        let authority = named(&self.ca_file).map(|path| self.authority(path)).transpose()?;
        let own = match (named(&self.cert_file), named(&self.key_file)) {
            (Some(certificate), Some(key)) => Some(self.own(certificate, key)?),
            (None, None) => None,
            (Some(_), None) => return Err(self.problem("cert_file", "needs key_file beside it")),
            (None, Some(_)) => return Err(self.problem("key_file", "needs cert_file beside it")),
        };
        Ok(Certificates { authority, own })
    }

    pub fn problem(&self, key: &'static str, problem: impl ToString) -> Misconfigured {
        Misconfigured { section: self.section, key, problem: problem.to_string() }
    }

    pub fn is_empty(&self) -> bool {
        [&self.ca_file, &self.cert_file, &self.key_file].into_iter().all(|path| named(path).is_none())
    }

    /// An empty name is none.
    pub fn ca_file(&self) -> Option<&Path> {
        named(&self.ca_file)
    }

    pub fn own_files(&self) -> Option<(&Path, &Path)> {
        named(&self.cert_file).zip(named(&self.key_file))
    }

    fn authority(&self, path: &Path) -> Result<Vec<u8>, Misconfigured> {
        let pem = self.file("ca_file", path)?;
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates("ca_file", path, &pem)? {
            roots.add(certificate).map_err(|error| self.at("ca_file", path, &error.to_string()))?;
        }
        Ok(pem)
    }

    fn own(&self, certificate: &Path, key: &Path) -> Result<(Vec<u8>, Vec<u8>), Misconfigured> {
        let (certificate_pem, key_pem) = (self.file("cert_file", certificate)?, self.file("key_file", key)?);
        let chain = self.certificates("cert_file", certificate, &certificate_pem)?;
        let private = PrivateKeyDer::from_pem_slice(&key_pem)
            .map_err(|_| self.at("key_file", key, "holds no private key (PEM)"))?;
        CertifiedKey::from_der(chain, private, &rustls::crypto::ring::default_provider())
            .map_err(|error| self.at("key_file", key, &format!("does not go with cert_file: {error}")))?;
        Ok((certificate_pem, key_pem))
    }

    fn certificates(
        &self,
        key: &'static str,
        path: &Path,
        pem: &[u8],
    ) -> Result<Vec<CertificateDer<'static>>, Misconfigured> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.map_err(|_| self.at(key, path, "is no PEM"))?;
        if found.is_empty() { Err(self.at(key, path, "holds no certificate (PEM)")) } else { Ok(found) }
    }

    fn file(&self, key: &'static str, path: &Path) -> Result<Vec<u8>, Misconfigured> {
        std::fs::read(path).map_err(|error| self.at(key, path, &format!("cannot be read: {error}")))
    }

    fn at(&self, key: &'static str, path: &Path, problem: &str) -> Misconfigured {
        self.problem(key, format!("{} {problem}", path.display()))
    }
}

fn named(path: &Option<PathBuf>) -> Option<&Path> {
    path.as_deref().filter(|path| !path.as_os_str().is_empty())
}
