//! The configuration: the sections of the stages joined into one tree. `tacho.toml` < environment < flags; an unknown
//! key or a wrong value stops the start and names the line or the variable.

mod problem;
mod variables;

use std::ffi::OsString;
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
use crate::remote::Target;
use tacho_core::assemble::AssembleConfig;
use tacho_core::domain::plan::Plans;
use variables::{PREFIX, Variables};

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
    /// Names of variables that begin as ours do, but which others made: Kubernetes, or whoever configured a client.
    #[serde(skip)]
    pub passed_over: Vec<String>,
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
            passed_over: Vec::new(),
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

impl Config {
    /// Reads the file, if there is one, and lays the environment over it.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut table = match file {
            Some(path) => read_file(path)?,
            None => toml::Table::new(),
        };
        let Variables { settings, passed_over } = Variables::read(environment)?;
        for (name, value) in &settings {
            match setting_in_file(name, value) {
                Some(setting) => overlay_from_file(&mut table, &settings, (name, value), setting)?,
                None => overlay(&mut table, name, value)?,
            }
        }
        // Every part was checked where it came from, so what is left to fail is the whole.
        let config = read(table).map_err(|problem| ConfigError::File {
            path: file.unwrap_or(Path::new("environment")).to_owned(),
            problem,
        })?;
        Ok(Self { passed_over, ..config })
    }

    /// The configured database, else the embedded one in the data folder.
    pub fn database(&self) -> Target {
        let embedded = || format!("sqlite:{}", self.data_dir.join("tacho.db").display()).into();
        let address = self.database.url.clone().unwrap_or_else(embedded);
        Target { address, files: self.database.certificate_files() }
    }
}

fn read_file(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let fault = |problem| ConfigError::File { path: path.to_owned(), problem };
    let table = toml::from_str(&text).map_err(|error| fault(problem::in_text(&error, &text, &toml::Table::new())))?;
    // Once more as the typed tree, whose errors point at the line.
    toml::from_str::<Config>(&text).map_err(|error| fault(problem::in_text(&error, &text, &table)))?;
    Ok(table)
}

/// The whole of it, or what is wrong with it.
fn read(table: toml::Table) -> Result<Config, String> {
    Config::deserialize(table.clone()).map_err(|error| problem::in_table(&error, &table))
}

/// The setting whose value lies in a file that this variable names, as official images of databases have it: the value
/// of `TACHO_DATABASE__URL_FILE` is a path. Where a key of that name exists (`password_file`), the variable is that
/// key.
fn setting_in_file<'a>(name: &'a str, value: &str) -> Option<&'a str> {
    let setting = variables::setting_of_file(name)?;
    let is_key = |name: &str| match overlay(&mut toml::Table::new(), name, value) {
        Ok(()) => true,
        Err(error) => !error.to_string().contains("unknown field"),
    };
    (!is_key(name) && is_key(setting)).then_some(setting)
}

/// Sets one value by what lies in a file. No error shows it, as it is probably secret.
fn overlay_from_file(
    table: &mut toml::Table,
    settings: &[(String, String)],
    (name, path): (&str, &str),
    setting: &str,
) -> Result<(), ConfigError> {
    let refused = |problem| ConfigError::Variable { name: name.to_owned(), problem };
    if settings.iter().any(|(other, _)| other == setting) {
        return Err(refused(format!("{setting} is set as well; only one of them can be")));
    }
    // An empty name of a file is none.
    if path.is_empty() {
        return Ok(());
    }
    let value = variables::value_of_file(name, path)?;
    overlay(table, setting, &value).map_err(|_| refused(format!("what {path} holds is no value for {setting}")))
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
        match read(nested(&path, candidate.clone())) {
            Ok(_) => {
                merge(table, nested(&path, candidate));
                return Ok(());
            }
            Err(error) if problem.is_empty() => problem = error,
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
        Config::load(None, settings.iter().map(|(name, value)| (name.into(), value.into())))
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
        assert_eq!(config.database().address.expose(), "sqlite:/x/tacho.db");
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
        let environment = [("TACHO_ASSEMBLE__QUIET".into(), "1s".into())];
        let config = Config::load(Some(&path), environment.into_iter()).unwrap();
        assert_eq!((config.assemble.quiet.as_secs(), config.assemble.max_age.as_secs()), (1, 3600));
    }

    #[test]
    fn what_others_put_into_the_environment_is_passed_over_and_typing_errors_are_not() {
        let config = with_environment(&[
            ("TACHO_URL", "http://127.0.0.1:9464"),
            ("TACHO_PORT", "tcp://10.96.0.7:4317"),
            ("TACHO_METRICS_SERVICE_HOST", "10.96.0.8"),
            ("TACHO_ASSEMBLE__QUIET", "1s"),
        ])
        .unwrap();
        assert_eq!(config.passed_over, ["TACHO_METRICS_SERVICE_HOST", "TACHO_PORT", "TACHO_URL"]);
        assert_eq!(config.assemble.quiet.as_secs(), 1);
        for misspelt in ["TACHO_DATADIR", "TACHO_ASSEMBLE_QUIET", "TACHO_LISTEN_PORT", "TACHO_PORT"] {
            let error = with_environment(&[(misspelt, "9464")]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("environment variable {misspelt}: unknown field")), "{error}");
        }
    }

    #[test]
    fn no_key_at_the_top_is_named_like_a_variable_of_kubernetes() {
        let error = toml::from_str::<Config>("x = 1").unwrap_err().to_string();
        let keys: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert!(keys.contains(&"data_dir") && keys.contains(&"listen"), "{error}");
        let mut words = keys.iter().flat_map(|key| key.split('_'));
        assert!(words.all(|word| word != "port" && word != "service"), "{keys:?}");
    }

    #[test]
    fn only_our_variables_must_be_unicode() {
        use std::os::unix::ffi::OsStringExt as _;
        let broken = || OsString::from_vec(vec![b'x', 0xff]);
        let load = |name: OsString, value: OsString| Config::load(None, std::iter::once((name, value)));
        assert!(load("OTHER".into(), broken()).is_ok() && load(broken(), "x".into()).is_ok());
        let error = load("TACHO_DATA_DIR".into(), broken()).unwrap_err().to_string();
        assert_eq!(error, "environment variable TACHO_DATA_DIR: is not valid Unicode");
        let name = OsString::from_vec(b"TACHO_\xff".to_vec());
        let error = load(name, "x".into()).unwrap_err().to_string();
        assert_eq!(error, "environment variable TACHO_\u{fffd}: is not valid Unicode");
    }

    #[test]
    fn a_value_can_lie_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("url"), "postgres://tacho:secret@db/tacho\n").unwrap();
        std::fs::write(path("quiet"), "250ms").unwrap();
        let (url, quiet, none) = (path("url"), path("quiet"), path("none"));
        let config = with_environment(&[
            ("TACHO_DATABASE__URL_FILE", &url),
            ("TACHO_ASSEMBLE__QUIET_FILE", &quiet),
            ("TACHO_LIMITS__URL_FILE", ""),
            // A key of its own: the path is the value.
            ("TACHO_EXPORT__ELASTICSEARCH__PASSWORD_FILE", &none),
        ])
        .unwrap();
        assert_eq!(config.database().address.expose(), "postgres://tacho:secret@db/tacho");
        assert_eq!(config.assemble.quiet, std::time::Duration::from_millis(250));
        assert_eq!(config.limits.url.expose(), "redis://127.0.0.1:6379");
        assert!(format!("{:?}", config.export).contains(&none));

        let complaint = |settings: &[(&str, &str)]| with_environment(settings).unwrap_err().to_string();
        let both = complaint(&[("TACHO_DATABASE__URL", "sqlite:x"), ("TACHO_DATABASE__URL_FILE", &url)]);
        let said = "environment variable TACHO_DATABASE__URL_FILE: TACHO_DATABASE__URL is set as well; only one of them can be";
        assert_eq!(both, said);
        let missing = complaint(&[("TACHO_DATABASE__URL_FILE", &none)]);
        assert!(
            missing.starts_with(&format!("environment variable TACHO_DATABASE__URL_FILE: {none}: No such")),
            "{missing}"
        );
        let wrong = complaint(&[("TACHO_ASSEMBLE__QUIET_FILE", &url)]);
        assert!(wrong.contains("is no value for TACHO_ASSEMBLE__QUIET") && !wrong.contains("secret"), "{wrong}");
        let misspelt = complaint(&[("TACHO_ASSEMBLE__QUITE_FILE", &quiet)]);
        assert!(misspelt.contains("TACHO_ASSEMBLE__QUITE_FILE: unknown field `quite_file`"), "{misspelt}");
    }
}
