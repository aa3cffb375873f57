//! Tacho, a tachograph for LLM bots. `ARCHITECTURE.md` shows the house; `main.rs` is the front door.

pub mod assemble;
pub mod domain;
pub mod ingest;
pub mod price;
