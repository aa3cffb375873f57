//! The tests that need more than one part: services, processes, stores, what is shipped beside the code. One binary, as each one
//! links everything. What needs no I/O is tested in `core/tests`.
//!
//! `bounds` and `drill` put the machine under load, so `make test` runs them apart from the others.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "a test stops at the first surprise; some of them are a table; long forms show one"
)]

mod access;
mod bounds;
mod contract;
mod drill;
mod e2e;
mod ingest;
mod install;
mod observe;
mod private_ca;
mod search;
mod secrets;
mod support;
mod tidy;
