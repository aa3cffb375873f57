//! Limits that hold across instances: what may still be used, decided here at once, agreed on through a store. It knows no record
//! and no price; what was used is told to it.
#![deny(clippy::float_arithmetic, clippy::as_conversions)]

pub mod amount;
pub mod attempt;
pub mod cell;
pub mod config;
pub mod kernel;
pub mod node;
pub mod rule;
pub mod shared;
pub mod subject;
#[cfg(test)]
mod tests;

pub use amount::{Amount, Meter, Usage};
pub use attempt::{Attempt, Matched, Reason, Refused, Stand, Standing, Step};
pub use config::{Backend, LimitsConfig, RefusalForm, Rules};
pub use rule::{Rule, Traits};
