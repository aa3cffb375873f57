//! The walk over protobuf bytes accepts, refuses and reads every body as a full decoder does. The bytes are taken as a request
//! and as a span within one: in there, fewer lengths must fit for the fuzzer to get anywhere.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tacho_core::decode::{OwnKeys, Rules};

#[path = "../../core/tests/all/oracle.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod oracle;

#[path = "../../core/tests/all/encode.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod encode;

// Messages of failed spans are kept, so that they are compared too.
static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::new(OwnKeys::default(), true));

fuzz_target!(|body: &[u8]| {
    oracle::check(body, &RULES);
    oracle::check(&encode::request_of_span(body), &RULES);
});
