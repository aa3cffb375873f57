//! Notices that must not wait for a scrape: a budget that is used up is told to Alertmanager at once, again while it lasts, and when
//! it is over. It knows no limit and reads no clock: `app` tells it what was seen and when. Nothing waits for it, and nothing is
//! kept over a restart: what is still used up then is told again when it is next seen.

mod alert;
mod board;
mod push;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::remote::Address;

pub(crate) use alert::{Alert, Stand, Unit};
pub(crate) use board::{Board, Budget, Found, MOST, Seen};
pub(crate) use push::{NotBuilt, Pushes, check, pushes};

/// The section `[notify]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotifyConfig {
    /// Every one of them is told everything, as the replicas of a cluster want it. None: nothing is told.
    pub alertmanager_urls: Vec<Endpoint>,
    /// Of a private certificate authority, PEM, beside those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// How often a notice that still holds is looked at and told again.
    #[serde(deserialize_with = "resend_interval")]
    pub resend_interval: Duration,
}

impl Default for NotifyConfig {
    /// As often as Prometheus, which does it for the same reason: an Alertmanager that was away must hear of what lasts.
    fn default() -> Self {
        Self { alertmanager_urls: Vec::new(), ca_file: None, resend_interval: Duration::from_secs(60) }
    }
}

/// Shorter would be a load for the store of limits, longer would leave notices standing for hours after Tacho is gone.
const RESEND: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);

fn resend_interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let interval = humantime_serde::deserialize(deserializer)?;
    if RESEND.contains(&interval) { Ok(interval) } else { Err(D::Error::custom("must be between 1s and 1h")) }
}

/// Where an Alertmanager listens, as its own `--web.external-url` says: `http://alertmanager:9093`, `https://ops/alertmanager`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoint(Url);

/// The text is not repeated: it may hold a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    #[error("is no URL: {0}")]
    NoUrl(String),
    #[error("a URL of an Alertmanager begins with http:// or https://")]
    Scheme,
    #[error("a URL of an Alertmanager ends with its path")]
    Rest,
}

impl TryFrom<String> for Endpoint {
    type Error = BadEndpoint;

    fn try_from(text: String) -> Result<Self, BadEndpoint> {
        let url = Url::parse(&text).map_err(|error| BadEndpoint::NoUrl(error.to_string()))?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(BadEndpoint::Scheme);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BadEndpoint::Rest);
        }
        // Hides its password in all that is said.
        drop(Address::from(text));
        Ok(Self(url))
    }
}

impl Endpoint {
    fn alerts(&self) -> Url {
        let mut url = self.0.clone();
        let path = format!("{}/api/v2/alerts", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }
}

/// Without a user and a password, which a URL may hold.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.0;
        write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(url.path().trim_end_matches('/'))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
