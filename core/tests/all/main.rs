//! From bytes to requests, as far as that goes without a clock and a database: both readers beside a full decoder, and the captured
//! bodies of real instrumentations.

#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "captures are read from files, which the core itself may not do; a test stops at the first surprise"
)]

mod captures;
mod encode;
mod generate;
mod instrumentations;
mod odd;
mod oracle;
mod same;
mod shrink;
mod truth;

use std::path::PathBuf;

/// The folder of captures, one folder for each instrumentation in it. Both crates test with them.
fn golden_captures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/captures"))
}
