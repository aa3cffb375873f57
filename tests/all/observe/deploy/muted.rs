//! Inhibition by a real Alertmanager: each rule with what it mutes and what it must leave alone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::receivers::{PATIENCE, Shipped, alert};

/// What is told, what it mutes, and what it must not mute: an alert with the label in which it differs, or with none.
type Mute = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

const MUTES: &[Mute] = &[
    (
        "TachoDown",
        &["TachoTelemetryAbsent", "TachoRequestsStopped", "TachoRestarts"],
        &[("TachoRequestsStopped", "job"), ("TachoDatabaseUnavailable", "")],
    ),
    ("TachoAbsent", &["TachoTelemetryAbsent", "TachoRequestsStopped"], &[("TachoRequestsStopped", "job")]),
    ("TachoRequestsStopped", &["TachoTelemetryAbsent"], &[("TachoTelemetryAbsent", "service")]),
    ("TachoRequestsSlow", &["TachoRequestsSlower"], &[("TachoRequestsSlower", "endpoint")]),
    (
        "TachoDatabaseUnavailable",
        &["TachoJournalOld", "TachoJournalFilling"],
        &[("TachoJournalOld", "job"), ("TachoJournalWillBeFull", ""), ("TachoLimitStoreUnavailable", "")],
    ),
    ("TachoIngestStopped", &["TachoJournalWillBeFull", "TachoJournalFilling"], &[("TachoJournalFilling", "instance")]),
    ("TachoJournalWillBeFull", &["TachoJournalFilling"], &[("TachoJournalFilling", "instance")]),
    ("TachoExportFails", &["TachoExportLags"], &[("TachoExportLags", "sink")]),
    (
        "TachoLimitStoreUnavailable",
        &["TachoLimitsDegraded", "TachoRefusalsSpike"],
        &[("TachoRefusalsSpike", "job"), ("TachoLimitUsedUp", "")],
    ),
    (
        "TachoQuotaUsedUp",
        &["TachoLimitUsedUp", "TachoLimitUsed90", "TachoLimitUsed80", "TachoQuotaBurnsFast", "TachoRefusalsSpike"],
        &[("TachoLimitUsedUp", "limit"), ("TachoLimitStaysFull", "")],
    ),
    (
        "TachoLimitUsedUp",
        &[
            "TachoLimitUsed90",
            "TachoLimitUsed80",
            "TachoQuotaBurnsFast",
            "TachoQuotaBurnsSteadily",
            "TachoQuotaWillRunOut",
        ],
        &[("TachoLimitUsed90", "limit"), ("TachoQuotaUsedUp", "")],
    ),
    ("TachoLimitUsed90", &["TachoLimitUsed80"], &[("TachoLimitUsed80", "limit"), ("TachoQuotaBurnsFast", "")]),
    ("TachoQuotaBurnsFast", &["TachoQuotaBurnsSteadily", "TachoQuotaWillRunOut"], &[("TachoQuotaWillRunOut", "limit")]),
    ("TachoQuotaBurnsSteadily", &["TachoQuotaWillRunOut"], &[("TachoQuotaBurnsFast", "")]),
];

/// The labels that an alert of this name has, all with this value.
fn labels_of(name: &str, value: &str) -> Value {
    let labels: &[&str] = match name {
        "TachoTelemetryAbsent" | "TachoRequestsStopped" => &["job", "service"],
        "TachoRequestsSlow" | "TachoRequestsSlower" => &["job", "service", "endpoint"],
        "TachoExportFails" | "TachoExportLags" => &["job", "sink"],
        "TachoQuotaUsedUp" => &["limit", "subject"],
        "TachoLimitStoreUnavailable" | "TachoDatabaseUnavailable" | "TachoAbsent" => &["job"],
        "TachoIngestStopped" => &["job", "instance", "reason"],
        "TachoDown" | "TachoRestarts" => &["job", "instance"],
        name if name.starts_with("TachoJournal") => &["job", "instance"],
        _ => &["job", "limit"],
    };
    let labels = labels.iter().map(|label| ((*label).to_owned(), Value::from(value)));
    labels.chain([("alertname".to_owned(), name.into())]).collect()
}

#[tokio::test]
async fn what_follows_from_something_told_is_quiet() {
    let alertmanager = Shipped::start().await;
    for (place, (source, muted, loud)) in MUTES.iter().enumerate() {
        // Values of its own for each case, so that no case mutes what belongs to another.
        let (here, elsewhere) = (format!("case-{place}"), format!("not-case-{place}"));
        let muted: Vec<Value> = muted.iter().map(|name| labels_of(name, &here)).collect();
        let loud = loud.iter().map(|(name, differs)| {
            let mut labels = labels_of(name, &here);
            if !differs.is_empty() {
                labels[*differs] = elsewhere.as_str().into();
            }
            labels
        });
        let loud: Vec<Value> = loud.collect();
        let firing = [labels_of(source, &here)].into_iter().chain(muted.clone()).chain(loud.clone());
        alertmanager.push(firing.map(|labels| alert(labels, json!({}))).collect()).await;
        let started = Instant::now();
        let found = loop {
            let found = alertmanager.muted();
            if muted.iter().all(|labels| found.contains(labels)) {
                break found;
            }
            assert!(started.elapsed() < PATIENCE, "{source} should mute {muted:?}, and mutes {found:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        for labels in &loud {
            assert!(!found.contains(labels), "{source} mutes {labels}");
        }
    }
}
