//! What all who call other servers share: addresses, which may hold passwords, secrets that no output may show, and
//! certificates. It opens no connection itself.

mod address;
mod certificates;
mod database;
mod secrets;

pub use address::{Address, Target};
pub use certificates::{CertificateFiles, Certificates, Misconfigured};
pub use database::DatabaseOptions;
pub use secrets::{hide, redact};
