//! Captured bodies of fourteen instrumentations: both readers agree on them, and nothing of their content comes through.

use std::fs;
use std::path::{Path, PathBuf};

use tacho_core::decode::{self, Batch, OwnKeys, Rules};

use crate::oracle;

/// What the bots of the captures were told and must not come through: a token in a query, card numbers in prompts, the
/// prompts' own words, and the provider's error text.
const PLANTED: &[&str] = &["SECRETQ", "4111-", "My card", "charged twice", "support bot.", "?"];

/// The trace bodies: those beside `index.jsonl`, not the ones of other signals below.
pub fn bodies(extension: &str) -> Vec<PathBuf> {
    let mut bodies = Vec::new();
    for capture in fs::read_dir(crate::golden_captures()).unwrap() {
        let files = fs::read_dir(capture.unwrap().path()).unwrap().map(|file| file.unwrap().path());
        bodies.extend(files.filter(|file| file.extension().is_some_and(|end| end == extension)));
    }
    bodies.retain(|body| body.file_name().is_some_and(|name| name != "expected.json"));
    bodies.sort();
    bodies
}

/// The default rules, so that messages of errors are content too.
fn rules() -> Rules {
    Rules::new(OwnKeys::default(), false)
}

fn assert_clean(body: &Path, batch: &Batch) {
    assert!(!batch.extract.is_empty(), "{}", body.display());
    assert_eq!(batch.rejected.count, 0, "{}: {}", body.display(), batch.rejected.message());
    let shown = format!("{batch:?}");
    for planted in PLANTED {
        let at = shown.find(planted).map(|at| shown[at.saturating_sub(60)..].chars().take(120).collect::<String>());
        assert_eq!(at, None, "{planted} of {} came through", body.display());
    }
}

#[test]
fn captured_protobuf_is_read_as_a_decoder_reads_it_and_without_its_content() {
    let bodies = bodies("pb");
    assert!(bodies.len() > 80, "{}", bodies.len());
    for body in bodies {
        let bytes = fs::read(&body).unwrap();
        assert!(oracle::check(&bytes, &rules()), "{}", body.display());
        assert_clean(&body, &decode::read_protobuf(&bytes, &rules()).unwrap());
    }
}

#[test]
fn captured_json_is_read_without_its_content() {
    let bodies = bodies("json");
    assert_eq!(bodies.len(), 12);
    for body in bodies {
        assert_clean(&body, &decode::read_json(&fs::read(&body).unwrap(), &rules()).unwrap());
    }
}

/// Else the tests above would prove nothing.
#[test]
fn the_planted_content_is_in_the_captures() {
    let bodies: Vec<Vec<u8>> =
        ["pb", "json"].into_iter().flat_map(bodies).map(|body| fs::read(body).unwrap()).collect();
    for planted in PLANTED {
        let holding = bodies.iter().filter(|body| body.windows(planted.len()).any(|part| part == planted.as_bytes()));
        assert!(holding.count() > 5, "{planted}");
    }
}
