//! From the bot to the message: a request of the example bot uses up a budget; Tacho counts it, Prometheus scrapes it, a rule fires,
//! Alertmanager tells a webhook, and says so again when it is over. All configuration is what is shipped, with other addresses and
//! shorter waits.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::alertmanager::{Alertmanager, Inbox};
use crate::bot::{Program, python};
use crate::client::{JSON, post};
use crate::prometheus::Prometheus;
use crate::tacho_process::Tacho;

const LIMITED: &str = r#"
[[limit]]
name = "daily-requests"
per = ["user"]
meter = "requests"
quota = { limit = AMOUNT, period = "day" }
"#;

/// Time enough on a slow machine: a scrape, a rule, a group.
const PATIENCE: Duration = Duration::from_secs(90);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn limited(folder: &Path, amount: u32) {
    std::fs::write(folder.join("tacho.toml"), LIMITED.replace("AMOUNT", &amount.to_string())).unwrap();
}

/// The shipped configuration, with these addresses in the place of the names that compose gives.
fn prometheus_configuration(folder: &Path, tacho: &Tacho, alertmanager: &Alertmanager) -> PathBuf {
    let mut text = std::fs::read_to_string(root().join("deploy/prometheus/prometheus.yml")).unwrap();
    for (from, to) in [
        ("tacho:9464", tacho.http.to_string()),
        ("alertmanager:9093", alertmanager.address.to_string()),
        ("../../alerts", root().join("alerts").display().to_string()),
        ("scrape_interval: 15s", "scrape_interval: 1s".to_owned()),
        ("evaluation_interval: 15s", "evaluation_interval: 1s".to_owned()),
    ] {
        assert!(text.contains(from), "{from} is not in the configuration");
        text = text.replace(from, &to);
    }
    let path = folder.join("prometheus.yml");
    std::fs::write(&path, text).unwrap();
    path
}

async fn invoke(bot: &str, user: &'static str) -> u16 {
    let body = json!({"message": "hello"}).to_string();
    let ask = post(JSON, body).path("/agents/support/invoke").header("x-user-id", user);
    ask.send(bot.parse().unwrap()).await.status()
}

/// Waits for a message about this alert with this status, and returns the alert in it.
async fn told(inbox: &Inbox, name: &str, status: &str) -> Value {
    let begun = Instant::now();
    loop {
        let messages = inbox.messages();
        let alerts = messages.iter().flat_map(|message| message["alerts"].as_array().cloned().unwrap_or_default());
        let mut found = alerts.filter(|alert| alert["labels"]["alertname"] == name && alert["status"] == status);
        if let Some(alert) = found.next() {
            return alert;
        }
        assert!(begun.elapsed() < PATIENCE, "{name} is not {status}: {messages:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_budget_that_is_used_up_reaches_a_person_and_so_does_its_end() {
    let folder = tempfile::tempdir().unwrap();
    limited(folder.path(), 3);
    let inbox = Inbox::open().await;
    let alertmanager = Alertmanager::shipped(&inbox).await;
    let url = format!("[\"http://{}\"]", alertmanager.address);
    let settings = [("TACHO_ASSEMBLE__QUIET", "200ms"), ("TACHO_NOTIFY__ALERTMANAGER", &*url)];
    let tacho = Tacho::start(folder.path(), "sqlite:tacho.db", &settings);
    let prometheus = Prometheus::start(&prometheus_configuration(folder.path(), &tacho, &alertmanager), |_| {}).await;
    let (_model, model) = Program::start(&mut python("llm_stand_in.py"));
    let (_bot, bot) = Program::start(
        python("bot.py")
            .env("PYTHONPATH", root().join("deploy/python/src"))
            .env("TACHO_URL", format!("http://{}", tacho.http))
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", tacho.grpc))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
            .env("OTEL_SERVICE_NAME", "watched-bot")
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
            .env("OPENAI_BASE_URL", format!("http://{model}/v1"))
            .env("OPENAI_API_KEY", "none"),
    );
    for expected in [200, 200, 200, 429] {
        assert_eq!(invoke(&bot, "ann").await, expected);
    }
    // What Tacho says itself names the user; the rule, which sees no users, the limit.
    let pushed = told(&inbox, "TachoBudgetUsedUp", "firing").await;
    assert_eq!(pushed["labels"]["limit"], "daily-requests");
    assert_eq!(pushed["labels"]["subject"], "user ann");
    let by_rule = told(&inbox, USED_UP, "firing").await;
    assert_eq!((&by_rule["labels"]["limit"], &by_rule["labels"]["severity"]), (&json!("daily-requests"), &json!("critical")));
    assert!(by_rule["annotations"]["summary"].as_str().unwrap().contains("daily-requests"), "{by_rule:#}");
    prometheus.until("tacho_limit_decisions_total{decision=\"refuse\"} == 1", |found| !found.is_empty()).await;

    limited(folder.path(), 100);
    tacho.signal("-HUP");
    told(&inbox, "TachoBudgetUsedUp", "resolved").await;
    told(&inbox, USED_UP, "resolved").await;
    assert_eq!(invoke(&bot, "ann").await, 200);
    tacho.stop();
}

/// The rule for a limit of which nothing is left.
const USED_UP: &str = "TachoLimitUsedUp";
