//! All that is known of instrumentations, as data: which attribute keys mean which field, which operations call a model, what a
//! scope's habits are, which errors cost nothing. A dialect is added by adding rows here and a capture; no code elsewhere names
//! one. `docs/instrumentations.md` is made of these tables.

mod advice;
mod errors;
mod keys;
mod names;
mod operations;
mod scopes;

pub use advice::{ADVICE, advice};
pub use errors::{Failure, failure};
pub use keys::{EXCEPTION_TYPE, JSON_KEYS, JsonRow, Row, SPAN_KEYS, Unit, key_of, mark, resource};
pub use names::{is_absent, is_call_by_name, is_framework, is_no_call_by_name, provider_name};
pub use operations::{Work, operation_name, streams, work};
pub use scopes::{Cache, cache_habit, distance_from_wire, names_installations, repeats_asked_model};
