//! The configuration: the sections of the stages joined into one tree. `tacho.toml` < environment < flags; an unknown key or a
//! wrong value stops the start and names the line or the variable.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::auth::AuthConfig;
use crate::export::ExportConfig;
use crate::ingest::IngestConfig;
use crate::journal::JournalConfig;
use crate::limit::{LimitsConfig, Rules};
use crate::listen::TlsConfig;
use crate::metrics::MetricsConfig;
use crate::notify::NotifyConfig;
use crate::persist::DatabaseConfig;
use tacho_core::assemble::AssembleConfig;
use tacho_core::domain::plan::Plans;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The embedded database and what else must survive a restart.
    pub data_dir: PathBuf,
    pub listen: ListenConfig,
    pub auth: AuthConfig,
    pub tls: TlsConfig,
    pub database: DatabaseConfig,
    pub ingest: IngestConfig,
    pub journal: JournalConfig,
    pub assemble: AssembleConfig,
    pub prices: PricesConfig,
    pub plans: Plans,
    pub metrics: MetricsConfig,
    pub privacy: PrivacyConfig,
    pub telemetry: TelemetryConfig,
    pub limits: LimitsConfig,
    pub notify: NotifyConfig,
    pub export: ExportConfig,
    #[serde(rename = "limit")]
    pub rules: Rules,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "./tacho-data".into(),
            listen: ListenConfig::default(),
            auth: AuthConfig::default(),
            tls: TlsConfig::default(),
            database: DatabaseConfig::default(),
            ingest: IngestConfig::default(),
            journal: JournalConfig::default(),
            assemble: AssembleConfig::default(),
            prices: PricesConfig::default(),
            plans: Plans::default(),
            metrics: MetricsConfig::default(),
            privacy: PrivacyConfig::default(),
            telemetry: TelemetryConfig::default(),
            limits: LimitsConfig::default(),
            notify: NotifyConfig::default(),
            export: ExportConfig::default(),
            rules: Rules::default(),
        }
    }
}

/// Port 0 picks a free one; `<data_dir>/listen.json` tells which.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    pub otlp_grpc: String,
    pub otlp_http: String,
    pub http: String,
    /// Of the metrics and the health, if they are to have one of their own; else they are served with `http`.
    pub metrics: String,
    /// Most connections of each listener. One more ends one that was idle, of strangers first.
    pub max_connections: NonZeroUsize,
}

impl Default for ListenConfig {
    /// Loopback: a sidecar's bot is on the same host, and spans are nobody else's business.
    fn default() -> Self {
        let local = |port| format!("127.0.0.1:{port}");
        Self {
            otlp_grpc: local(4317),
            otlp_http: local(4318),
            http: local(9464),
            metrics: String::new(),
            max_connections: const { NonZeroUsize::new(1024).expect("a bound is no zero") },
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PricesConfig {
    /// Own prices, added to the shipped list or replacing parts of it.
    #[serde(rename = "override")]
    pub override_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrivacyConfig {
    /// Keep error messages, which may quote content; otherwise only their types.
    pub error_messages: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// A filter of `tracing`: `info`, `tacho=debug`.
    pub log: String,
    pub log_format: LogFormat,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log: "info".to_owned(), log_format: LogFormat::Text }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: cannot be read")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {problem}")]
    File { path: PathBuf, problem: String },
    #[error("environment variable {name}: {problem}")]
    Variable { name: String, problem: String },
}

/// What begins so in the environment is ours; `__` stands between section and key.
const PREFIX: &str = "TACHO_";
/// The same prefix, but not settings: the cache folder of the tests and the configuration file's path.
const NO_SETTINGS: [&str; 2] = ["TACHO_CACHE", "TACHO_CONFIG"];

impl Config {
    /// Reads the file, if there is one, and lays the environment over it.
    pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut table = match file {
            Some(path) => read_file(path)?,
            None => toml::Table::new(),
        };
        let mut settings: Vec<_> =
            environment.filter(|(name, _)| name.starts_with(PREFIX) && !NO_SETTINGS.contains(&name.as_str())).collect();
        settings.sort();
        for (name, value) in settings {
            overlay(&mut table, &name, &value)?;
        }
        // Every part was checked where it came from, so what is left to fail is the whole.
        Self::deserialize(table).map_err(|error| ConfigError::File {
            path: file.unwrap_or(Path::new("environment")).to_owned(),
            problem: error.to_string(),
        })
    }

    /// The configured URL, else the embedded database in the data folder.
    pub fn database_url(&self) -> String {
        let embedded = || format!("sqlite:{}", self.data_dir.join("tacho.db").display());
        self.database.url.clone().unwrap_or_else(embedded)
    }
}

fn read_file(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let problem = |error: toml::de::Error| ConfigError::File { path: path.to_owned(), problem: error.to_string() };
    // First as the typed tree, whose errors point at the line.
    toml::from_str::<Config>(&text).map_err(problem)?;
    toml::from_str(&text).map_err(problem)
}

/// Sets one value by the name of its variable. It is read as TOML where it is TOML (numbers, lists), else as text.
fn overlay(table: &mut toml::Table, name: &str, value: &str) -> Result<(), ConfigError> {
    let path: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
    let as_toml =
        toml::from_str::<toml::Table>(&format!("value = {value}")).ok().and_then(|mut table| table.remove("value"));
    let as_text = toml::Value::String(value.to_owned());
    let candidates = as_toml.into_iter().chain([as_text]);
    let mut problem = String::new();
    for candidate in candidates {
        match Config::deserialize(nested(&path, candidate.clone())) {
            Ok(_) => {
                merge(table, nested(&path, candidate));
                return Ok(());
            }
            Err(error) if problem.is_empty() => problem = error.to_string().trim().to_owned(),
            Err(_) => {}
        }
    }
    Err(ConfigError::Variable { name: name.to_owned(), problem })
}

fn nested(path: &[String], value: toml::Value) -> toml::Table {
    let (first, rest) = path.split_first().expect("a name split at a separator has a first part");
    let inner = if rest.is_empty() { value } else { toml::Value::Table(nested(rest, value)) };
    toml::Table::from_iter([(first.clone(), inner)])
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => merge(inner, value),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_environment(settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::load(None, settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn the_environment_is_read_as_toml_or_as_text() {
        let config = with_environment(&[
            ("TACHO_DATA_DIR", "/x"),
            ("TACHO_LISTEN__OTLP_GRPC", "127.0.0.1:0"),
            ("TACHO_ASSEMBLE__QUIET", "250ms"),
            ("TACHO_ASSEMBLE__IGNORE", "[]"),
            ("TACHO_PRIVACY__ERROR_MESSAGES", "true"),
            ("TACHO_CACHE", "/not/a/setting"),
        ])
        .unwrap();
        assert_eq!(config.database_url(), "sqlite:/x/tacho.db");
        assert_eq!(config.listen.otlp_grpc, "127.0.0.1:0");
        assert_eq!(config.assemble.quiet, std::time::Duration::from_millis(250));
        assert!(config.assemble.ignore.is_empty() && config.privacy.error_messages);
    }

    #[test]
    fn a_bad_variable_is_named() {
        let error = with_environment(&[("TACHO_ASSEMBLE__QUITE", "2s")]).unwrap_err().to_string();
        assert!(error.starts_with("environment variable TACHO_ASSEMBLE__QUITE: unknown field"), "{error}");
        let error = with_environment(&[("TACHO_ASSEMBLE__QUIET", "soon")]).unwrap_err().to_string();
        assert!(error.contains("TACHO_ASSEMBLE__QUIET"), "{error}");
    }

    #[test]
    fn an_unknown_key_in_the_file_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tacho.toml");
        std::fs::write(&path, "data_dir = \"/y\"\n[assemble]\nquite = \"2s\"\n").unwrap();
        let error = Config::load(Some(&path), std::iter::empty()).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("quite"), "{error}");
    }

    #[test]
    fn a_journal_too_small_for_a_body_is_refused() {
        let error = with_environment(&[("TACHO_JOURNAL__MAX_SIZE", "10kB")]).unwrap_err().to_string();
        assert!(error.contains("TACHO_JOURNAL__MAX_SIZE: must be at least 1.0 MiB"), "{error}");
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tacho.toml");
        std::fs::write(&path, "[assemble]\nquiet = \"9s\"\nmax_age = \"1h\"\n").unwrap();
        let environment = [("TACHO_ASSEMBLE__QUIET".to_owned(), "1s".to_owned())];
        let config = Config::load(Some(&path), environment.into_iter()).unwrap();
        assert_eq!((config.assemble.quiet.as_secs(), config.assemble.max_age.as_secs()), (1, 3600));
    }
}
