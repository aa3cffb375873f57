//! The real binary with real clients and both databases.

mod clients;
mod due;
mod durability;
mod limits;
mod notices;
mod truth;
