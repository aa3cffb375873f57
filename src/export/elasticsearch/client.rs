//! The client of the cluster: which node is asked, as whom, and with media types that every version takes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use elasticsearch::auth::Credentials;
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::headers::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use elasticsearch::http::transport::{MultiNodeConnectionPool, Transport, TransportBuilder};
use elasticsearch::http::{Method, Url};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::ElasticsearchConfig;
use crate::export::pace::Hold;
use crate::remote::{CertificateFiles, hide};
use crate::telemetry::chain;

/// For a bulk request; its documents are sent again after that.
const TIMEOUT: Duration = Duration::from_secs(60);
/// For a question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// All that is looked at. Of items that were taken only the status comes back.
const FILTER: [(&str, &str); 1] =
    [("filter_path", "error,status,items.*.status,items.*.error.type,items.*.error.reason,items.*.failure_store")];

pub(super) struct Client {
    transport: Transport,
    config: Arc<ElasticsearchConfig>,
}

/// What a node has answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Client {
    pub(super) fn new(config: &ElasticsearchConfig) -> Result<Self, String> {
        // Another part of the house may have done so before; it can only be the same one.
        drop(rustls::crypto::ring::default_provider().install_default());
        let nodes: Vec<Url> = config.urls.iter().map(|node| node.0.clone()).collect();
        let mut builder = TransportBuilder::new(MultiNodeConnectionPool::round_robin(nodes, None))
            // What is configured is where it goes, whatever proxy the environment names.
            .disable_proxy()
            .enable_meta_header(false)
            .timeout(TIMEOUT);
        if let Some(credentials) = credentials(config)? {
            builder = builder.auth(credentials);
        }
        let ca_file = config.ca_file.clone();
        let files = CertificateFiles { section: "export.elasticsearch", ca_file, ..CertificateFiles::default() };
        if let Some(pem) = files.read().map_err(|error| error.to_string())?.authority {
            if config.urls.iter().any(|node| node.0.scheme() != "https") {
                return Err(files.problem("ca_file", "needs https:// in each of urls").to_string());
            }
            let certificate = Certificate::from_pem(&pem).map_err(|error| error.to_string())?;
            builder = builder.cert_validation(CertificateValidation::Full(certificate));
        }
        let transport = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { transport, config: Arc::new(config.clone()) })
    }

    pub(super) async fn bulk(&self, documents: &[Bytes]) -> Result<Answer, Hold> {
        let mut body = documents.concat();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        if self.config.gzip {
            body = compressed(body).await?;
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        self.ask(Method::Post, "/_bulk", headers, Some(body.into()), TIMEOUT).await
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, Hold> {
        self.ask(Method::Get, path, HeaderMap::new(), None, QUESTION_TIMEOUT).await
    }

    pub(super) async fn put(&self, path: &str, body: Vec<u8>) -> Result<Answer, Hold> {
        self.ask(Method::Put, path, HeaderMap::new(), Some(body.into()), QUESTION_TIMEOUT).await
    }

    /// Asks the nodes in turn until one can be reached. Whatever it answers is an answer.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Option<Bytes>,
        timeout: Duration,
    ) -> Result<Answer, Hold> {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut last = None;
        for _ in &self.config.urls {
            let filter = (path == "/_bulk").then_some(&FILTER);
            let (headers, body) = (headers.clone(), body.clone());
            match self.transport.send(method, path, headers, filter, body, Some(timeout)).await {
                Ok(response) => {
                    let status = response.status_code().as_u16();
                    if status == 401 {
                        // The key may have been replaced meanwhile.
                        self.read_credentials();
                    }
                    let body = response.bytes().await.map_err(|error| Hold::Away(chain(&error)))?;
                    return Ok(Answer { status, body });
                }
                Err(error) => last = Some(chain(&error)),
            }
        }
        Err(Hold::Away(last.unwrap_or_default()))
    }

    fn read_credentials(&self) {
        match credentials(&self.config) {
            Ok(Some(credentials)) => self.transport.set_auth(credentials),
            Ok(None) => {}
            Err(error) => tracing::warn!(error, "credentials of the sink cannot be read again"),
        }
    }
}

/// Quick rather than small: most of the bytes go at the lowest level.
async fn compressed(body: Vec<u8>) -> Result<Vec<u8>, Hold> {
    let compress = move || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
        std::io::Write::write_all(&mut encoder, &body).and_then(|()| encoder.finish())
    };
    let done = tokio::task::spawn_blocking(compress).await.map_err(std::io::Error::other);
    done.and_then(|done| done).map_err(|error| Hold::Away(error.to_string()))
}

fn credentials(config: &ElasticsearchConfig) -> Result<Option<Credentials>, String> {
    if let Some(path) = named(&config.api_key_file) {
        let key = text(path)?;
        return Ok(Some(match key.split_once(':') {
            Some((id, secret)) => Credentials::ApiKey(id.to_owned(), secret.to_owned()),
            None => Credentials::EncodedApiKey(key),
        }));
    }
    if config.username.is_empty() {
        return Ok(None);
    }
    let password = named(&config.password_file).map(text).transpose()?.unwrap_or_default();
    Ok(Some(Credentials::Basic(config.username.clone(), password)))
}

/// An empty name is none.
fn named(path: &Option<PathBuf>) -> Option<&Path> {
    path.as_deref().filter(|path| !path.as_os_str().is_empty())
}

fn text(path: &Path) -> Result<String, String> {
    let text = String::from_utf8(read(path)?).map_err(|_| format!("{} holds no text", path.display()))?;
    let text = text.trim().to_owned();
    hide(&text);
    // Of a key's name and secret, as well the secret alone.
    text.split_once(':').into_iter().for_each(|(_, secret)| hide(secret));
    Ok(text)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
