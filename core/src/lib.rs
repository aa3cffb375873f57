//! The pure half of Tacho: bytes of OpenTelemetry spans in, priced usage records out. It reads no clock, does no I/O and has no
//! threads; `Cargo.toml` and `clippy.toml` beside it are the proof. `ARCHITECTURE.md` shows where it stands.

pub mod assemble;
pub mod decode;
pub mod dialect;
pub mod domain;
pub mod price;
