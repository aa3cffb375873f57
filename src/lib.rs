//! Tacho, a tachograph for LLM bots. `ARCHITECTURE.md` shows the house; `main.rs` is the front door.

mod api;
pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod export;
pub mod ingest;
mod journal;
pub mod limit;
pub mod listen;
pub mod metrics;
mod notify;
pub mod persist;
pub mod remote;
mod rights;
mod telemetry;
