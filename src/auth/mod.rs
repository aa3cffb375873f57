//! Who may come in. A guard looks at every request on every listener: at the host it names, whether a page in a browser
//! made it, and at the token where its role needs one. It never reads a body, and keeps of a token nothing but its
//! hash.

mod file;
mod guard;
mod hosts;
mod layer;
mod problem;
mod refusal;
#[cfg(test)]
mod tests;
mod token;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use file::{BadTokens, Entry, TokensFile, admin_token, admin_token_path};
pub use guard::{Caller, Connection, Guard, Need, Rules};
pub use hosts::Host;
pub use layer::Guarded;
pub use problem::{problem, wrong_method};
use refusal::Refused;
pub use token::{NoToken, Token, TokenHash};

/// What a token is for. Each role includes nothing of the others but `admin`, which has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Send spans.
    Ingest,
    /// Ask before a request, settle and release.
    Check,
    /// Read usage, accounts, limits and metrics.
    Read,
    /// Set plans and reset accounts.
    Admin,
}

impl Role {
    pub fn label(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Check => "check",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    fn includes(self, other: Self) -> bool {
        self == other || self == Self::Admin
    }
}

/// The section `[auth]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Roles that need no token on a loopback address.
    pub loopback: Vec<FreeRole>,
    /// Hashes of tokens, as `tacho token` writes them; by default `tokens.toml` in the data folder.
    pub tokens_file: PathBuf,
    /// Takes every address for a loopback one: a listener beyond may start without tokens.
    pub insecure: bool,
    /// Names by which Tacho may be called, beside addresses and `localhost`.
    pub hosts: Vec<Host>,
    /// Requests a second, and as many at once, for each token.
    #[serde(deserialize_with = "at_least_one")]
    pub requests_per_second: u32,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            loopback: vec![FreeRole::Ingest, FreeRole::Check],
            tokens_file: PathBuf::new(),
            insecure: false,
            hosts: Vec::new(),
            // Far above what bots and dashboards ask, far below what would keep a core busy.
            requests_per_second: 2_000,
        }
    }
}

impl AuthConfig {
    pub fn tokens_path(&self, data_dir: &Path) -> PathBuf {
        if self.tokens_file.as_os_str().is_empty() { data_dir.join("tokens.toml") } else { self.tokens_file.clone() }
    }
}

fn at_least_one<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = u32::deserialize(deserializer)?;
    if number > 0 { Ok(number) } else { Err(serde::de::Error::custom("must be at least 1")) }
}

/// A role that may be had without a token. `read` and `admin` never are: a bot that fetches addresses could be talked
/// into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FreeRole {
    Ingest,
    Check,
}

impl FreeRole {
    fn role(self) -> Role {
        match self {
            Self::Ingest => Role::Ingest,
            Self::Check => Role::Check,
        }
    }
}
