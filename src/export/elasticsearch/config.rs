//! The section `[export.elasticsearch]`.

use std::path::PathBuf;

use reqwest::Url;
use serde::Deserialize;

use crate::export::Start;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ElasticsearchConfig {
    /// The nodes of one cluster, `http://…` or `https://…`. None: nothing is exported.
    pub urls: Vec<Node>,
    /// What the names of the monthly indexes begin with.
    pub index: IndexName,
    /// The data stream for refusals and thresholds.
    pub limits_stream: IndexName,
    pub username: String,
    pub password_file: Option<PathBuf>,
    /// In place of user and password.
    pub api_key_file: Option<PathBuf>,
    /// The certificate of a private authority, PEM.
    pub ca_file: Option<PathBuf>,
    /// Compresses what is sent: a fifth of the bytes for about three times the CPU time.
    pub gzip: bool,
    /// Where a new sink begins: `now`, `all`, or a date.
    pub start: Start,
}

impl Default for ElasticsearchConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            index: IndexName("tacho-usage".to_owned()),
            limits_stream: IndexName("tacho-limits".to_owned()),
            username: String::new(),
            password_file: None,
            api_key_file: None,
            ca_file: None,
            gzip: false,
            start: Start::Now,
        }
    }
}

/// The address of a node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Node(pub(super) Url);

impl TryFrom<String> for Node {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // The text is not repeated: it may hold a password.
        let mut url = Url::parse(&text).map_err(|error| format!("is no URL: {error}"))?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err("a node's URL begins with http:// or https://".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("a node's URL ends with its path".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "a node's URL holds no user or password: use username and password_file, or api_key_file".to_owned()
            );
        }
        // Else the last part of the path would be replaced.
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self(url))
    }
}

/// A name that an index may have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct IndexName(pub(super) String);

impl TryFrom<String> for IndexName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !begins_well || !name.chars().all(is_allowed) || name.len() > 200 {
            return Err(
                "an index is called by lower-case letters, digits, - _ and ., beginning with a letter or digit"
                    .to_owned(),
            );
        }
        Ok(Self(name))
    }
}

impl std::fmt::Display for IndexName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::ops::Deref for IndexName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}
