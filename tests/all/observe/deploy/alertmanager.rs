//! Routes and inhibition of Alertmanager, as its own tool reads them.

use std::process::Command;

use super::{alert_names, output, yaml};

const FILE: &str = "deploy/alertmanager/alertmanager.yml";

#[test]
fn alertmanager_takes_its_configuration() {
    output(Command::new("amtool").args(["check-config", FILE]));
}

/// Labels of an alert, and who is told.
const ROUTES: &[(&[&str], &str)] = &[
    (&["alertname=TachoQuotaUsedUp", "severity=critical", "limit=day", "subject=ann"], "quota"),
    (&["alertname=TachoLimitUsedUp", "severity=critical", "job=tacho", "limit=day"], "quota"),
    (&["alertname=TachoDown", "severity=critical", "job=tacho", "instance=tacho:9464"], "critical"),
    (&["alertname=TachoRequestsStopped", "severity=critical", "job=tacho", "service=example-bot"], "critical"),
    (&["alertname=TachoJournalOld", "severity=warning", "job=tacho"], "warning"),
    (&["alertname=TachoTelemetryAbsent", "severity=warning", "job=tacho", "service=other-bot"], "warning"),
    (&["alertname=TachoTelemetryAbsent", "severity=warning", "job=tacho", "service=example-bot"], "example-bot"),
    (&["alertname=TachoLimitUsed90", "severity=warning", "job=tacho", "limit=day"], "warning"),
    (&["alertname=TachoLimitUsed80", "severity=info", "job=tacho", "limit=day"], "info"),
    (&["alertname=TachoRequestsSlower", "severity=info", "job=tacho", "service=example-bot"], "info"),
    (&["alertname=OfSomebodyElse"], "warning"),
    (&["alertname=OfSomebodyElse", "severity=unheard-of"], "warning"),
];

#[test]
fn each_alert_goes_to_whom_it_concerns() {
    for (labels, receiver) in ROUTES {
        let told =
            output(Command::new("amtool").args(["config", "routes", "test", "--config.file", FILE]).args(*labels));
        assert_eq!(told.trim(), *receiver, "{labels:?}");
    }
    let receivers = yaml(FILE)["receivers"].clone();
    for receiver in receivers.as_array().unwrap() {
        let name = receiver["name"].as_str().unwrap();
        assert!(ROUTES.iter().any(|(_, told)| *told == name), "no case leads to {name}");
    }
}

/// What stands after `alertname =` or `alertname =~` in the matchers of routes and inhibition.
fn alerts_named(matchers: &serde_json::Value, named: &mut Vec<String>) {
    match matchers {
        serde_json::Value::String(text) => {
            if let Some(names) = text.strip_prefix("alertname ") {
                let names = names.trim_start_matches(['=', '~', ' ']).trim_matches('"');
                named.extend(names.split('|').map(str::to_owned));
            }
        }
        serde_json::Value::Array(all) => all.iter().for_each(|one| alerts_named(one, named)),
        serde_json::Value::Object(all) => all.values().for_each(|one| alerts_named(one, named)),
        _ => {}
    }
}

#[test]
fn every_alert_named_exists() {
    let config = yaml(FILE);
    let mut named = Vec::new();
    alerts_named(&config["route"], &mut named);
    alerts_named(&config["inhibit_rules"], &mut named);
    assert!(named.len() > 10, "the reading of matchers is broken: {named:?}");
    let known = alert_names();
    let unknown: Vec<_> = named.iter().filter(|name| !known.contains(*name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are no alerts; there are {known:?}");
}
