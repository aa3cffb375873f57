//! The words of the house: plain data and the arithmetic on it. It never does I/O and never reads a clock.

pub mod account;
pub mod call;
pub mod counter;
pub mod extract;
pub mod facts;
pub mod hash;
pub mod ids;
pub mod limit_event;
pub mod lsn;
pub mod money;
pub mod pattern;
pub mod period;
pub mod plan;
pub mod record;
pub mod span;
pub mod time;
pub mod trace;
