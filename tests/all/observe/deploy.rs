//! What `deploy/` ships, taken by the programs that read it: Prometheus, Alertmanager, the schema of compose, systemd,
//! kustomize, psql and sqlite3, Tacho itself.

mod alertmanager;
mod compose;
mod elasticsearch;
mod kubernetes;
mod listeners;
mod muted;
pub mod receivers;
mod sql;
mod systemd;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs it in the root of the tree; what it printed, if it ended well.
fn output(command: &mut Command) -> String {
    let ended = command.current_dir(root()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&ended.stderr));
    text
}

/// What `tests/setup.sh` has put there.
fn cache(path: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var("HOME").unwrap()).join(".cache/tacho");
    let path = std::env::var("TACHO_CACHE").map_or_else(|_| home(), PathBuf::from).join(path);
    assert!(path.exists(), "{} is missing: run tests/setup.sh", path.display());
    path
}

/// A program of the Python environment.
fn of_venv(program: &str) -> Command {
    Command::new(cache("example-bot-venv/bin").join(program))
}

/// A YAML file as JSON, anchors and merges resolved.
fn yaml(path: &str) -> Value {
    let [only] = <[Value; 1]>::try_from(yaml_all(path)).unwrap();
    only
}

/// All documents of a YAML file. By Python, whose environment has a reader anyway.
fn yaml_all(path: &str) -> Vec<Value> {
    const READER: &str = "import json, sys\nfrom ruamel.yaml import YAML\n\
         json.dump(list(YAML(typ='safe', pure=True).load_all(open(sys.argv[1]))), sys.stdout)";
    serde_json::from_str(&output(of_venv("python").args(["-c", READER, path]))).unwrap()
}

/// The names of all alerts: of the rules, and the one that Tacho pushes itself.
fn alert_names() -> BTreeSet<String> {
    let mut names = BTreeSet::from(["TachoQuotaUsedUp".to_owned()]);
    for entry in std::fs::read_dir(root().join("alerts")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yml") {
            let text = read(&path);
            names.extend(text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned));
        }
    }
    assert!(names.len() > 20, "the reading of alerts is broken: {names:?}");
    names
}

/// How many seconds a stop may take.
fn drain() -> u64 {
    tacho::app::LONGEST_STOP.as_secs()
}

#[test]
fn prometheus_takes_its_configuration_with_all_rules() {
    let told = output(Command::new("promtool").args(["check", "config", "deploy/prometheus/prometheus.yml"]));
    let files = std::fs::read_dir(root().join("alerts")).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.extension().is_some_and(|end| end == "yml")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(told.contains(&format!("alerts/{name}")), "{name} is not loaded:\n{told}");
    }
}

#[test]
fn grafana_gets_its_data_source_and_dashboards() {
    let sources = yaml("deploy/grafana/provisioning/datasources/prometheus.yml");
    let scrape = &yaml("deploy/prometheus/prometheus.yml")["global"]["scrape_interval"];
    let prometheus = &sources["datasources"][0];
    // Grafana makes $__rate_interval from it: shorter than the scrapes are apart, rates would be empty.
    assert_eq!(&prometheus["jsonData"]["timeInterval"], scrape);
    assert_eq!((&prometheus["type"], &prometheus["isDefault"]), (&"prometheus".into(), &true.into()));
    let folder = &yaml("deploy/grafana/provisioning/dashboards/tacho.yml")["providers"][0]["options"]["path"];
    let mounts = compose::mounts("grafana");
    assert!(mounts.iter().any(|(source, target)| source == "dashboards" && Some(&**target) == folder.as_str()));
    assert!(mounts.contains(&("deploy/grafana/provisioning".to_owned(), "/etc/grafana/provisioning".to_owned())));
}
