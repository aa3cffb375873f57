//! Nothing is exported that nobody looks at: every family of `docs/metrics.md` is in a panel or a rule. That panels and rules name only
//! such families is held by their own tests.

use std::collections::BTreeSet;
use std::path::Path;

use super::panels;

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The expressions and annotations of all rules.
fn rules() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "yml")).map(read).collect()
}

#[test]
fn every_family_is_looked_at() {
    let panels: String = panels::targets().into_iter().map(|target| target.expression + "\n").collect();
    let text = rules() + &panels;
    // Without those of recording rules, which have colons.
    let words = text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_' || char == ':'));
    let looked: BTreeSet<&str> = words
        .flat_map(|word| {
            let parts = ["_bucket", "_sum", "_count"].into_iter().filter_map(|end| word.strip_suffix(end));
            parts.chain([word]).collect::<Vec<_>>()
        })
        .collect();
    let paper = read("docs/metrics.md");
    let families = paper.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0));
    let families: Vec<&str> = families.filter(|name| name.starts_with("tacho_")).collect();
    assert!(families.len() > 40, "the reading of the paper is broken");
    let unseen: Vec<&&str> = families.iter().filter(|name| !looked.contains(**name)).collect();
    assert!(unseen.is_empty(), "in no panel and no rule: {unseen:?}");
}
