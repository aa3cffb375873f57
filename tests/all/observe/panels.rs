//! Every panel of every dashboard over a day of traffic in a real Prometheus: no error, and nothing empty but what is named here with its
//! reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::day;
use crate::support::prometheus::Prometheus;

/// One query of a panel, with the dashboard's variables at "all".
#[derive(Clone, Debug)]
pub struct Target {
    pub dashboard: String,
    pub panel: String,
    pub reference: String,
    pub expression: String,
    pub instant: bool,
}

/// Queries that are right to show nothing on this day, and why.
const EMPTY: [(&str, &str, &str); 1] = [("Spend an hour, and a week before", "B", "a day has no week before")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The dashboards, by the name of their file.
pub fn dashboards() -> Vec<(String, Value)> {
    let folder = root().join("dashboards");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    };
    paths.into_iter().map(read).collect()
}

/// The panels of a dashboard, also those in rows that are closed.
pub fn panels(dashboard: &Value) -> Vec<Value> {
    let panels = dashboard["panels"].as_array().unwrap();
    let inner = panels.iter().flat_map(|panel| panel["panels"].as_array().into_iter().flatten());
    panels.iter().chain(inner).filter(|panel| panel["type"] != "row" && panel["type"] != "text").cloned().collect()
}

pub fn targets() -> Vec<Target> {
    let mut found = Vec::new();
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().into_iter().flatten() {
                found.push(Target {
                    dashboard: file.clone(),
                    panel: panel["title"].as_str().unwrap().to_owned(),
                    reference: target["refId"].as_str().unwrap().to_owned(),
                    expression: substituted(target["expr"].as_str().unwrap()),
                    instant: target["instant"] == true,
                });
            }
        }
    }
    found
}

/// As Grafana does for a day on a screen of usual width, all variables at "all".
pub fn substituted(expression: &str) -> String {
    let mut text = expression.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "5m"),
        ("$__interval", "1m"),
        ("$__range", "24h"),
        ("$job", ".+"),
        ("$instance", ".+"),
        ("$service", ".*"),
        ("$provider", ".*"),
        ("$model", ".*"),
        ("$endpoint", ".*"),
        ("$limit", ".*"),
    ] {
        text = text.replace(variable, value).replace(&format!("${{{}}}", &variable[1..]), value);
    }
    assert!(!text.contains('$'), "a variable is not known here: {expression}");
    text
}

/// A Prometheus that has the day.
async fn filled(folder: &Path) -> Prometheus {
    let config = folder.join("prometheus.yml");
    std::fs::write(&config, "global: { scrape_interval: 1m }\n").unwrap();
    Prometheus::start(&config, day::fill).await
}

/// Series of a query with at least one number in them.
async fn series(prometheus: &Prometheus, target: &Target) -> usize {
    let end = day::END.to_string();
    let is_number = |value: &Value| value.as_str().is_some_and(|text| text.parse::<f64>().is_ok_and(|n| !n.is_nan()));
    if target.instant {
        let found = prometheus.query(&target.expression, Some(day::END)).await;
        return found.iter().filter(|series| is_number(&series["value"][1])).count();
    }
    let begin = day::BEGIN.to_string();
    let parameters = [("query", &*target.expression), ("start", &begin), ("end", &end), ("step", "300")];
    let data = prometheus.get("query_range", &parameters).await;
    let has_number = |series: &&Value| series["values"].as_array().unwrap().iter().any(|pair| is_number(&pair[1]));
    data["result"].as_array().unwrap().iter().filter(has_number).count()
}

#[tokio::test]
async fn every_panel_shows_something_of_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let prometheus = filled(folder.path()).await;
    let (mut empty, mut unexpected) = (Vec::new(), Vec::new());
    let targets = targets();
    assert!(targets.len() > 40, "the reading of panels is broken");
    for target in &targets {
        let is_empty = series(&prometheus, target).await == 0;
        let excused =
            EMPTY.iter().any(|(panel, reference, _)| (*panel, *reference) == (&*target.panel, &*target.reference));
        match (is_empty, excused) {
            (true, false) => {
                let Target { dashboard, panel, reference, expression, .. } = target;
                unexpected.push(format!("{dashboard}: {panel} {reference}: {expression}"));
            }
            (true, true) => empty.push(target),
            (false, _) => {}
        }
    }
    assert!(unexpected.is_empty(), "nothing to see in\n{}", unexpected.join("\n"));
    for (panel, reference, reason) in EMPTY {
        let is_empty = empty.iter().any(|empty| empty.panel == panel && empty.reference == reference);
        assert!(is_empty, "{panel} {reference} is not empty, though {reason}");
    }
}

/// Draws the panels. `make dashboards-preview` says where.
#[tokio::test]
#[ignore = "draws pictures for people"]
async fn dashboards_preview() {
    let folder = tempfile::tempdir().unwrap();
    let prometheus = filled(folder.path()).await;
    let python = std::env::var("TACHO_PREVIEW_PYTHON").expect("make dashboards-preview says which");
    let out = std::env::var("TACHO_PREVIEW_OUT").unwrap_or_else(|_| "target/dashboards-preview".to_owned());
    let drawn = Command::new(python)
        .arg(root().join("dashboards/preview.py"))
        .args([format!("http://{}", prometheus.address), day::END.to_string(), out])
        .status()
        .unwrap();
    assert!(drawn.success());
}
