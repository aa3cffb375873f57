//! The real binary with real clients and both databases.

mod clients;
mod durability;
mod limits;
mod notices;
mod truth;
