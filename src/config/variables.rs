//! The environment: which variables are settings, and what each of them says. Every variable whose name begins as
//! ours do is a setting, unless this file knows who else makes it: a name that nobody knows stops the start, as it is
//! probably misspelt.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};

use super::ConfigError;

/// What begins so in the environment is ours; `__` stands between section and key.
pub(super) const PREFIX: &str = "TACHO_";
/// The same prefix, but not settings: the cache folder of the tests and the configuration file's path.
const NO_SETTINGS: [&str; 2] = ["TACHO_CACHE", "TACHO_CONFIG"];
/// Read by the client in deploy/python, which may share the environment with us.
const OF_THE_CLIENT: [&str; 2] = ["TACHO_URL", "TACHO_TOKEN"];
/// Behind the name of a setting: the variable names a file that holds the value.
const FILE: &str = "_FILE";

#[derive(Debug, Default)]
pub(super) struct Variables {
    /// Names and values, in the order of the names.
    pub settings: Vec<(String, String)>,
    /// Names of those that others made for their own use.
    pub passed_over: Vec<String>,
}

impl Variables {
    /// Only variables with our prefix need to be valid Unicode.
    pub(super) fn read(environment: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, ConfigError> {
        let mut variables = Self::default();
        let ours = environment.filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
        for (name, value) in ours {
            let unreadable = || ConfigError::Variable {
                name: name.to_string_lossy().into_owned(),
                problem: "is not valid Unicode".to_owned(),
            };
            let name = name.to_str().ok_or_else(unreadable)?;
            if NO_SETTINGS.contains(&name) {
                continue;
            }
            if OF_THE_CLIENT.contains(&name) {
                variables.passed_over.push(name.to_owned());
                continue;
            }
            let value = value.to_str().ok_or_else(unreadable)?;
            if is_of_kubernetes(name, value) {
                variables.passed_over.push(name.to_owned());
            } else {
                variables.settings.push((name.to_owned(), value.to_owned()));
            }
        }
        variables.settings.sort();
        variables.passed_over.sort();
        Ok(variables)
    }
}

/// Of `TACHO_DATABASE__URL_FILE`, the setting `TACHO_DATABASE__URL`.
pub(super) fn setting_of_file(name: &str) -> Option<&str> {
    name.strip_suffix(FILE).filter(|setting| setting.len() > PREFIX.len())
}

/// What the file holds, without the end of its last line. No error repeats any of it.
pub(super) fn value_of_file(name: &str, path: &str) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path);
    let text =
        text.map_err(|error| ConfigError::Variable { name: name.to_owned(), problem: format!("{path}: {error}") })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Kubernetes gives a container variables that say where the Services of its namespace are: `TACHO_SERVICE_HOST` for
/// one named `tacho`, `TACHO_METRICS_PORT_9465_TCP_ADDR` for `tacho-metrics`. We know them by name and value
/// together, so that a misspelt `TACHO_LISTEN_PORT=9464` is none. None has `__` in its name, and no setting at the
/// top of the tree has such a name.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    let is_port = || value.parse::<u16>().is_ok();
    let is_host = || value.parse::<IpAddr>().is_ok();
    let named_port = || words.windows(3).any(|three| three[..2] == ["SERVICE", "PORT"]);
    match words[..] {
        _ if words.contains(&"") => false,
        [.., "SERVICE", "HOST"] => is_host(),
        [.., "SERVICE", "PORT"] => is_port(),
        [.., "PORT", port, protocol] if is_end(port, protocol) => is_address(value),
        [.., "PORT", port, protocol, "PROTO"] if is_end(port, protocol) => value.eq_ignore_ascii_case(protocol),
        [.., "PORT", port, protocol, "PORT"] if is_end(port, protocol) => value == port,
        [.., "PORT", port, protocol, "ADDR"] if is_end(port, protocol) => is_host(),
        _ if named_port() => is_port(),
        [.., "PORT"] => is_address(value),
        _ => false,
    }
}

/// `4317` and `TCP`.
fn is_end(port: &str, protocol: &str) -> bool {
    port.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].contains(&protocol)
}

/// `tcp://10.0.0.1:4317`.
fn is_address(value: &str) -> bool {
    let (protocol, address) = value.split_once("://").unwrap_or_default();
    ["tcp", "udp", "sctp"].contains(&protocol) && address.parse::<SocketAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_makes_is_known_by_name_and_value() {
        let made = [
            ("TACHO_SERVICE_HOST", "10.96.0.7"),
            ("TACHO_SERVICE_HOST", "fd00::7"),
            ("TACHO_SERVICE_PORT", "4317"),
            ("TACHO_SERVICE_PORT_OTLP_GRPC", "4317"),
            ("TACHO_PORT", "tcp://10.96.0.7:4317"),
            ("TACHO_PORT", "tcp://[fd00::7]:4317"),
            ("TACHO_PORT_4317_TCP", "tcp://10.96.0.7:4317"),
            ("TACHO_PORT_4317_TCP_PROTO", "tcp"),
            ("TACHO_PORT_4317_TCP_PORT", "4317"),
            ("TACHO_PORT_4317_TCP_ADDR", "10.96.0.7"),
            ("TACHO_PORT_53_UDP", "udp://10.96.0.7:53"),
            ("TACHO_PORT_53_SCTP_PROTO", "sctp"),
            ("TACHO_METRICS_SERVICE_HOST", "10.96.0.8"),
            ("TACHO_METRICS_SERVICE_PORT_HTTP", "9465"),
            ("TACHO_METRICS_PORT", "tcp://10.96.0.8:9465"),
            ("TACHO_METRICS_PORT_9465_TCP_ADDR", "10.96.0.8"),
        ];
        for (name, value) in made {
            assert!(is_of_kubernetes(name, value), "{name}={value}");
        }
        let others = [
            ("TACHO_DATADIR", "/x"),
            ("TACHO_DATA_DIR", "/x"),
            ("TACHO_PORT", "4317"),
            ("TACHO_LISTEN_PORT", "9464"),
            ("TACHO_HTTP_PORT", "127.0.0.1:9464"),
            ("TACHO_SERVICE_HOST", "localhost"),
            ("TACHO_SERVICE_PORT", "tcp"),
            ("TACHO_SERVICE_PORTS", "4317"),
            ("TACHO_PORT_4317_TCP_PORT", "4318"),
            ("TACHO_PORT_HTTP_TCP_ADDR", "10.96.0.7"),
            ("TACHO_LISTEN__SERVICE_PORT", "4317"),
            ("TACHO_LISTEN__PORT", "tcp://10.96.0.7:4317"),
        ];
        for (name, value) in others {
            assert!(!is_of_kubernetes(name, value), "{name}={value}");
        }
    }
}
