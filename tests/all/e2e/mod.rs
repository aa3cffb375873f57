//! The real binary with real clients and both databases.

mod charges;
mod clients;
mod due;
pub mod durability;
mod large;
mod limit_events;
mod limits;
mod notices;
mod prices;
mod service;
mod truth;
