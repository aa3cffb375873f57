//! `alerts/` and its runbook: rules that Prometheus takes, tests of them that pass and leave none out, names that exist.
//!
//! Rules and tests are YAML, read by `serde-saphyr` into types that refuse what they do not know; a second reader of its
//! form, in Python or by lines, would be one that nobody trusts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

/// A rule that records or one that alerts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
    #[serde(rename = "for")]
    _pending: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Of a file for `promtool test rules` only what is asked of it here.
#[derive(Deserialize)]
struct TestFile {
    tests: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    alert_rule_test: Vec<Expectation>,
    #[serde(default)]
    promql_expr_test: Vec<Sample>,
}

#[derive(Deserialize)]
struct Expectation {
    alertname: String,
    exp_alerts: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Sample {
    expr: String,
}

/// Where `docs/runbook.md` is read by those whom an alert wakes.
const RUNBOOK: &str = "https://github.com/tacho/tacho/blob/main/docs/runbook.md#";
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];
/// The alert that Tacho pushes itself has a section, and no rule.
const PUSHED: &str = "TachoQuotaUsedUp";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The `.yml` files of a folder, in order.
fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "yml")).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has no rules");
    files
}

fn parsed<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rules() -> Vec<Rule> {
    let groups = yaml_files("alerts").into_iter().flat_map(|path| parsed::<RuleFile>(&path).groups);
    groups.flat_map(|group| group.rules).collect()
}

/// Rules that alert, by name.
fn alerts() -> BTreeMap<String, Rule> {
    rules().into_iter().filter_map(|rule| Some((rule.alert.clone()?, rule))).collect()
}

fn cases() -> Vec<Case> {
    yaml_files("alerts/tests").into_iter().flat_map(|path| parsed::<TestFile>(&path).tests).collect()
}

/// Runs it to its end, which must be a good one.
fn run(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{command:?}:\n{told}");
    told
}

fn assert_none(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
}

#[test]
fn prometheus_takes_all_rules_without_a_word() {
    let files = yaml_files("alerts");
    run(Command::new("promtool").args(["check", "rules", "--lint=all", "--lint-fatal"]).args(files));
}

#[test]
fn rules_do_what_their_tests_say() {
    run(Command::new("promtool").args(["test", "rules"]).args(yaml_files("alerts/tests")));
}

#[test]
fn every_alert_is_tested_to_fire_and_to_be_quiet() {
    let (mut fires, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for expected in cases().into_iter().flat_map(|case| case.alert_rule_test) {
        let seen = if expected.exp_alerts.is_empty() { &mut quiet } else { &mut fires };
        seen.insert(expected.alertname);
    }
    let names: BTreeSet<String> = alerts().into_keys().collect();
    assert_eq!(fires, names, "alerts with a test in which they fire, and all alerts");
    assert_eq!(quiet, names, "alerts with a test in which they are quiet, and all alerts");
}

#[test]
fn every_recording_rule_is_tested_and_used() {
    let alerts: Vec<String> = alerts().into_values().map(|rule| rule.expr).collect();
    let samples: Vec<String> =
        cases().into_iter().flat_map(|case| case.promql_expr_test).map(|sample| sample.expr).collect();
    let rules = rules();
    let mut faults = Vec::new();
    for name in rules.iter().filter_map(|rule| rule.record.as_deref()) {
        let is_in = |expr: &str| words(expr).contains(name);
        if !samples.iter().any(|expr| is_in(expr)) {
            faults.push(format!("{name} is not tested"));
        }
        if !alerts.iter().chain(rules.iter().map(|rule| &rule.expr)).any(|expr| is_in(expr)) {
            faults.push(format!("{name} is looked at by nobody"));
        }
    }
    assert_none(&faults, "what is recorded is tested and used");
}

#[test]
fn every_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on() {
    let rules = rules();
    let names: Vec<&String> = rules.iter().filter_map(|rule| rule.alert.as_ref()).collect();
    assert_eq!(names.len(), alerts().len(), "a name used twice");
    let mut faults = Vec::new();
    for (name, rule) in alerts() {
        let mut fault = |what: &str| faults.push(format!("{name}: {what}"));
        if !rule.labels.get("severity").is_some_and(|severity| SEVERITIES.contains(&severity.as_str())) {
            fault("severity is none of the three");
        }
        for part in ["summary", "description"] {
            if rule.annotations.get(part).is_none_or(String::is_empty) {
                fault(&format!("no {part}"));
            }
        }
        if rule.annotations.get("summary").is_some_and(|summary| summary.contains('\n')) {
            fault("the summary is longer than a line");
        }
        let anchor = format!("{RUNBOOK}{}", name.to_lowercase());
        if rule.annotations.get("runbook_url") != Some(&anchor) {
            fault(&format!("runbook_url is not {anchor}"));
        }
    }
    assert_none(&faults, "alerts are complete");
}

#[test]
fn alerts_on_the_use_of_a_limit_can_be_read_by_message_templates() {
    let mut faults = Vec::new();
    for (name, rule) in alerts() {
        if !words(&rule.expr).contains("job_limit:tacho_limit_used_ratio:max") {
            continue;
        }
        let missing =
            ["limit", "used", "amount", "reset"].into_iter().filter(|part| !rule.annotations.contains_key(*part));
        faults.extend(missing.map(|part| format!("{name}: no annotation {part}")));
    }
    assert_none(&faults, "limit, used, amount, reset");
}

#[test]
fn the_runbook_has_a_section_for_each_alert_and_no_other() {
    let runbook = read("docs/runbook.md");
    let sections: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let unique: BTreeSet<&str> = sections.iter().copied().collect();
    assert_eq!(unique.len(), sections.len(), "a heading used twice has another anchor");
    let alerts = alerts();
    let expected: BTreeSet<&str> = alerts.keys().map(String::as_str).chain([PUSHED]).collect();
    assert_eq!(unique, expected, "sections, and alerts");
    let mut faults = Vec::new();
    for section in runbook.split("\n### ").skip(1) {
        let name = section.lines().next().unwrap();
        let missing = ["**Means.**", "**See.**", "**Do.**"].into_iter().filter(|part| !section.contains(part));
        faults.extend(missing.map(|part| format!("{name}: no {part}")));
    }
    assert_none(&faults, "a section says what it means, how to see it, what to do");
}

#[test]
fn the_readme_lists_every_alert_with_its_severity() {
    let readme = read("alerts/README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `Tacho"));
    let listed: BTreeSet<String> = rows
        .map(|row| {
            let mut cells = row.split('|').map(str::trim);
            format!("Tacho{} {}", cells.next().unwrap().trim_end_matches('`'), cells.next().unwrap())
        })
        .collect();
    let expected: BTreeSet<String> =
        alerts().into_iter().map(|(name, rule)| format!("{name} {}", rule.labels["severity"])).collect();
    assert_eq!(listed, expected);
}

#[test]
fn the_manifest_is_in_step() {
    run(Command::new("python3").args(["alerts/build.py", "--check"]));
    #[derive(Deserialize)]
    struct Manifest {
        kind: String,
        spec: RuleFile,
    }
    let manifest: Manifest = parsed(Path::new("alerts/prometheusrule.yaml"));
    assert_eq!(manifest.kind, "PrometheusRule");
    let named = |groups: &[Group]| -> BTreeMap<String, Vec<String>> {
        groups
            .iter()
            .map(|group| (group.name.clone(), group.rules.iter().map(|rule| rule.expr.clone()).collect()))
            .collect()
    };
    let plain: Vec<Group> =
        yaml_files("alerts").into_iter().flat_map(|path| parsed::<RuleFile>(&path).groups).collect();
    assert_eq!(named(&manifest.spec.groups), named(&plain));
}

/// Words of PromQL outside of quotes: names of metrics and labels, functions, numbers with units.
fn words(expr: &str) -> BTreeSet<&str> {
    let unquoted = expr.split('"').step_by(2);
    let words = unquoted.flat_map(|text| text.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c))));
    words.map(|word| word.trim_end_matches(':')).collect()
}

/// Families of the binary, as its papers list them.
fn families() -> BTreeSet<String> {
    let paper = read("docs/metrics.md");
    let rows = paper.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let families: BTreeSet<String> = rows.filter(|name| name.starts_with("tacho_")).map(str::to_owned).collect();
    assert!(families.contains("tacho_tokens_total"), "the reading of metrics is broken");
    families
}

/// Metrics that are named in this expression and are neither a family, nor a part of a histogram, nor recorded.
fn unknown_metrics(expr: &str, families: &BTreeSet<String>, recorded: &BTreeSet<String>) -> Vec<String> {
    let is_family = |word: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        families.contains(word) || base.is_some_and(|base| families.contains(base))
    };
    let metrics = words(expr).into_iter().filter(|word| word.starts_with("tacho_") || word.contains(":tacho_"));
    metrics.filter(|word| !is_family(word) && !recorded.contains(*word)).map(str::to_owned).collect()
}

/// PromQL of the runbook: each line that is not the second half of the one before.
fn runbook_queries() -> Vec<String> {
    let runbook = read("docs/runbook.md");
    let blocks = runbook.split("```promql\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    let mut queries: Vec<String> = Vec::new();
    for block in blocks {
        for line in block.lines() {
            match queries.last_mut() {
                Some(last) if line.starts_with('/') => *last = format!("{last} {line}"),
                _ => queries.push(line.to_owned()),
            }
        }
    }
    queries
}

#[test]
fn every_metric_that_is_named_exists() {
    let (families, rules) = (families(), rules());
    let recorded: BTreeSet<String> = rules.iter().filter_map(|rule| rule.record.clone()).collect();
    let mut exprs: Vec<String> = rules.iter().map(|rule| rule.expr.clone()).chain(runbook_queries()).collect();
    // Templates ask in quotes that are themselves in quotes.
    let texts = rules.iter().flat_map(|rule| rule.annotations.values());
    exprs.extend(texts.map(|text| text.replace(['"', '\\'], " ")));
    let mut faults = Vec::new();
    for expr in &exprs {
        let unknown = unknown_metrics(expr, &families, &recorded);
        faults.extend(unknown.iter().map(|metric| format!("{metric} in {expr}")));
    }
    assert_none(&faults, "metrics are families of the binary or recorded");
}

#[test]
fn every_query_of_the_runbook_can_be_asked() {
    let queries = runbook_queries();
    assert!(queries.len() > 30, "the reading of the runbook is broken");
    let rules: Vec<_> = queries
        .iter()
        .enumerate()
        .map(|(nth, query)| serde_json::json!({"record": format!("runbook:query:{nth}"), "expr": query}))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queries.yml");
    // JSON is YAML.
    let file = serde_json::json!({"groups": [{"name": "runbook", "rules": rules}]});
    fs::write(&path, file.to_string()).unwrap();
    run(Command::new("promtool").args(["check", "rules"]).arg(path));
}

/// All of `src`.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { sources(&path) } else { fs::read_to_string(path).unwrap() }).collect()
}

#[test]
fn the_log_lines_of_the_runbook_are_written_somewhere() {
    let (sources, runbook) = (sources(&root().join("src")), read("docs/runbook.md"));
    let named = runbook.split("Log: `").skip(1).map(|rest| rest.split('`').next().unwrap());
    let missing: Vec<String> =
        named.filter(|line| !sources.contains(&format!("\"{line}\""))).map(str::to_owned).collect();
    assert!(runbook.contains("Log: `"), "the reading of the runbook is broken");
    assert_none(&missing, "lines of the log are those of the sources");
}

#[test]
fn the_verbs_that_are_named_exist() {
    let rules = alerts();
    let texts = rules.values().flat_map(|rule| rule.annotations.values()).cloned().chain([read("docs/runbook.md")]);
    let named: BTreeSet<Vec<String>> = texts.flat_map(|text| verbs(&text)).collect();
    assert!(named.len() > 4, "the reading of verbs is broken: {named:?}");
    for verb in named {
        run(Command::new(env!("CARGO_BIN_EXE_tacho")).args(&verb).arg("--help"));
    }
}

/// What stands behind `tacho` where a command is meant, without what a user would fill in.
fn verbs(text: &str) -> Vec<Vec<String>> {
    const VERBS: [&str; 6] = ["report", "verify", "rebuild", "limits", "accounts", "check-config"];
    const WITH_MORE: [&str; 2] = ["limits", "accounts"];
    let behind = text.split("tacho ").skip(1).map(|rest| rest.split([' ', '`', '\n', ',', '.', ')', ';', ':']));
    let commands = behind.filter_map(|mut words| {
        let verb = words.next().filter(|verb| VERBS.contains(verb))?;
        let more = words.next().filter(|_| WITH_MORE.contains(&verb));
        Some([verb].into_iter().chain(more).map(str::to_owned).collect())
    });
    commands.collect()
}
