//! What is exported and what is looked at are the same: every family of a panel or a rule is one of `docs/metrics.md`, and each of these
//! is in a panel or a rule, or said there to be for ad-hoc use.

use std::collections::BTreeSet;
use std::path::Path;

use crate::panels;

struct Paper {
    families: BTreeSet<String>,
    ad_hoc: BTreeSet<String>,
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn paper() -> Paper {
    let text = read("docs/metrics.md");
    let rows = || text.lines().filter_map(|line| Some((line.strip_prefix("| `")?.split_once('`')?.0.to_owned(), line)));
    Paper {
        families: rows().map(|(name, _)| name).collect(),
        ad_hoc: rows().filter(|(_, line)| line.contains("ad-hoc")).map(|(name, _)| name).collect(),
    }
}

/// Names that begin as ours, without those of recording rules, which have colons.
pub fn named(text: &str) -> BTreeSet<String> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == ':';
    let words = text.split(|char| !is_part(char)).filter(|word| word.starts_with("tacho_") && !word.contains(':'));
    words.map(|word| word.trim_end_matches('_').to_owned()).collect()
}

/// The family that a name in a query is of.
fn family<'p>(paper: &'p Paper, name: &str) -> Option<&'p str> {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| paper.families.get(name.strip_suffix(end)?));
    paper.families.get(name).or(of_histogram).map(String::as_str)
}

/// The expressions and annotations of all rules.
fn rules() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "yml")).map(read).collect()
}

#[test]
fn every_family_is_looked_at_and_every_look_is_at_a_family() {
    let paper = paper();
    assert!(paper.families.len() > 40, "the reading of the paper is broken");
    let panels: String = panels::targets().into_iter().map(|target| target.expression + "\n").collect();
    let looked: BTreeSet<String> = named(&(rules() + &panels));
    let unknown: Vec<&String> = looked.iter().filter(|name| family(&paper, name).is_none()).collect();
    assert!(unknown.is_empty(), "these are no families: {unknown:?}");
    let seen: BTreeSet<&str> = looked.iter().filter_map(|name| family(&paper, name)).collect();
    let unseen: Vec<&String> =
        paper.families.iter().filter(|name| !seen.contains(name.as_str()) && !paper.ad_hoc.contains(*name)).collect();
    assert!(unseen.is_empty(), "in no panel and no rule: {unseen:?}");
    let needless: Vec<&String> = paper.ad_hoc.iter().filter(|name| seen.contains(name.as_str())).collect();
    assert!(needless.is_empty(), "said to be for ad-hoc use, but are looked at: {needless:?}");
}
