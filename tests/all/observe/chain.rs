//! From the bot to the message: a request of the example bot uses up a budget; Tacho counts it, Prometheus scrapes it, a rule fires,
//! Alertmanager tells a webhook, and says so again when it is over. All configuration is what is shipped, with other addresses and
//! shorter waits.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::deploy::receivers::Shipped;
use crate::support::bot::{self, Program, python};
use crate::support::client::{JSON, post};
use crate::support::prometheus::Prometheus;
use crate::support::tacho_process::Tacho;

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

/// The shipped rules, which wait for nothing.
fn rules(folder: &Path) -> PathBuf {
    let rules = folder.join("alerts");
    std::fs::create_dir(&rules).unwrap();
    for name in ["recording.yml", "limits.yml"] {
        let text = std::fs::read_to_string(root().join("alerts").join(name)).unwrap();
        std::fs::write(rules.join(name), text.replace("for: 2m", "for: 0s")).unwrap();
    }
    rules
}

/// The shipped configuration, with these addresses in the place of the names that compose gives.
fn prometheus_configuration(folder: &Path, tacho: &Tacho, alertmanager: &Shipped) -> PathBuf {
    let mut text = std::fs::read_to_string(root().join("deploy/prometheus/prometheus.yml")).unwrap();
    for (from, to) in [
        ("tacho:9464", tacho.http.to_string()),
        ("alertmanager:9093", alertmanager.address().to_string()),
        ("../../alerts", rules(folder).display().to_string()),
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

/// The example bot, its model, and Tacho between them.
struct Watched {
    folder: tempfile::TempDir,
    tacho: Tacho,
    alertmanager: Shipped,
    prometheus: Prometheus,
    bot: String,
    _programs: [Program; 2],
}

impl Watched {
    /// With a budget of three requests a day. `pushes`: Tacho tells Alertmanager itself, too.
    async fn start(pushes: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        limited(folder.path(), 3);
        let alertmanager = Shipped::start().await;
        let to = if pushes { format!("[\"http://{}\"]", alertmanager.address()) } else { "[]".to_owned() };
        let settings = [
            ("TACHO_ASSEMBLE__QUIET", "200ms"),
            ("TACHO_NOTIFY__ALERTMANAGER_URLS", &*to),
            ("TACHO_NOTIFY__RESEND_INTERVAL", "2s"),
        ];
        let tacho = Tacho::start(folder.path(), "sqlite:tacho.db", &settings);
        let config = prometheus_configuration(folder.path(), &tacho, &alertmanager);
        let prometheus = Prometheus::start(&config, |_| {}).await;
        let (model, model_address) = Program::start(&mut python("llm_stand_in.py"));
        let (program, bot) = bot::limited(&tacho, "watched-bot", &model_address);
        Self { folder, tacho, alertmanager, prometheus, bot, _programs: [model, program] }
    }

    async fn invoke(&self, user: &'static str) -> u16 {
        let body = json!({"message": "hello"}).to_string();
        let ask = post(JSON, body).path("/agents/support/invoke").header("x-user-id", user);
        ask.send(self.bot.parse().unwrap()).await.status()
    }

    async fn uses_up(&self, user: &'static str) {
        for expected in [200, 200, 200, 429] {
            assert_eq!(self.invoke(user).await, expected);
        }
    }

    fn raises_the_limit(&self) {
        limited(self.folder.path(), 100);
        self.tacho.signal("-HUP");
    }

    /// Waits until the webhook hears of this alert with this status; the alert.
    async fn told(&self, name: &str, status: &str) -> Value {
        let begun = Instant::now();
        loop {
            let message = self.alertmanager.heard.next("/webhook").await.json();
            let alerts = message["alerts"].as_array().unwrap();
            let is_it = |alert: &&Value| alert["labels"]["alertname"] == name && alert["status"] == status;
            if let Some(alert) = alerts.iter().find(is_it) {
                return alert.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "{name} is not {status}: {message:#}");
        }
    }
}

fn text<'v>(alert: &'v Value, annotation: &str) -> &'v str {
    alert["annotations"][annotation].as_str().unwrap_or_else(|| panic!("no {annotation}: {alert:#}"))
}

#[tokio::test]
async fn what_a_rule_finds_reaches_a_person_and_so_does_its_end() {
    let watched = Watched::start(false).await;
    watched.uses_up("ann").await;
    let alert = watched.told("TachoLimitUsedUp", "firing").await;
    assert_eq!(
        alert["labels"],
        json!({
            "alertname": "TachoLimitUsedUp", "job": "tacho", "limit": "daily-requests", "severity": "critical",
        })
    );
    assert_eq!(
        text(&alert, "summary"),
        "Limit daily-requests is used up by 1 subject(s), by the one that uses most to 100%"
    );
    assert_eq!([text(&alert, "limit"), text(&alert, "used"), text(&alert, "amount")], ["daily-requests", "100%", "3"]);
    let midnight = text(&alert, "reset");
    assert!(midnight.ends_with(" 00:00:00 +0000 UTC"), "{midnight}");
    // What the page says and what Prometheus has are one.
    let refusals = "sum(tacho_limit_decisions_total{limit=\"daily-requests\",decision=\"refuse\"}) == 1";
    watched.prometheus.until(refusals, |found| !found.is_empty()).await;

    watched.raises_the_limit();
    watched.told("TachoLimitUsedUp", "resolved").await;
    assert_eq!(watched.invoke("ann").await, 200);
    watched.tacho.stop();
}

#[tokio::test]
async fn what_tacho_pushes_names_the_user_and_mutes_the_rule() {
    let watched = Watched::start(true).await;
    watched.uses_up("ann").await;
    let alert = watched.told("TachoQuotaUsedUp", "firing").await;
    assert_eq!(alert["labels"]["limit"], "daily-requests");
    assert_eq!(alert["labels"]["subject"], "user ann");
    assert_eq!(text(&alert, "summary"), "Quota daily-requests of user ann is used up");
    assert_eq!([text(&alert, "used"), text(&alert, "limit_amount"), text(&alert, "unit")], ["3", "3", "requests"]);
    let firing = "ALERTS{alertname=\"TachoLimitUsedUp\",alertstate=\"firing\"}";
    watched.prometheus.until(firing, |found| !found.is_empty()).await;

    watched.raises_the_limit();
    watched.told("TachoQuotaUsedUp", "resolved").await;
    assert_eq!(watched.invoke("ann").await, 200);
    watched.tacho.stop();
}
