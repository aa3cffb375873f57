//! Ingest as a client meets it: an answer to every hostile body, and no more memory than one was promised.

// Shared with the tests of the core, which may not depend on this crate; a crate for three files is not wanted.
#[path = "../../../core/tests/all/encode.rs"]
#[allow(dead_code, reason = "the tests of the core use the rest")]
mod encode;
mod grpc;
mod http;
mod large;
#[path = "../../../core/tests/all/oracle.rs"]
#[allow(dead_code, reason = "the tests of the core use the rest")]
mod oracle;
mod service;
pub mod span;
