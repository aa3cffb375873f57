//! `tacho healthcheck`: asks the Tacho that runs with this configuration whether it is ready. For the health check of a
//! container image that has no other program in it, and for scripts.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use reqwest::{Client, redirect};
use serde::Deserialize;

use crate::config::Config;

/// For all of it. The container engine waits two seconds longer for the whole command.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub(super) enum NotHealthy {
    #[error("{0} is not an address like 127.0.0.1:9464")]
    Address(String),
    #[error("client cannot be made")]
    Client(#[source] reqwest::Error),
    #[error("no answer from {url}: tacho does not run here, or listens elsewhere")]
    NoAnswer { url: String, source: reqwest::Error },
    #[error("{url} answers {status}: {reason}")]
    NotReady { url: String, status: u16, reason: String },
}

/// Of `listen.json`, what is asked for here.
#[derive(Deserialize)]
struct Told {
    http: String,
}

/// Of an answer that is none, why.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

/// Says who is ready; an error says who is not, and why.
pub(super) async fn healthcheck(config: &Config) -> Result<String, NotHealthy> {
    let address = told(&config.data_dir).unwrap_or_else(|| config.listen.http.clone());
    let url = url(&local(&address).await?, config.tls.is_on());
    // Another part of the house may have done so before; it can only be the same one.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = Client::builder()
        .timeout(TIMEOUT)
        .no_proxy()
        .redirect(redirect::Policy::none())
        // It asks itself, on this host, so a certificate would prove nothing, and roots need not be read.
        .danger_accept_invalid_certs(true)
        .tls_built_in_root_certs(false)
        .build()
        .map_err(NotHealthy::Client)?;
    let no_answer = |source: reqwest::Error| NotHealthy::NoAnswer { url: url.clone(), source: source.without_url() };
    let answer = client.get(&url).send().await.map_err(no_answer)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(format!("{url} is ready"));
    }
    let problem: Problem = answer.json().await.map_err(no_answer)?;
    Err(NotHealthy::NotReady { url, status: status.as_u16(), reason: problem.detail })
}

/// The one place that knows how our own listener is spoken to.
fn url(address: &SocketAddr, has_tls: bool) -> String {
    let scheme = if has_tls { "https" } else { "http" };
    format!("{scheme}://{address}/readyz")
}

/// Where the one that runs says it listens. It stays behind after a stop, and then nobody answers there.
fn told(data_dir: &Path) -> Option<String> {
    let text = std::fs::read(data_dir.join("listen.json")).ok()?;
    serde_json::from_slice(&text).ok().map(|told: Told| told.http)
}

/// The address as it is reached from this host: who listens everywhere also listens on loopback.
async fn local(address: &str) -> Result<SocketAddr, NotHealthy> {
    let mut found = tokio::net::lookup_host(address).await.map_err(|_| NotHealthy::Address(address.to_owned()))?;
    let mut address = found.next().ok_or_else(|| NotHealthy::Address(address.to_owned()))?;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(address: &str, expected: &str) {
        let found = local(address).await.map(|address| url(&address, false)).unwrap_or_else(|error| error.to_string());
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn who_listens_everywhere_is_asked_on_loopback() {
        check("0.0.0.0:9464", "http://127.0.0.1:9464/readyz").await;
        check("[::]:9464", "http://[::1]:9464/readyz").await;
        check("127.0.0.2:1", "http://127.0.0.2:1/readyz").await;
        check("9464", "9464 is not an address like 127.0.0.1:9464").await;
    }

    #[test]
    fn the_address_of_the_one_that_runs_is_read_from_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(told(folder.path()), None);
        let text = r#"{"otlp_grpc": "127.0.0.1:1", "otlp_http": "127.0.0.1:2", "http": "127.0.0.1:3"}"#;
        std::fs::write(folder.path().join("listen.json"), text).unwrap();
        assert_eq!(told(folder.path()).as_deref(), Some("127.0.0.1:3"));
    }
}
