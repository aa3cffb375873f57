//! The walk over protobuf bytes accepts, refuses and reads every body as a full decoder does. The bytes are taken as a request
//! and as a span within one: in there, fewer lengths must fit for the fuzzer to get anywhere. A body that was made small says what
//! the whole one says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tacho_core::decode::{self, OwnKeys, Rules, Shrinker};

#[path = "../../core/tests/all/oracle.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod oracle;

#[path = "../../core/tests/all/encode.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod encode;

// Messages of failed spans are kept, so that they are compared too.
static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::new(OwnKeys::default(), true));

fuzz_target!(|body: &[u8]| {
    for body in [body, &encode::request_of_span(body)] {
        if oracle::check(body, &RULES) {
            check_small(body);
        }
    }
});

fn check_small(body: &[u8]) {
    let mut shrinker = Shrinker::protobuf(&RULES, usize::MAX);
    // It knows no groups.
    if body.chunks(7).try_for_each(|part| shrinker.push(part)).is_ok() {
        let (small, _) = shrinker.finish().expect("the body is whole");
        assert_eq!(decode::read_protobuf(&small, &RULES).unwrap(), decode::read_protobuf(body, &RULES).unwrap());
    }
}
