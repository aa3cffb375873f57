//! Our own logs: their set-up. They go to standard error; standard output is for what a person asked for.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, TelemetryConfig};

/// Once a process. A filter that cannot be read is an error of the configuration.
pub fn start(config: &TelemetryConfig) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| format!("telemetry.log: {error}"))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Text => logs.with_ansi(false).try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    started.map_err(|error| error.to_string())
}
