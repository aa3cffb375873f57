//! Limits that hold across instances: what may still be used, decided here at once, agreed on through a store. It knows no record
//! and no price; what was used is told to it.
#![deny(clippy::float_arithmetic, clippy::as_conversions)]

pub mod amount;
pub mod attempt;
pub mod breaker;
pub mod cell;
pub mod charge;
pub mod config;
pub mod database;
pub mod estimate;
pub mod explain;
pub mod hold;
pub mod kernel;
pub mod limits;
pub mod memory;
pub mod meters;
pub mod node;
pub mod redis;
pub mod rule;
pub mod shared;
pub mod store;
pub mod subject;
#[cfg(test)]
mod tests;

pub use amount::{Amount, Dollars, Figure, Meter, Usage};
pub use attempt::{Reason, Stand};
pub use charge::{Charge, amount_of, charges, counters};
pub use config::{Backend, LimitsConfig, RefusalForm, Rules, plan_rule};
pub use explain::{Explained, explain};
pub use hold::{Origin, Reservation};
pub use limits::{Admission, Asked, Decision, LimitState, Limits, Outside, Refusal, Sight};
pub use meters::{LimitMeters, LimitReading};
pub use rule::{Rule, Traits};
pub use shared::{Key, Ledger};
pub use store::{Store, StoreError};
pub use subject::{Since, Subject};
