//! Ingest as a client meets it: the same facts from every encoding, nothing of the content, an answer to every hostile body.

#![allow(clippy::unwrap_used, reason = "a test whose helper cannot go on has failed")]

mod captures;
mod client;
mod encode;
mod generate;
mod grpc;
mod http;
mod oracle;
mod same;
mod service;
mod span;
