//! The manifests, as the real kustomize makes them: held to the schemas of Kubernetes and of the Prometheus operator,
//! to each other, and to what Tacho does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tacho::config::Config;

use super::{cache, drain, output, read, root, yaml, yaml_all};

/// The oldest version that has all we use, and the newest whose schemas there are.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];
const OF_OPERATOR: [&str; 2] = ["PodMonitor", "PrometheusRule"];

/// All that is made, by the name of its kustomization; `readme-…` are those that the README shows.
fn made() -> BTreeMap<String, Vec<Value>> {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("deploy/kubernetes");
    for (from, to) in [("deploy/kubernetes", tree.clone()), ("alerts", folder.path().join("alerts"))] {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        output(Command::new("cp").arg("-r").arg(root().join(from)).arg(to));
    }
    let mut names = vec!["service".to_owned(), "statefulset".to_owned(), "example".to_owned()];
    for block in read("deploy/kubernetes/README.md").split("```yaml\n# ").skip(1) {
        let (name, text) = block.split_once("```").unwrap().0.split_once('\n').unwrap();
        names.push(format!("readme-{name}"));
        let own = tree.join(format!("readme-{name}"));
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("kustomization.yaml"), text).unwrap();
        std::fs::copy(tree.join("example/bot.yaml"), own.join("bot.yaml")).unwrap();
        std::fs::write(own.join("tacho.toml"), "[journal]\nmax_size = \"1GiB\"\n").unwrap();
    }
    assert_eq!(names.len(), 5, "{names:?}");
    let kustomize = cache("kustomize/bin/kustomize");
    let build = |name: String| {
        let text = output(Command::new(&kustomize).arg("build").arg(tree.join(&name)));
        let file = folder.path().join(format!("{name}.yaml"));
        std::fs::write(&file, text).unwrap();
        (name, yaml_all(file.to_str().unwrap()))
    };
    names.into_iter().map(build).collect()
}

fn of_kind<'a>(resources: &'a [Value], kind: &str) -> &'a Value {
    resources.iter().find(|resource| resource["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// The pod's template and Tacho's container in it.
fn tacho_in(resources: &[Value]) -> (&Value, &Value) {
    let kinds = ["Deployment", "StatefulSet"];
    let workload = resources.iter().find(|resource| kinds.contains(&resource["kind"].as_str().unwrap())).unwrap();
    let template = &workload["spec"]["template"];
    (template, tacho_of(template))
}

fn tacho_of(template: &Value) -> &Value {
    let containers = ["initContainers", "containers"].map(|list| template["spec"][list].as_array());
    containers.into_iter().flatten().flatten().find(|container| container["name"] == "tacho").unwrap()
}

fn environment(container: &Value) -> BTreeMap<&str, &str> {
    let variables = container["env"].as_array().unwrap();
    variables.iter().map(|one| (one["name"].as_str().unwrap(), one["value"].as_str().unwrap())).collect()
}

/// Each resource in a file of its own.
fn files(folder: &Path, resources: &[&Value]) -> Vec<PathBuf> {
    let write = |(number, resource): (usize, &&Value)| {
        let file = folder.join(format!("{number}.json"));
        std::fs::write(&file, resource.to_string()).unwrap();
        file
    };
    resources.iter().enumerate().map(write).collect()
}

/// What the schemas of Kubernetes say, which know every field.
fn refused_by_kubernetes(version: &str, resources: &[&Value]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mut validate = Command::new(cache("kubernetes-venv/bin/kubernetes-validate"));
    let ended = validate.args(["--strict", "-k", version]).args(files(folder.path(), resources)).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    let passed = said.lines().filter(|line| line.contains(" passed for resource ")).count();
    assert!(!ended.status.success() || passed == resources.len(), "{said}");
    if !ended.status.success() {
        println!("{said}");
    }
    !ended.status.success()
}

fn refused_by_operator(resources: &[&Value]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut check = Command::new("node");
    let ended =
        check.arg(cache("kubernetes-node/operator.mjs")).args(files(folder.path(), resources)).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.success(), said.is_empty(), "{said}");
    said
}

#[test]
fn kubernetes_takes_them() {
    let made = made();
    for (name, resources) in &made {
        let own = |resource: &&Value| !OF_OPERATOR.contains(&resource["kind"].as_str().unwrap());
        let own: Vec<&Value> = resources.iter().filter(own).collect();
        for version in VERSIONS {
            assert!(!refused_by_kubernetes(version, &own), "{name}: Kubernetes {version}");
        }
    }
    let mut misspelt = of_kind(&made["service"], "Deployment").clone();
    misspelt["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = serde_json::json!({});
    assert!(refused_by_kubernetes(VERSIONS[0], &[&misspelt]));
}

#[test]
fn the_operator_takes_what_is_scraped_and_the_rules_are_ours() {
    let made = made();
    for name in ["example", "readme-sidecar", "readme-service"] {
        let [monitor, rule] = OF_OPERATOR.map(|kind| of_kind(&made[name], kind));
        assert_eq!(refused_by_operator(&[monitor, rule]), "");
        let ours = yaml("alerts/prometheusrule.yaml");
        assert!(words(&rule["spec"]) == words(&ours["spec"]), "{name}: not the rules of alerts/");
        // The pods are found, by a port that they have, under the name that the alerts ask for.
        let (template, tacho) = tacho_in(&made[name]);
        assert!(selects(&monitor["spec"]["selector"], &template["metadata"]["labels"]), "{name}");
        let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
        let ports = tacho["ports"].as_array().unwrap();
        assert!(ports.iter().any(|port| port["name"] == endpoint["port"]), "{name}");
        assert_eq!(endpoint["relabelings"][0], serde_json::json!({"targetLabel": "job", "replacement": "tacho"}));
        assert!(endpoint["honorLabels"] == true && read("alerts/tacho.yml").contains("up{job=\"tacho\"}"));
    }
    let mut misspelt = of_kind(&made["example"], "PodMonitor").clone();
    misspelt["spec"]["podMetricsEndpoints"][0]["honorLables"] = true.into();
    assert_eq!(
        refused_by_operator(&[&misspelt]),
        "PodMonitor.spec.podMetricsEndpoints.0.honorLables is no field of it\n"
    );
}

/// Two readers of YAML fold long lines otherwise.
fn words(value: &Value) -> String {
    value.to_string().replace("\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An empty selector would select everything.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted =
        selector["matchLabels"].as_object().filter(|wanted| !wanted.is_empty()).expect("it says what it selects");
    wanted.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn they_agree_with_each_other() {
    let made = made();
    for name in ["service", "statefulset", "readme-service"] {
        let resources = &made[name];
        let (template, tacho) = tacho_in(resources);
        let labels = &template["metadata"]["labels"];
        let service = of_kind(resources, "Service");
        assert!(selects(&serde_json::json!({"matchLabels": service["spec"]["selector"]}), labels), "{name}");
        assert!(selects(&of_kind(resources, "PodDisruptionBudget")["spec"]["selector"], labels), "{name}");
        assert!(selects(&of_kind(resources, "NetworkPolicy")["spec"]["podSelector"], labels), "{name}");
        assert!(selects(&template["spec"]["topologySpreadConstraints"][0]["labelSelector"], labels), "{name}");
        let ports: Vec<&str> =
            tacho["ports"].as_array().unwrap().iter().map(|port| port["name"].as_str().unwrap()).collect();
        for port in service["spec"]["ports"].as_array().unwrap() {
            assert!(ports.contains(&port["targetPort"].as_str().unwrap()), "{name}: {port}");
        }
        for rule in of_kind(resources, "NetworkPolicy")["spec"]["ingress"].as_array().unwrap() {
            for port in rule["ports"].as_array().unwrap() {
                assert!(ports.contains(&port["port"].as_str().unwrap()), "{name}: {port}");
            }
        }
        // All names by which the Service is reached.
        let namespace = service["metadata"]["namespace"].as_str().unwrap();
        let ends = [
            "".to_owned(),
            format!(".{namespace}"),
            format!(".{namespace}.svc"),
            format!(".{namespace}.svc.cluster.local"),
        ];
        let names: Vec<String> = ends.iter().map(|end| format!("tacho{end}")).collect();
        let hosts: Vec<String> = serde_json::from_str(environment(tacho)["TACHO_AUTH__HOSTS"]).unwrap();
        assert_eq!(hosts, names);
        assert_eq!(of_kind(resources, "ServiceAccount")["automountServiceAccountToken"], false);
        assert_eq!(template["spec"]["automountServiceAccountToken"], false);
    }
}

#[test]
fn it_stops_in_time_and_is_asked_where_it_listens() {
    for (name, resources) in made() {
        let (template, tacho) = tacho_in(&resources);
        let before = tacho["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or(0);
        let grace = template["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
        // Of a sidecar's, half is the bot's.
        let own = if tacho["restartPolicy"] == "Always" { grace - 30 } else { grace - before };
        assert!(own >= drain() + 3, "{name}: {grace} s");
        let listens: Vec<&str> = environment(tacho)
            .into_iter()
            .filter(|(name, _)| name.starts_with("TACHO_LISTEN__"))
            .map(|(_, address)| address.split_once("0.0.0.0:").unwrap().1)
            .collect();
        let ports = tacho["ports"].as_array().unwrap();
        let mut named: Vec<String> = ports.iter().map(|port| port["containerPort"].to_string()).collect();
        named.sort();
        let mut sorted = listens.clone();
        sorted.sort_unstable();
        assert_eq!(named, sorted, "{name}");
        let metrics = ports.iter().find(|port| port["name"] == "metrics").unwrap();
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let asked = &tacho[probe]["httpGet"];
            if probe == "readinessProbe" && tacho["restartPolicy"] == "Always" {
                assert_eq!(tacho[probe], Value::Null, "{name}: a sidecar would take its bot out of service");
                continue;
            }
            assert!(asked["port"] == "metrics" || asked["port"] == metrics["containerPort"], "{name}: {probe}");
        }
        assert_eq!(
            tacho["livenessProbe"]["httpGet"]["path"], "/livez",
            "{name}: a full journal is no reason for a restart"
        );
    }
}

#[test]
fn every_container_may_do_little_and_has_bounds() {
    for (name, resources) in made() {
        let (template, _) = tacho_in(&resources);
        let of_pod = &template["spec"]["securityContext"];
        let lists = ["initContainers", "containers"].map(|list| template["spec"][list].as_array());
        for container in lists.into_iter().flatten().flatten() {
            let own = &container["securityContext"];
            let name = format!("{name}: {}", container["name"]);
            let said = |key: &str| if own[key].is_null() { of_pod[key].clone() } else { own[key].clone() };
            assert_eq!(own["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(own["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(own["capabilities"], serde_json::json!({"drop": ["ALL"]}), "{name}");
            assert_eq!(said("runAsNonRoot"), true, "{name}");
            assert_eq!(said("runAsUser"), 10001, "{name}");
            assert_eq!(said("seccompProfile")["type"], "RuntimeDefault", "{name}");
            for bound in [&container["resources"]["requests"]["memory"], &container["resources"]["limits"]["memory"]] {
                assert!(bound.is_string(), "{name}");
            }
        }
    }
}

/// `1536Mi` and `2Gi` in bytes.
fn bytes(quantity: &str) -> u64 {
    let (number, unit) = quantity.split_at(quantity.len() - 2);
    number.parse::<u64>().unwrap()
        << match unit {
            "Mi" => 20,
            "Gi" => 30,
            _ => panic!("{quantity}"),
        }
}

#[test]
fn the_volume_holds_the_journal_and_tacho_takes_its_configuration() {
    for (name, resources) in made() {
        let folder = tempfile::tempdir().unwrap();
        let config = of_kind(&resources, "ConfigMap")["data"]["tacho.toml"].as_str().unwrap();
        let file = folder.path().join("tacho.toml");
        std::fs::write(&file, config).unwrap();
        let journal = Config::load(Some(&file), std::iter::empty()).unwrap().journal.max_size.as_u64();
        let (template, tacho) = tacho_in(&resources);
        let volumes = template["spec"]["volumes"].as_array().unwrap();
        let dir = volumes.iter().find_map(|volume| volume["emptyDir"]["sizeLimit"].as_str());
        let claim = || {
            let claim = &of_kind(&resources, "StatefulSet")["spec"]["volumeClaimTemplates"][0];
            claim["spec"]["resources"]["requests"]["storage"].as_str().unwrap()
        };
        let volume = bytes(dir.unwrap_or_else(claim));
        // Beside it lie what was set aside of it, and listen.json.
        assert!(volume >= journal + journal / 4, "{name}: {volume} bytes for a journal of {journal}");

        std::fs::write(folder.path().join("database-url"), "postgres://tacho:secret@db/tacho\n").unwrap();
        std::fs::write(folder.path().join("tokens.toml"), "").unwrap();
        let here = |value: &str| {
            let folder = folder.path().to_str().unwrap();
            ["/etc/tacho", "/run/secrets/tacho", "/var/lib/tacho"]
                .iter()
                .fold(value.to_owned(), |value, inside| value.replace(inside, folder))
        };
        let mut check = Command::new(env!("CARGO_BIN_EXE_tacho"));
        check.arg("check-config").envs(environment(tacho).into_iter().map(|(name, value)| (name, here(value))));
        assert_eq!(output(&mut check), "configuration is valid; database postgres\n", "{name}");
    }
}

/// Where the README says how a Secret is made, it makes what is mounted.
#[test]
fn the_readme_names_all_secrets_and_their_keys() {
    let readme = read("deploy/kubernetes/README.md");
    for (name, resources) in made() {
        let (template, tacho) = tacho_in(&resources);
        let volumes = template["spec"]["volumes"].as_array().unwrap();
        for secret in volumes.iter().filter_map(|volume| volume["secret"]["secretName"].as_str()) {
            assert!(readme.contains(&format!("create secret generic {secret} ")), "{name}: {secret}");
        }
        for value in environment(tacho).values() {
            if let Some(key) = value.strip_prefix("/run/secrets/tacho/") {
                assert!(
                    readme.contains(&format!("={key}=")) || readme.contains(&format!("-literal={key}=")),
                    "{name}: {key}"
                );
            }
        }
        if resources.iter().any(|resource| resource["kind"] == "PodMonitor") {
            let credentials =
                &of_kind(&resources, "PodMonitor")["spec"]["podMetricsEndpoints"][0]["authorization"]["credentials"];
            let (secret, key) = (credentials["name"].as_str().unwrap(), credentials["key"].as_str().unwrap());
            assert!(readme.contains(&format!("create secret generic {secret} --from-literal={key}=")), "{secret}");
        }
    }
}
