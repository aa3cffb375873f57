//! A certificate authority of a test, and what it signs. Nothing of it is kept: each test makes its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, both PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

/// Where an `Issued` was written.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// `name` tells one authority from another in messages.
    pub fn new(name: &str) -> Self {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, PEM: what a `ca_file` holds.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes its own certificate there.
    pub fn write(&self, path: &Path) -> PathBuf {
        std::fs::write(path, self.pem()).unwrap();
        path.to_owned()
    }

    /// For a server that is called by one of these names or addresses.
    pub fn server(&self, names: &[&str]) -> Issued {
        self.sign(server(names))
    }

    /// As `server`, but its time is over.
    pub fn expired_server(&self, names: &[&str]) -> Issued {
        let mut params = server(names);
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 12, 31));
        self.sign(params)
    }

    /// For a client that is called so.
    pub fn client(&self, name: &str) -> Issued {
        let mut params = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// For a client of the test itself, which trusts this authority alone and shows `own`, if it has one.
    pub fn client_config(&self, own: Option<&Issued>) -> rustls::ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(self.roots());
        match own {
            Some(own) => builder.with_client_auth_cert(vec![own.certificate_der()], own.key_der()).unwrap(),
            None => builder.with_no_client_auth(),
        }
    }

    fn sign(&self, mut params: CertificateParams) -> Issued {
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn server(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, names[0]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key` into this folder.
    pub fn write(&self, folder: &Path, name: &str) -> Files {
        let files = Files { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
        std::fs::write(&files.certificate, &self.certificate).unwrap();
        std::fs::write(&files.key, &self.key).unwrap();
        files
    }

    /// For a server of the test itself. With `clients`, it takes only clients that this authority knows.
    pub fn server_config(&self, clients: Option<&Authority>) -> rustls::ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = match clients {
            Some(authority) => {
                let roots = Arc::new(authority.roots());
                let verifier =
                    rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
                builder.unwrap().with_client_cert_verifier(verifier)
            }
            None => builder.unwrap().with_no_client_auth(),
        };
        builder.with_single_cert(vec![self.certificate_der()], self.key_der()).unwrap()
    }

    fn certificate_der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// A whole handshake in memory: what the client made of the server, then what the server made of the client.
fn shake(client: rustls::ClientConfig, server: rustls::ServerConfig, name: &'static str) -> Result<(), rustls::Error> {
    let mut client = rustls::ClientConnection::new(Arc::new(client), name.try_into().unwrap()).unwrap();
    let mut server = rustls::ServerConnection::new(Arc::new(server)).unwrap();
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        wire.clear();
        server.process_new_packets()?;
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        wire.clear();
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn a_certificate_counts_where_it_should_and_nowhere_else() {
    use rustls::CertificateError::{ExpiredContext, NotValidForNameContext, UnknownIssuer};
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let good = authority.server(&["localhost", "127.0.0.1"]);
    let refusal = |issued: &Issued, trusted: &Authority, name| match shake(
        trusted.client_config(None),
        issued.server_config(None),
        name,
    ) {
        Ok(()) => None,
        Err(rustls::Error::InvalidCertificate(error)) => Some(error),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(refusal(&good, &authority, "localhost"), None);
    assert_eq!(refusal(&good, &authority, "127.0.0.1"), None);
    assert_eq!(refusal(&good, &other, "localhost"), Some(UnknownIssuer));
    assert!(matches!(refusal(&good, &authority, "example.com"), Some(NotValidForNameContext { .. })));
    let old = authority.expired_server(&["localhost"]);
    assert!(matches!(refusal(&old, &authority, "localhost"), Some(ExpiredContext { .. })));

    let (known, stranger) = (authority.client("bot"), other.client("bot"));
    let meets = |own| shake(authority.client_config(own), good.server_config(Some(&authority)), "localhost");
    assert!(meets(Some(&known)).is_ok());
    assert!(meets(Some(&stranger)).is_err() && meets(None).is_err());

    let folder = tempfile::tempdir().unwrap();
    let files = good.write(folder.path(), "server");
    assert_eq!(std::fs::read_to_string(files.certificate).unwrap(), good.certificate);
    assert_eq!(std::fs::read_to_string(files.key).unwrap(), good.key);
    assert_eq!(std::fs::read_to_string(authority.write(&folder.path().join("ca.pem"))).unwrap(), authority.pem());
}
