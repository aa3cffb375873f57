//! Servers whose certificates a private authority has signed: Postgres, Redis, Alertmanager, Elasticsearch. The right
//! authority is enough, and everything else is refused with its reason.

mod databases;
mod web;

use std::path::PathBuf;

use tacho::remote::{CertificateFiles, Target};

use crate::support::certificates::{Authority, Issued};

const LIMIT: &str =
    "[[limit]]\nname = 'free'\nper = ['user']\nmeter = 'requests'\nquota = { limit = 1, period = 'year' }\n";

/// An authority that is trusted, another one, and what servers show.
struct Certificates {
    folder: tempfile::TempDir,
    trusted: Authority,
    other: Authority,
}

impl Certificates {
    fn new() -> Self {
        let certificates = Self {
            folder: tempfile::tempdir().unwrap(),
            trusted: Authority::new("trusted"),
            other: Authority::new("other"),
        };
        certificates.trusted.write(&certificates.ca_file());
        certificates.other.write(&certificates.folder.path().join("other.pem"));
        certificates
    }

    fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Which server it is, what it shows, and with what reason it is refused; all are asked for as `localhost`.
    fn refused(&self) -> [(&'static str, Issued, &'static str); 3] {
        [
            ("of another authority", self.other.server(&["localhost", "127.0.0.1"]), "UnknownIssuer"),
            ("of another name", self.trusted.server(&["tacho.example"]), "not valid for name"),
            ("out of time", self.trusted.expired_server(&["localhost", "127.0.0.1"]), "expired"),
        ]
    }

    fn good(&self) -> Issued {
        self.trusted.server(&["localhost", "127.0.0.1"])
    }

    fn target(&self, section: &'static str, url: &str) -> Target {
        let files = CertificateFiles { section, ca_file: Some(self.ca_file()), ..CertificateFiles::default() };
        Target { address: url.into(), files }
    }

    /// As `target`, with a certificate of our own.
    fn known_target(&self, section: &'static str, url: &str, own: &Issued) -> Target {
        let files = own.write(self.folder.path(), "own");
        let mut target = self.target(section, url);
        (target.files.cert_file, target.files.key_file) = (Some(files.certificate), Some(files.key));
        target
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
