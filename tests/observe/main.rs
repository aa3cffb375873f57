//! What watches Tacho, held to what Tacho is: configuration that is shipped, run by the programs it is made for.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod deploy;
