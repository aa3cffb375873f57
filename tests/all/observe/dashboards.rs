//! The dashboards hold to the rules of Grafana's dashboard-linter, which are done again here as it is no program of ours to install:
//!
//! | rule | test |
//! | --- | --- |
//! | template-datasource-rule | `the_data_source_can_be_chosen` |
//! | template-job-rule, template-instance-rule, template-on-time-change-reload-rule | `variables_can_be_chosen` |
//! | template-label-promql-rule | `variables_ask_for_labels_that_are_there`, `promtool_can_read_every_query` |
//! | panel-datasource-rule, panel-title-description-rule, panel-units-rule, panel-no-targets-rule | `panels_say_what_they_show` |
//! | target-promql-rule | `promtool_can_read_every_query` |
//! | target-rate-interval-rule, target-counter-agg-rule, target-histogram-rule | `counters_are_asked_how_they_grow` |
//! | target-job-rule, target-instance-rule | `selectors_follow_the_variables` |
//! | uneditable-dashboard-rule | `dashboards_are_of_one_kind` |
//!
//! target-logql-rule has nothing to look at: there are no logs. What follows them is ours: places, links, families and their labels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::panels::{dashboards, panels, substituted};
use super::promql::{Selector, grouped, selectors};

const UIDS: [&str; 4] = ["tacho-cost", "tacho-itself", "tacho-limits", "tacho-usage"];
const UNITS: [&str; 8] = ["bytes", "currencyUSD", "none", "ops", "percentunit", "reqps", "s", "short"];
/// What Prometheus and a histogram add to the labels of a family.
const ADDED: [&str; 3] = ["job", "instance", "le"];

/// One row of `docs/metrics.md`.
struct Family {
    kind: String,
    labels: Vec<String>,
    says: String,
}

/// All families of the binary, by name, and `up`, which Prometheus has of every target.
fn families() -> BTreeMap<String, Family> {
    let text = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `tacho_")).map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let labels = cells[3].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let family = Family { kind: cells[2].to_owned(), labels, says: cells[5].to_owned() };
        (cells[1].trim_matches('`').to_owned(), family)
    });
    let up = Family { kind: "gauge".to_owned(), labels: Vec::new(), says: String::new() };
    let families: BTreeMap<_, _> = rows.chain([("up".to_owned(), up)]).collect();
    assert!(families.contains_key("tacho_requests_total"), "the reading of docs/metrics.md is broken");
    families
}

/// The family that a selector asks: a histogram is asked for its parts.
fn family<'a>(families: &'a BTreeMap<String, Family>, selector: &Selector) -> Option<&'a Family> {
    let histogram = || {
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| selector.name.strip_suffix(part))?;
        families.get(base).filter(|family| family.kind == "histogram")
    };
    families.get(&selector.name).filter(|family| family.kind != "histogram").or_else(histogram)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn variables(dashboard: &Value) -> &[Value] {
    list(&dashboard["templating"], "list")
}

/// Variables that are asked of Prometheus.
fn asked(dashboard: &Value) -> impl Iterator<Item = &Value> {
    variables(dashboard).iter().filter(|variable| variable["type"] == "query")
}

/// Every target, with its panel and where it is.
fn targets() -> Vec<(String, Value, Value, Value)> {
    let mut found = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in list(&panel, "targets") {
                let place = format!("{file}, {}, {}", text(&panel, "title"), text(target, "refId"));
                found.push((place, dashboard.clone(), panel.clone(), target.clone()));
            }
        }
    }
    assert!(found.len() > 40, "the reading of panels is broken");
    found
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The places of all targets of which this does not hold.
fn assert_targets(rule: &str, holds: impl Fn(&Value, &Value, &Value) -> bool) {
    let broken = targets().into_iter().filter(|(_, dashboard, panel, target)| !holds(dashboard, panel, target));
    let faults: Vec<String> =
        broken.map(|(place, _, _, target)| format!("{place}: {rule}: {}", text(&target, "expr"))).collect();
    assert_none(&faults);
}

#[test]
fn the_files_are_what_their_sources_make() {
    let done = Command::new("python3").arg(root().join("dashboards/build.py")).arg("--check").output();
    let done = done.expect("python3 is missing: run tests/setup.sh");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn dashboards_are_of_one_kind() {
    let dashboards = dashboards();
    let uids: Vec<&str> = dashboards.iter().map(|(_, dashboard)| text(dashboard, "uid")).collect();
    assert_eq!(uids, UIDS);
    for (file, dashboard) in &dashboards {
        assert_eq!(*file, format!("{}.json", text(dashboard, "uid")));
        assert!(dashboard.get("id").is_some_and(Value::is_null), "{file}: an id is of one Grafana alone");
        assert_eq!(dashboard["editable"], false, "{file}: what is changed there is lost with the next version");
        assert_eq!((&dashboard["schemaVersion"], &dashboard["timezone"]), (&json!(39), &json!("browser")), "{file}");
        assert!(list(dashboard, "tags").contains(&json!("tacho")), "{file}");
        assert!(!text(dashboard, "title").is_empty() && !text(dashboard, "description").is_empty(), "{file}");
        assert!(!text(dashboard, "refresh").is_empty(), "{file}");
    }
}

#[test]
fn each_leads_to_all_others_and_keeps_what_was_chosen() {
    for (file, dashboard) in dashboards() {
        let others: BTreeSet<String> =
            UIDS.iter().filter(|uid| **uid != dashboard["uid"]).map(|uid| format!("/d/{uid}")).collect();
        let links = list(&dashboard, "links");
        assert_eq!(links.iter().map(|link| text(link, "url").to_owned()).collect::<BTreeSet<_>>(), others, "{file}");
        assert!(links.iter().all(|link| link["keepTime"] == true && link["includeVars"] == true), "{file}");
    }
}

#[test]
fn the_data_source_can_be_chosen() {
    for (file, dashboard) in dashboards() {
        let sources: Vec<&Value> = variables(&dashboard).iter().filter(|one| one["type"] == "datasource").collect();
        assert_eq!(sources.len(), 1, "{file}");
        let said = ["name", "label", "query"].map(|key| text(sources[0], key));
        assert_eq!(said, ["datasource", "Data source", "prometheus"], "{file}");
    }
}

#[test]
fn variables_can_be_chosen() {
    for (file, dashboard) in dashboards() {
        let names: Vec<&str> = asked(&dashboard).map(|variable| text(variable, "name")).collect();
        assert_eq!(names[..2], ["job", "instance"], "{file}");
        for variable in asked(&dashboard) {
            let name = text(variable, "name");
            let title = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
            assert_eq!(text(variable, "label"), title, "{file}");
            assert_eq!(variable["datasource"]["uid"], "${datasource}", "{file}: {name}");
            assert!(variable["multi"] == true && variable["includeAll"] == true, "{file}: {name}");
            // Series always have a job and an instance; other labels may be empty, and then only `.*` finds them.
            let everything = if ["job", "instance"].contains(&name) { ".+" } else { ".*" };
            assert_eq!(text(variable, "allValue"), everything, "{file}: {name}");
            assert_eq!(variable["refresh"], 2, "{file}: {name} is to be read again when the time range changes");
        }
    }
}

/// The selector and the label in `label_values(SELECTOR, LABEL)`.
fn label_values(variable: &Value) -> (&str, &str) {
    let query = text(variable, "query");
    let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).expect(query);
    inner.rsplit_once(", ").unwrap()
}

#[test]
fn variables_ask_for_labels_that_are_there() {
    let families = families();
    for (file, dashboard) in dashboards() {
        let mut before = Vec::new();
        for variable in asked(&dashboard) {
            let (selector, label) = label_values(variable);
            assert_eq!(label, text(variable, "name"), "{file}");
            let selector = selectors(selector).remove(0);
            let family =
                family(&families, &selector).unwrap_or_else(|| panic!("{file}: {} is no family", selector.name));
            assert!(
                ["job", "instance"].contains(&label) || family.labels.iter().any(|one| one == label),
                "{file}: {label}"
            );
            let followed: Vec<String> = selector.matchers.iter().map(|matcher| matcher.label.clone()).collect();
            assert_eq!(followed, before, "{file}: {label} offers what is there for the choices before it");
            before.push(label.to_owned());
        }
    }
}

#[test]
fn panels_say_what_they_show() {
    let mut faults = Vec::new();
    for (file, dashboard) in dashboards() {
        let mut titles = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = text(&panel, "title").to_owned();
            let mut fault = |what: &str| faults.push(format!("{file}, {title}: {what}"));
            if title.is_empty() || text(&panel, "description").len() < 40 {
                fault("needs a title, and a description that says what to do");
            }
            if list(&panel, "targets").is_empty() {
                fault("asks nothing");
            }
            let parts = [&panel].into_iter().chain(list(&panel, "targets"));
            if parts.into_iter().any(|part| part["datasource"] != json!({"type": "prometheus", "uid": "${datasource}"}))
            {
                fault("does not ask the data source that was chosen");
            }
            let mut units = vec![&panel["fieldConfig"]["defaults"]["unit"]];
            for own in list(&panel["fieldConfig"], "overrides") {
                units.extend(
                    list(own, "properties").iter().filter(|said| said["id"] == "unit").map(|said| &said["value"]),
                );
            }
            if units.iter().any(|unit| !unit.as_str().is_some_and(|unit| UNITS.contains(&unit))) {
                fault("has a unit that is none");
            }
            if !titles.insert(title.clone()) {
                fault("has the title of another panel");
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn panels_do_not_overlap() {
    for (file, dashboard) in dashboards() {
        let mut taken = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for panel in list(&dashboard, "panels") {
            let title = text(panel, "title");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(w > 0 && h > 0 && x + w <= 24, "{file}: {title}");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                if let Some(other) = taken.insert(cell, title) {
                    panic!("{file}: {title} lies over {other}");
                }
            }
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file}: {title} has the number of another panel");
        }
    }
}

#[test]
fn promtool_can_read_every_query() {
    let mut expressions: Vec<String> =
        targets().iter().map(|(_, _, _, target)| substituted(text(target, "expr"))).collect();
    for (_, dashboard) in dashboards() {
        expressions.extend(asked(&dashboard).map(|variable| substituted(label_values(variable).0)));
    }
    let rule = |(number, expr): (usize, &String)| json!({"record": format!("panels:{number}"), "expr": expr});
    let rules: Vec<Value> = expressions.iter().enumerate().map(rule).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    // A file of rules is YAML, which JSON is too.
    std::fs::write(&file, json!({"groups": [{"name": "panels", "rules": rules}]}).to_string()).unwrap();
    let done = Command::new("promtool").args(["check", "rules"]).arg(file.path()).output();
    let done = done.expect("promtool is missing: run tests/setup.sh");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn every_metric_is_a_family() {
    let families = families();
    assert_targets("a metric that is no family", |_, _, target| {
        let found = selectors(text(target, "expr"));
        !found.is_empty() && found.iter().all(|selector| family(&families, selector).is_some())
    });
}

#[test]
fn selectors_follow_the_variables() {
    let families = families();
    assert_targets(
        "each selector has the matcher of each variable whose label it has, and no other",
        |dashboard, _, target| {
            selectors(text(target, "expr")).iter().all(|selector| {
                let labels = &family(&families, selector).unwrap().labels;
                let has = |label: &str| ["job", "instance"].contains(&label) || labels.iter().any(|one| one == label);
                let all = asked(dashboard).map(|variable| text(variable, "name")).all(|name| {
                    let follows = selector.has(name, "=~", &format!("${name}"));
                    match has(name) {
                        // Where a family without the label stands beside it, the label is left out of both, and that is said.
                        true => follows || selector.has(name, "=~", ".*") && !["job", "instance"].contains(&name),
                        false => !follows,
                    }
                });
                all && selector.matchers.iter().all(|matcher| has(&matcher.label))
            })
        },
    );
}

#[test]
fn matchers_ask_for_values_that_there_can_be() {
    let families = families();
    assert_targets("a value that the family never has", |_, _, target| {
        selectors(text(target, "expr")).iter().all(|selector| {
            let says = &family(&families, selector).unwrap().says;
            selector.matchers.iter().filter(|matcher| !matcher.value.contains(['$', '.'])).all(|matcher| {
                let Some((_, values)) = says.split_once(&format!("{}: ", matcher.label)) else { return true };
                let values: Vec<&str> = values.split([';', '.']).next().unwrap().split(", ").collect();
                matcher.value.split('|').all(|value| values.contains(&value))
            })
        })
    });
}

#[test]
fn counters_are_asked_how_they_grow() {
    let families = families();
    assert_targets(
        "counters need rate or increase, rate needs $__rate_interval, buckets a quantile",
        |_, _, target| {
            let expr = text(target, "expr");
            selectors(expr).iter().all(|selector| {
                let kind = &family(&families, selector).unwrap().kind;
                let function = selector.function.as_deref().unwrap_or_default();
                let grows = ["rate", "irate", "increase"].contains(&function) && selector.range.is_some();
                let is_even =
                    !["rate", "irate"].contains(&function) || selector.range.as_deref() == Some("$__rate_interval");
                let is_quantile = !selector.name.ends_with("_bucket") || expr.contains("histogram_quantile(");
                // The other way round, a gauge that is asked how it grows answers nonsense.
                let is_counter = kind == "counter" || kind == "histogram";
                is_counter == grows && is_even && is_quantile
            })
        },
    );
}

#[test]
fn grouping_and_legends_name_labels_that_are_there() {
    let families = families();
    assert_targets("a label that no family asked here has", |_, _, target| {
        let expr = text(target, "expr");
        let selectors = selectors(expr);
        let labels: Vec<&str> = selectors
            .iter()
            .flat_map(|selector| family(&families, selector).unwrap().labels.iter().map(String::as_str))
            .chain(ADDED)
            .collect();
        let grouped = grouped(expr);
        let legend = text(target, "legendFormat");
        let mut named = legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap());
        grouped.iter().all(|label| labels.contains(&label.as_str()))
            && named.all(|label| grouped.iter().any(|one| one == label))
    });
}

#[test]
fn durations_lead_to_their_traces() {
    const HAVE: [&str; 2] = ["tacho_request_duration_seconds_bucket", "tacho_llm_call_duration_seconds_bucket"];
    let over_time = |target: &Value| target["range"] == true;
    assert_targets("exemplars are asked for where there are some, over time", |_, _, target| {
        let is_of_durations = selectors(text(target, "expr")).iter().any(|one| HAVE.contains(&one.name.as_str()));
        target["exemplar"] == (is_of_durations && over_time(target))
    });
    assert!(targets().iter().any(|(_, _, _, target)| target["exemplar"] == true));
}

#[test]
fn targets_are_asked_once_or_over_time_and_not_too_finely() {
    assert_targets("time series over time, the rest once; a step has samples in it", |_, panel, target| {
        let over_time = panel["type"] == "timeseries";
        target["range"] == over_time && target["instant"] == !over_time && target["interval"] == "1m"
    });
}
