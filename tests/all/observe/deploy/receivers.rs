//! A real Alertmanager with the configuration that is shipped: who hears what, word for word, and what is kept quiet.
//! Only where things are is rewritten, and how long Alertmanager gathers before it speaks.
#![allow(clippy::too_many_lines, reason = "most of them are the messages")]

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use expect_test::expect;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::listeners::{self, Heard, Told, part};
use super::{output, read};
use crate::support::alertmanager::Alertmanager;
use crate::support::client::{JSON, post};

/// Long enough for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running Alertmanager with the shipped configuration, and what its receivers heard.
pub struct Shipped {
    running: Alertmanager,
    pub heard: Heard,
    _tasks: JoinSet<()>,
}

/// The shipped configuration with other places in it. What is to be replaced must be there.
fn rewritten(http: SocketAddr, mail: SocketAddr, secrets: &str) -> String {
    let mut config = read("deploy/alertmanager/alertmanager.yml");
    let mut replace = |from: &str, to: &str| {
        assert!(config.contains(from), "{from} is not in the configuration");
        config = config.replace(from, to);
    };
    replace("/etc/alertmanager/secrets", secrets);
    replace("smtp.example.com:587", &mail.to_string());
    // The mail server here has no certificate.
    replace("smtp_require_tls: true", "smtp_require_tls: false");
    replace("https://billing.example.com/hooks/tacho", &format!("http://{http}/webhook"));
    let bot = "- bot_token: 123456789:replace-me\n";
    replace(bot, &format!("{bot}        api_url: http://{http}/telegram\n"));
    for (key, most) in [("group_wait", "3s"), ("group_interval", "1s")] {
        let lines = config.lines().map(|line| match line.split_once(&format!("{key}: ")) {
            Some((indent, _)) => format!("{indent}{key}: {most}"),
            None => line.to_owned(),
        });
        config = lines.collect::<Vec<_>>().join("\n");
    }
    config
}

impl Shipped {
    pub async fn start() -> Self {
        let heard = Heard::default();
        let mut tasks = JoinSet::new();
        let http = listeners::http(&heard, &mut tasks).await;
        let mail = listeners::mail(&heard, &mut tasks).await;
        let folder = tempfile::tempdir().unwrap();
        let secrets = folder.path().join("secrets");
        std::fs::create_dir(&secrets).unwrap();
        for name in ["warning", "example-bot", "info"] {
            std::fs::write(secrets.join(format!("slack-{name}-url")), format!("http://{http}/slack/{name}\n")).unwrap();
        }
        std::fs::write(secrets.join("smtp-password"), "not-told-to-anybody").unwrap();
        std::fs::write(secrets.join("webhook-token"), "as-secret").unwrap();
        let config = folder.path().join("alertmanager.yml");
        std::fs::write(&config, rewritten(http, mail, secrets.to_str().unwrap())).unwrap();
        output(Command::new("cp").args(["-r", "deploy/alertmanager/templates"]).arg(folder.path()));

        Self { running: Alertmanager::within(folder), heard, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.running.address
    }

    pub async fn push(&self, alerts: Value) {
        let answer = post(JSON, alerts.to_string()).path("/api/v2/alerts").send(self.address()).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    /// Labels of the alerts that Alertmanager has now but tells nobody.
    pub fn muted(&self) -> Vec<Value> {
        let alerts = self.running.alerts(&["--inhibited"]);
        alerts.into_iter().map(|alert| alert["labels"].clone()).collect()
    }
}

const TELEGRAM: &str = "/telegram/bot123456789:replace-me/sendMessage";

/// An alert with these labels and annotations, firing from now on: of one that is older than `group_wait`, Alertmanager
/// speaks before it has heard of the others.
pub fn alert(labels: Value, annotations: Value) -> Value {
    json!({"labels": labels, "annotations": annotations, "startsAt": tacho::app::now().to_string()})
}

/// The same, over now.
fn ended(mut alert: Value) -> Value {
    alert["endsAt"] = tacho::app::now().to_string().into();
    alert
}

/// A text with the times of this alert named. It began some seconds before it ended, as it was told in between.
fn named(text: &str, alert: &Value) -> String {
    let mut text = text.to_owned();
    for (key, name) in [("startsAt", "BEGAN"), ("endsAt", "ENDED")] {
        if let Some(time) = alert[key].as_str() {
            text = text.replace(&format!("{} {} UTC", &time[..10], &time[11..19]), name);
        }
    }
    text
}

/// As Tacho pushes it.
fn used_up(subject: &str) -> Value {
    alert(
        json!({
            "alertname": "TachoQuotaUsedUp", "severity": "critical",
            "limit": "free-plan-month", "subject": subject,
        }),
        json!({
            "summary": format!("Quota free-plan-month of {subject} is used up"),
            "description": format!("{subject} has used 5.02 of 5 USD. Requests that do not fit are refused until 2026-06-01T00:00:00Z."),
            "runbook_url": "https://example.com/runbook.md#tachoquotausedup",
            "limit_amount": "5", "used": "5.02", "unit": "USD", "reset": "2026-06-01T00:00:00Z",
        }),
    )
}

/// As Prometheus sends that of a rule.
fn used_to(name: &str, severity: &str, share: &str) -> Value {
    alert(
        json!({"alertname": name, "severity": severity, "job": "tacho", "limit": "day-budget"}),
        json!({
            "summary": format!("Limit day-budget is used to {share} by the subject that uses most"),
            "description": "First see who it is: tacho limits show.",
            "runbook_url": format!("https://example.com/runbook.md#{}", name.to_lowercase()),
            "limit": "day-budget", "used": share, "amount": "50", "reset": "2026-05-20 22:00:00 +0000 UTC",
        }),
    )
}

fn telegram(told: &Told) -> String {
    let message = told.json();
    assert_eq!((&message["parse_mode"], &message["chat_id"]), (&"HTML".into(), &"-1001234567890".into()));
    message["text"].as_str().unwrap().to_owned()
}

fn slack(told: &Told) -> String {
    let shown = &told.json()["attachments"][0];
    let [color, title, text] = ["color", "title", "text"].map(|key| shown[key].as_str().unwrap());
    format!("[{color}] {title}\n{text}")
}

/// The subject line and the text part.
fn mail(told: &Told) -> String {
    let subject = told.text.lines().find(|line| line.starts_with("Subject: ")).unwrap();
    format!("{subject}\n\n{}", part(&told.text, "text/plain"))
}

#[tokio::test]
async fn a_budget_used_up_is_told_by_telegram_mail_and_webhook() {
    let alertmanager = Shipped::start().await;
    let heard = &alertmanager.heard;
    // The second name tries to break out of the markup.
    let (mut ann, mut bob) = (used_up("user ann"), used_up("user </b>&bob"));
    bob["startsAt"] = ann["startsAt"].clone();
    alertmanager.push(json!([ann, bob])).await;

    expect![[r#"
        <b>CRITICAL: TachoQuotaUsedUp, limit free-plan-month (2 firing)</b>

        <b>Quota free-plan-month of user &lt;/b&gt;&amp;bob is used up</b>
        Limit: <code>free-plan-month</code>
        Subject: user &lt;/b&gt;&amp;bob
        Used: 5.02 of 5 USD
        Resets: 2026-06-01T00:00:00Z
        Since BEGAN

        <b>Quota free-plan-month of user ann is used up</b>
        Limit: <code>free-plan-month</code>
        Subject: user ann
        Used: 5.02 of 5 USD
        Resets: 2026-06-01T00:00:00Z
        Since BEGAN

        <a href="https://example.com/runbook.md#tachoquotausedup">Runbook</a>"#]]
    .assert_eq(&named(&telegram(&heard.next(TELEGRAM).await), &bob));
    let told = heard.next("mail").await;
    // `tacho@example.com` and the password from its file.
    assert_eq!(told.login, "AUTH PLAIN AHRhY2hvQGV4YW1wbGUuY29tAG5vdC10b2xkLXRvLWFueWJvZHk=");
    expect![[r#"
        Subject: CRITICAL: TachoQuotaUsedUp, limit free-plan-month (2 firing)

        CRITICAL: TachoQuotaUsedUp, limit free-plan-month (2 firing)

        Quota free-plan-month of user </b>&bob is used up
        Limit:   free-plan-month
        Subject: user </b>&bob
        Used:    5.02 of 5 USD
        Resets:  2026-06-01T00:00:00Z
        Since:   BEGAN
        user </b>&bob has used 5.02 of 5 USD. Requests that do not fit are refused until 2026-06-01T00:00:00Z.

        Quota free-plan-month of user ann is used up
        Limit:   free-plan-month
        Subject: user ann
        Used:    5.02 of 5 USD
        Resets:  2026-06-01T00:00:00Z
        Since:   BEGAN
        user ann has used 5.02 of 5 USD. Requests that do not fit are refused until 2026-06-01T00:00:00Z.

        Runbook: https://example.com/runbook.md#tachoquotausedup
    "#]]
    .assert_eq(&named(&mail(&told), &bob));
    expect![[r#"
        <!DOCTYPE html>
        <html><body style="font-family: sans-serif">
        <h3>CRITICAL: TachoQuotaUsedUp, limit free-plan-month (2 firing)</h3>
        <p><b>Quota free-plan-month of user &lt;/b&gt;&amp;bob is used up</b></p>
        <table>
        <tr><td>Limit</td><td><code>free-plan-month</code></td></tr>
        <tr><td>Subject</td><td>user &lt;/b&gt;&amp;bob</td></tr>
        <tr><td>Used</td><td>5.02 of 5 USD</td></tr>
        <tr><td>Resets</td><td>2026-06-01T00:00:00Z</td></tr>
        <tr><td>Since</td><td>BEGAN</td></tr>
        </table>
        <p>user &lt;/b&gt;&amp;bob has used 5.02 of 5 USD. Requests that do not fit are refused until 2026-06-01T00:00:00Z.</p>
        <p><b>Quota free-plan-month of user ann is used up</b></p>
        <table>
        <tr><td>Limit</td><td><code>free-plan-month</code></td></tr>
        <tr><td>Subject</td><td>user ann</td></tr>
        <tr><td>Used</td><td>5.02 of 5 USD</td></tr>
        <tr><td>Resets</td><td>2026-06-01T00:00:00Z</td></tr>
        <tr><td>Since</td><td>BEGAN</td></tr>
        </table>
        <p>user ann has used 5.02 of 5 USD. Requests that do not fit are refused until 2026-06-01T00:00:00Z.</p>
        <p><a href="https://example.com/runbook.md#tachoquotausedup">Runbook</a></p>
        </body></html>
    "#]].assert_eq(&named(&part(&told.text, "text/html"), &bob));
    let hook = heard.next("/webhook").await;
    assert_eq!((hook.login.as_str(), &hook.json()["status"]), ("Bearer as-secret", &"firing".into()));
    let labels = |told: &Told| {
        told.json()["alerts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|alert| alert["labels"]["subject"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(labels(&hook), ["user </b>&bob", "user ann"]);

    // One of them has budget again, then the other.
    ann = ended(ann);
    alertmanager.push(json!([ann])).await;
    expect![[r#"
        <b>CRITICAL: TachoQuotaUsedUp, limit free-plan-month (1 firing, 1 resolved)</b>

        <b>Quota free-plan-month of user &lt;/b&gt;&amp;bob is used up</b>
        Limit: <code>free-plan-month</code>
        Subject: user &lt;/b&gt;&amp;bob
        Used: 5.02 of 5 USD
        Resets: 2026-06-01T00:00:00Z
        Since BEGAN

        <b>Resolved:</b> Quota free-plan-month of user ann is used up
        Limit: <code>free-plan-month</code>
        Subject: user ann
        Used: 5.02 of 5 USD
        Resets: 2026-06-01T00:00:00Z
        From BEGAN to ENDED

        <a href="https://example.com/runbook.md#tachoquotausedup">Runbook</a>"#]]
    .assert_eq(&named(&telegram(&heard.next(TELEGRAM).await), &ann));
    heard.next("mail").await;
    heard.next("/webhook").await;
    bob = ended(bob);
    alertmanager.push(json!([bob])).await;
    expect![[r#"
        <b>RESOLVED: TachoQuotaUsedUp, limit free-plan-month</b>

        <b>Resolved:</b> Quota free-plan-month of user &lt;/b&gt;&amp;bob is used up
        Limit: <code>free-plan-month</code>
        Subject: user &lt;/b&gt;&amp;bob
        Used: 5.02 of 5 USD
        Resets: 2026-06-01T00:00:00Z
        From BEGAN to ENDED

    "#]]
    .assert_eq(&named(&telegram(&heard.next(TELEGRAM).await), &bob));
    expect![[r#"
        Subject: RESOLVED: TachoQuotaUsedUp, limit free-plan-month

        RESOLVED: TachoQuotaUsedUp, limit free-plan-month

        Resolved: Quota free-plan-month of user </b>&bob is used up
        Limit:   free-plan-month
        Subject: user </b>&bob
        Used:    5.02 of 5 USD
        Resets:  2026-06-01T00:00:00Z
        From:    BEGAN
        To:      ENDED

    "#]]
    .assert_eq(&named(&mail(&heard.next("mail").await), &bob));
    assert_eq!(heard.next("/webhook").await.json()["status"], "resolved");
    assert_eq!(heard.rest(), [""; 0]);
}

#[tokio::test]
async fn warnings_and_advice_go_to_their_channels() {
    let alertmanager = Shipped::start().await;
    let heard = &alertmanager.heard;
    let mut at_90 = used_to("TachoLimitUsed90", "warning", "92.5%");
    alertmanager.push(json!([at_90])).await;
    expect![[r#"
        [warning] WARNING: TachoLimitUsed90, limit day-budget (1 firing)
        *Limit day-budget is used to 92.5% by the subject that uses most*
        Limit: `day-budget`
        Used: 92.5% of 50
        Resets: 2026-05-20 22:00:00 +0000 UTC
        Since BEGAN

        First see who it is: tacho limits show.
        <https://example.com/runbook.md#tacholimitused90|Runbook>"#]]
    .assert_eq(&named(&slack(&heard.next("/slack/warning").await), &at_90));
    at_90 = ended(at_90);
    alertmanager.push(json!([at_90])).await;
    expect![[r#"
        [good] RESOLVED: TachoLimitUsed90, limit day-budget
        *Resolved:* Limit day-budget is used to 92.5% by the subject that uses most
        Limit: `day-budget`
        Used: 92.5% of 50
        Resets: 2026-05-20 22:00:00 +0000 UTC
        From BEGAN to ENDED

    "#]]
    .assert_eq(&named(&slack(&heard.next("/slack/warning").await), &at_90));
    // Muted as long as the warning was there.
    let at_80 = used_to("TachoLimitUsed80", "info", "80%");
    alertmanager.push(json!([at_80])).await;
    expect![[r#"
        [#439fe0] INFO: TachoLimitUsed80, limit day-budget (1 firing)
        *Limit day-budget is used to 80% by the subject that uses most*
        Limit: `day-budget`
        Used: 80% of 50
        Resets: 2026-05-20 22:00:00 +0000 UTC
        Since BEGAN

        First see who it is: tacho limits show.
        <https://example.com/runbook.md#tacholimitused80|Runbook>"#]]
    .assert_eq(&named(&slack(&heard.next("/slack/info").await), &at_80));

    let labels =
        json!({"alertname": "TachoTelemetryAbsent", "severity": "warning", "job": "tacho", "service": "example-bot"});
    let annotations = json!({"summary": "<example-bot> & others sent nothing for 15m", "description": "It stopped, or its exporter did."});
    let silent = alert(labels, annotations);
    alertmanager.push(json!([silent])).await;
    expect![[r#"
        [warning] WARNING: TachoTelemetryAbsent, service example-bot (1 firing)
        *&lt;example-bot&gt; &amp; others sent nothing for 15m*
        Since BEGAN

        It stopped, or its exporter did.
    "#]]
    .assert_eq(&named(&slack(&heard.next("/slack/example-bot").await), &silent));
    assert_eq!(heard.rest(), [""; 0]);
}

#[tokio::test]
async fn telegram_takes_a_message_however_hostile_the_names() {
    let alertmanager = Shipped::start().await;
    let subjects = (0..40).map(|number| used_up(&format!("user {number} {}", "'\"<&>+".repeat(40))));
    alertmanager.push(subjects.collect()).await;
    let text = telegram(&alertmanager.heard.next(TELEGRAM).await);
    // Beyond 4096 Alertmanager would have cut it, perhaps within a tag.
    assert!(text.chars().count() < 4096 && text.ends_with(">Runbook</a>"), "{} {text}", text.len());
    assert!(text.contains("The first 2 of 40 that fire."), "{text}");
}
