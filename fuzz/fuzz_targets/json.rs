//! The JSON reader never panics, what it accepts is consistent, what it says of a bad body quotes nothing of it, and a body that
//! was made small says what the whole one says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tacho_core::domain::time::Timestamp;
use tacho_core::decode::{self, Batch, OwnKeys, Rules, Shrinker};

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::new(OwnKeys::default(), true));

/// Texts and numbers that stand for content in the seeds.
const CONTENT: [&str; 2] = ["SECRETQ", "4111222233334444"];

fuzz_target!(|body: &[u8]| {
    match decode::read_json(body, &RULES) {
        Ok(batch) => {
            check(&batch, body.len());
            assert_eq!(decode::read_json(&small(body), &RULES).expect("what was left out is no syntax"), batch);
        }
        Err(malformed) => {
            let message = malformed.to_string();
            assert!(CONTENT.iter().all(|content| !message.contains(content)), "{message}");
        }
    }
});

fn small(body: &[u8]) -> Vec<u8> {
    let mut shrinker = Shrinker::json(&RULES, usize::MAX);
    body.chunks(7).for_each(|part| shrinker.push(part).expect("there is no bound"));
    shrinker.finish().expect("JSON is looked at when it is read").0
}

fn check(batch: &Batch, length: usize) {
    assert_eq!(batch.rejected.count == 0, batch.rejected.message().is_empty());
    // Each span, taken or rejected, is at least `{}` or `[]`.
    assert!((batch.extract.len() as u64 + batch.rejected.count) * 2 <= length as u64);
    for received in batch.extract.spans() {
        let span = &received.span;
        assert!(span.start.0 > 0 && span.start <= span.end && span.start <= Timestamp::LATEST);
        // Every fact is cut: a name at 256 bytes, the one message at 1024.
        assert!(span.facts.size() < 32 * 300 + 1024 + 32 * 24);
    }
}
