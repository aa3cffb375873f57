//! No secret is in anything that Tacho says or leaves open: the real binary, told secrets in every way there is.

mod configuration;
mod rights;
mod running;

/// What must be nowhere. It has letters and digits only, so that it looks like a key, a number's unit, a name of
/// anything.
const CANARY: &str = "hunter2canary";
