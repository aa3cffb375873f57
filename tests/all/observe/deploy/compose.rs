//! The compose file and what it mounts and builds. There is no Docker here, so its schema and the parts are checked.

use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value};

use super::{of_venv, output, read, root, yaml};

const FILE: &str = "deploy/compose/compose.yml";

fn services() -> Map<String, Value> {
    yaml(FILE)["services"].as_object().unwrap().clone()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// `a/b/../c` as `a/c`, without asking the disk.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(plain.pop(), "{} leads out of the tree", path.display()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

fn from_compose(path: &str) -> PathBuf {
    plain(&Path::new("deploy/compose").join(path))
}

/// What a service gets from the tree: path in the tree, path in the container.
pub fn mounts(service: &str) -> Vec<(String, String)> {
    let volumes = texts(&services()[service]["volumes"]);
    let from_tree = volumes.iter().filter(|volume| volume.starts_with('.'));
    let parts = from_tree.map(|volume| {
        let [source, target, "ro"] = volume.split(':').collect::<Vec<_>>()[..] else {
            panic!("{volume}: what comes from the tree is mounted read-only")
        };
        (from_compose(source).to_str().unwrap().to_owned(), target.to_owned())
    });
    parts.collect()
}

#[test]
fn the_schema_of_compose_takes_it() {
    output(of_venv("check-jsonschema").args(["--builtin-schema", "vendor.compose-spec", FILE]));
}

#[test]
fn images_are_pinned_ports_are_local_and_everything_is_bounded() {
    for (name, service) in services() {
        let image = service["image"].as_str().unwrap();
        let tag = image.split_once(':').map_or("", |(_, tag)| tag.trim_start_matches('v'));
        // Postgres has two numbers, all others three.
        let numbers: Vec<&str> = tag.split('-').next().unwrap().split('.').collect();
        let whole = numbers.len() >= 2 && numbers.iter().all(|number| number.parse::<u32>().is_ok());
        assert!(whole, "{name}: {image} names no whole version");
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to the network");
        }
        let limits = &service["deploy"]["resources"]["limits"];
        assert!(limits["memory"].is_string() && limits["cpus"].is_string(), "{name} has no limits");
        assert_eq!(service["logging"]["options"]["max-size"], "10m", "{name} may fill the disk with logs");
        for (other, how) in service["depends_on"].as_object().into_iter().flatten() {
            assert_eq!(how["condition"], "service_healthy", "{name} does not wait until {other} is well");
        }
        // Tacho's is in its image; the traffic comes to an end.
        let checked = service["healthcheck"]["test"].is_array();
        assert_eq!(checked, !["tacho", "traffic"].contains(&name.as_str()), "{name}");
    }
}

#[test]
fn what_is_mounted_and_built_is_there() {
    for (name, service) in services() {
        for (source, _) in mounts(&name) {
            assert!(root().join(&source).exists(), "{name}: {source} is missing");
        }
        if let Some(context) = service["build"]["context"].as_str() {
            let context = from_compose(context);
            let dockerfile = context.join(service["build"]["dockerfile"].as_str().unwrap());
            for source in copied(&read(&dockerfile)) {
                assert!(root().join(&context).join(&source).exists(), "{}: no {source}", dockerfile.display());
                let ignore = read(format!("{}.dockerignore", dockerfile.display()));
                let passes = |line: &str| {
                    line.strip_prefix('!').is_some_and(|kept| kept.starts_with(&source) || same(kept, &source))
                };
                assert!(ignore.lines().any(passes), "{}: {source} is ignored", dockerfile.display());
            }
        }
    }
}

/// Whether a pattern with one `*` covers a path.
fn same(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        Some((begin, end)) => path.starts_with(begin) && path.ends_with(end),
        None => pattern == path,
    }
}

/// What a Dockerfile copies from its context.
fn copied(dockerfile: &str) -> Vec<String> {
    let lines = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--"));
    let sources = lines.flat_map(|line| {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.pop();
        words
    });
    sources.map(str::to_owned).collect()
}

#[test]
fn cargo_has_all_it_needs_in_the_image() {
    let dockerfile = read("deploy/docker/Dockerfile");
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert!(
        dockerfile.contains(&format!("FROM rust:{channel}-slim-bookworm AS build")),
        "another compiler than {channel}"
    );

    let copied = copied(&dockerfile);
    let is_copied = |path: &Path| copied.iter().any(|source| path.starts_with(source));
    // Cargo refuses to build where a target that its manifest names has no source, also one that it is not asked for.
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    for bench in manifest["bench"].as_array().unwrap() {
        let path = format!("benches/{}.rs", bench["name"].as_str().unwrap());
        assert!(root().join(&path).exists() && is_copied(Path::new(&path)), "{path} is not copied");
    }
    for member in manifest["workspace"]["members"].as_array().unwrap() {
        let path = plain(&Path::new(member.as_str().unwrap()).join("Cargo.toml"));
        assert!(root().join(&path).exists() && is_copied(&path), "{} is not copied", path.display());
    }
    let found: Vec<PathBuf> = ["src", "core/src"].map(Path::new).into_iter().flat_map(embedded).collect();
    assert!(found.iter().any(|path| path.ends_with("prices/prices.json")), "the reading of sources is broken");
    for path in found {
        assert!(root().join(&path).exists() && is_copied(&path), "{} is not copied", path.display());
    }
}

/// What sources other than tests put into the binary.
fn embedded(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let path = folder.join(entry.unwrap().file_name());
        if path.with_extension("").ends_with("tests") {
            continue;
        }
        if root().join(&path).is_dir() {
            found.extend(embedded(&path));
            continue;
        }
        // Files by the way from the source, migrations by that from the manifest.
        for (name, base) in [("include_str!(", folder), ("include_bytes!(", folder), ("migrate!(", Path::new(""))] {
            let source = read(&path);
            let named = source.split(name).skip(1).map(|after| after.split('"').nth(1).unwrap());
            found.extend(named.map(|inner| plain(&base.join(inner))));
        }
    }
    found
}

#[test]
fn no_secret_is_in_the_file_and_each_variable_is_explained() {
    let (compose, example) = (read(FILE), read("deploy/compose/example.env"));
    let mut named = Vec::new();
    for after in compose.split("${").skip(1) {
        let (variable, _) = after.split_once('}').unwrap();
        let (name, or) = variable.split_once(":?").unwrap_or_else(|| panic!("{variable} may be empty"));
        assert!(!or.is_empty());
        named.push(name);
        assert!(example.lines().any(|line| line == format!("{name}=")), "{name} is not in example.env, or has a value");
    }
    assert!(named.contains(&"POSTGRES_PASSWORD") && named.contains(&"GRAFANA_PASSWORD"), "{named:?}");
    for (name, service) in services() {
        for (key, value) in service["environment"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap();
            assert!(!key.contains("PASSWORD") || value.starts_with("${"), "{name}: {key} has a value");
        }
    }
}

#[test]
fn prometheus_finds_the_rules_where_they_are_mounted() {
    let config = yaml("deploy/prometheus/prometheus.yml");
    let mounts = mounts("prometheus");
    let command = texts(&services()["prometheus"]["command"]);
    let file = command.iter().find_map(|word| word.strip_prefix("--config.file=")).unwrap();
    let inside = |path: &str| mounts.iter().find(|(source, _)| source == path).unwrap().1.clone();
    assert_eq!(file, format!("{}/prometheus.yml", inside("deploy/prometheus")));
    let rules = plain(&Path::new(file).parent().unwrap().join(config["rule_files"][0].as_str().unwrap()));
    assert_eq!(rules, Path::new(&inside("alerts")).join("*.yml"));
    assert!(command.contains(&"--enable-feature=exemplar-storage".to_owned()));
    assert_eq!(config["scrape_configs"][0]["static_configs"][0]["targets"][0], "tacho:9464");
}

#[test]
fn elasticsearch_and_the_traffic_come_only_when_asked_for() {
    let asked: Vec<_> =
        services().iter().filter(|(_, service)| service["profiles"].is_array()).map(|(name, _)| name.clone()).collect();
    assert_eq!(asked, ["elasticsearch", "traffic"]);
}

#[test]
fn tacho_takes_its_configuration() {
    let environment = services()["tacho"]["environment"].as_object().unwrap().clone();
    let url = environment["TACHO_DATABASE__URL"]
        .as_str()
        .unwrap()
        .replace("${POSTGRES_PASSWORD:?say it in .env}", "0123abcd");
    let tacho = || {
        let mut tacho = Command::new(env!("CARGO_BIN_EXE_tacho"));
        tacho.args(["--config", "deploy/compose/tacho/tacho.toml"]).env("TACHO_DATABASE__URL", &url);
        tacho
    };
    assert_eq!(output(tacho().arg("check-config")), "configuration is valid; database postgres\n");
    // The image listens on loopback, where neither a published port nor another service reaches it.
    for (name, port) in [("OTLP_GRPC", 4317), ("OTLP_HTTP", 4318), ("HTTP", 9464)] {
        assert_eq!(environment[&format!("TACHO_LISTEN__{name}")], format!("0.0.0.0:{port}"));
        assert!(texts(&services()["tacho"]["ports"]).contains(&format!("127.0.0.1:{port}:{port}")), "{port}");
    }
    let limits = output(tacho().args(["limits", "explain"]));
    for name in ["user-requests", "free-plan-month", "day-budget"] {
        assert!(limits.contains(name), "{limits}");
    }
}
