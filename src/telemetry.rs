//! Our own logs: their set-up, and errors in one line. They go to standard error; standard output is for what a person asked for.

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

use crate::config::{LogFormat, TelemetryConfig};

/// What is logged, which can be changed later.
#[derive(Clone)]
pub struct Filter(reload::Handle<EnvFilter, Registry>);

impl Filter {
    /// A filter that cannot be read changes nothing.
    pub fn set(&self, config: &TelemetryConfig) -> Result<(), String> {
        let filter = read(config)?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

/// Once a process. A filter that cannot be read is an error of the configuration.
pub(crate) fn start(config: &TelemetryConfig) -> Result<Filter, String> {
    let (filter, handle) = reload::Layer::new(read(config)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|error| error.to_string())?;
    Ok(Filter(handle))
}

fn read(config: &TelemetryConfig) -> Result<EnvFilter, String> {
    EnvFilter::try_new(&config.log).map_err(|error| format!("telemetry.log: {error}"))
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    // Some libraries show their cause as their own text.
    texts.dedup();
    texts.join(": ")
}
