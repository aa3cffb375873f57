//! Our own logs: their set-up, and errors in one line. They go to standard error; standard output is for what a person
//! asked for.

use std::backtrace::BacktraceStatus;
use std::io::{self, Write as _};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

use crate::config::{LogFormat, TelemetryConfig};
use crate::remote::redact;

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
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Redacted);
    let lines = match config.log_format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|error| error.to_string())?;
    Ok(Filter(handle))
}

/// Standard error without the secrets that are known, whichever crate logs them at whichever level.
struct Redacted;

impl io::Write for Redacted {
    /// A line comes as a whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(redact(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A panic is told as the standard library tells it, without the secrets that are known.
pub(crate) fn redact_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let trace = std::backtrace::Backtrace::capture();
        let trace = if trace.status() == BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
        let text = format!("thread '{}' {panic}{trace}\n", thread.name().unwrap_or_default());
        // Nobody is left to hear that it could not be said.
        drop(io::stderr().write_all(redact(&text).as_bytes()));
    }));
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
    let text = texts.join(": ");
    // What rustls says of an answer that is no TLS.
    if text.contains("InvalidContentType") { text + " (the server does not speak TLS there)" } else { text }
}
