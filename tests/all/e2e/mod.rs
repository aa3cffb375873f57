//! The real binary with real clients and both databases.

mod cases;
mod charges;
mod clients;
mod due;
pub mod durability;
mod explain;
mod large;
mod limit_events;
mod limits;
mod notices;
mod prices;
mod service;
mod truth;
