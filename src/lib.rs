//! Tacho, a tachograph for LLM bots. `ARCHITECTURE.md` shows the house; `main.rs` is the front door.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod ingest;
pub mod journal;
pub mod limit;
pub mod metrics;
pub mod notify;
pub mod persist;
pub mod telemetry;
