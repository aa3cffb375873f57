//! Quotas that are used up, told to real Alertmanagers.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::alertmanager::Alertmanager;
use crate::support::client::{JSON, call, post};
use crate::support::load::Shape;
use crate::support::tacho_process::Tacho;

const SETTINGS: [(&str, &str); 2] = [("TACHO_ASSEMBLE__QUIET", "200ms"), ("TACHO_NOTIFY__RESEND_INTERVAL", "1s")];

fn configure(folder: &Path, limit: u32) {
    let limits = format!(
        r#"
[[limit]]
name = "free"
per = ["user"]
meter = "requests"
quota = {{ limit = {limit}, period = "year" }}

[[limit]]
name = "on-trial"
per = ["user"]
meter = "requests"
quota = {{ limit = 1, period = "year" }}
action = "shadow"
"#
    );
    std::fs::write(folder.join("tacho.toml"), limits).unwrap();
}

/// A request of `user-0` with one call, made now.
async fn request(tacho: &Tacho, number: u64) {
    let shape = Shape { seed: 3, traces: 1, calls: 1, users: 1, split: false, began: tacho::app::now().0 };
    assert_eq!(call(&shape.unit(number).bodies[0]).send(tacho.grpc).await, "Ok");
}

async fn check(tacho: &Tacho) -> u16 {
    post(JSON, r#"{"user":"user-0"}"#).path("/v1/check").send(tacho.http).await.status()
}

/// Waits until every one of them has alerts for which this holds; answers those of the first.
async fn until(tacho: &Tacho, managers: &[Alertmanager], holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let alerts: Vec<_> = managers.iter().map(|manager| manager.alerts(&[])).collect();
        if alerts.iter().all(|alerts| holds(alerts)) {
            return alerts[0].clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{alerts:#?}\n{}", tacho.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn used<'a>(count: &'a str) -> impl Fn(&[Value]) -> bool + 'a {
    move |alerts| matches!(alerts, [alert] if alert["annotations"]["used"] == count)
}

fn none(alerts: &[Value]) -> bool {
    alerts.is_empty()
}

/// One Alertmanager is not there and one never answers: the other two hear of everything all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_used_up_is_told_until_it_is_not() {
    let managers = [Alertmanager::start(), Alertmanager::start()];
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let urls = json!([
        format!("http://{}", silent.local_addr().unwrap()),
        format!("http://{gone}"),
        managers[0].url(),
        managers[1].url(),
    ]);
    let urls = urls.to_string();
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), 2);
    let database = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let settings = [SETTINGS[0], SETTINGS[1], ("TACHO_NOTIFY__ALERTMANAGER_URLS", &*urls)];
    let tacho = Tacho::start(folder.path(), &database, &settings);

    // By records alone, nobody has asked.
    request(&tacho, 1).await;
    request(&tacho, 2).await;
    let alerts = until(&tacho, &managers, used("2")).await;
    let labels = json!({
        "alertname": "TachoQuotaUsedUp",
        "severity": "critical",
        "limit": "free",
        "subject": "user user-0",
    });
    let year: u32 = tacho::app::now().to_string()[..4].parse().unwrap();
    let reset = format!("{}-01-01T00:00:00Z", year + 1);
    let annotations = json!({
        "summary": "Quota free of user user-0 is used up",
        "description":
            format!("user user-0 has used 2 of 2 requests. Requests that do not fit are refused until {reset}."),
        "runbook_url": "https://github.com/tacho/tacho/blob/main/docs/runbook.md#tachoquotausedup",
        "limit_amount": "2",
        "used": "2",
        "unit": "requests",
        "reset": reset,
    });
    assert_eq!((&alerts[0]["labels"], &alerts[0]["annotations"]), (&labels, &annotations));

    request(&tacho, 3).await;
    let later = until(&tacho, &managers, used("3")).await;
    assert_eq!(later[0]["startsAt"], alerts[0]["startsAt"]);
    assert!(later[0]["endsAt"].as_str() > alerts[0]["endsAt"].as_str());

    configure(folder.path(), 10);
    tacho.signal("-HUP");
    until(&tacho, &managers, none).await;

    // By a refusal: nothing is recorded now.
    configure(folder.path(), 3);
    tacho.signal("-HUP");
    let begun = Instant::now();
    while check(&tacho).await != 429 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", tacho.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until(&tacho, &managers, used("3")).await;
    let reset = post(JSON, r#"{"reason":"sorry"}"#)
        .path("/v1/accounts/default/user-0/reset")
        .token(&tacho.admin_token())
        .send(tacho.http)
        .await;
    assert_eq!(reset.status(), 200, "{}", reset.text());
    until(&tacho, &managers, none).await;

    // The one that never answers is given up after five seconds.
    let begun = Instant::now();
    while tacho.log().matches("notices do not get through").count() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", tacho.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let metrics = post(JSON, "").method("GET").path("/metrics").send(tacho.http).await.text();
    for result in ["sent", "failed"] {
        let series = format!("tacho_notifications_total{{result=\"{result}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&*series)).unwrap();
        assert!(count.parse::<u64>().unwrap() > 0, "{series}{count}");
    }
    tacho.stop();
}
