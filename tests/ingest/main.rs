//! Ingest as a client meets it: the same facts from every encoding, nothing of the content, an answer to every hostile body.

#![allow(clippy::unwrap_used, reason = "a test whose helper cannot go on has failed")]

mod captures;
#[path = "../support/client.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod client;
mod encode;
mod generate;
mod grpc;
mod http;
mod oracle;
mod same;
mod service;
mod span;
