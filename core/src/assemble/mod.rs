//! From spans to requests: a buffer that waits until a trace is quiet, and a pure function from all spans of a trace to its
//! requests with their calls. It reads no clock and knows no database; prices are not its business.

mod calls;
mod endpoint;
mod explain;
mod gather;
mod nested;
mod records;
mod resolve;
mod same;
#[cfg(test)]
mod tests;
mod tree;
mod twins;
mod view;

use std::time::Duration;

use serde::Deserialize;

pub use explain::{Explained, Explanation, TakenFor};
pub use gather::{Closed, Gatherer};
pub use resolve::{Look, Resolution, Resolver};

/// The section `[assemble]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AssembleConfig {
    /// A trace is written when nothing of it came for so long. Exporters send every few seconds at most; what comes later
    /// amends the record.
    #[serde(with = "humantime_serde")]
    pub quiet: Duration,
    /// Calls wait so long for their request before they are written without one.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// `METHOD endpoint` with `*` for anything: such requests leave no record, unless they called a model.
    pub ignore: Vec<String>,
}

impl Default for AssembleConfig {
    fn default() -> Self {
        Self {
            quiet: Duration::from_secs(2),
            max_age: Duration::from_secs(600),
            ignore: vec!["GET /health*".to_owned(), "GET /metrics".to_owned()],
        }
    }
}
