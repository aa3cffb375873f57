//! Tacho at work with passwords for everything, logging all that any crate has to say, with every server up, then away,
//! and then with passwords that are wrong.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::CANARY;
use crate::support::alertmanager::Alertmanager;
use crate::support::client::{JSON, call, post};
use crate::support::fake_search::{FakeSearch, Product, RequestFault, Times};
use crate::support::load::Shape;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::tacho_process::Tacho;

const PATIENCE: Duration = Duration::from_secs(60);

const LIMIT: &str =
    "[[limit]]\nname = 'free'\nper = ['user']\nmeter = 'requests'\nquota = { limit = 1, period = 'year' }\n";

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letters = text.as_bytes().chunks_exact(3).flat_map(|part| {
        let bits = u32::from(part[0]) << 16 | u32::from(part[1]) << 8 | u32::from(part[2]);
        [18, 12, 6, 0].map(|shift| LETTERS[(bits >> shift & 63) as usize] as char)
    });
    letters.collect()
}

/// Every way in which the secret may be written.
fn assert_hidden(what: &str, text: &str) {
    let bytes = format!("{:?}", CANARY.as_bytes());
    let mut spellings = vec![CANARY.to_owned(), bytes.trim_matches(['[', ']']).to_owned()];
    // As the second half of a user and a password, wherever its first byte falls.
    spellings.extend((0..3).map(|skipped| base64(&CANARY[skipped..])));
    for spelling in spellings {
        let line = text.lines().find(|line| line.contains(&spelling));
        assert!(line.is_none(), "{what} tells a secret: {}", line.unwrap_or_default());
    }
}

struct Place {
    folder: tempfile::TempDir,
    settings: Vec<(&'static str, String)>,
    database: String,
}

impl Place {
    /// `password`: as URLs have it.
    fn new(postgres: &Postgres, redis: &Redis, managers: &[String], search: &FakeSearch, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tacho.toml"), LIMIT).unwrap();
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, format!("{CANARY}\n")).unwrap();
        let managers: Vec<String> = managers.iter().map(|host| format!("http://ops:{password}@{host}")).collect();
        let settings = vec![
            ("TACHO_TELEMETRY__LOG", "trace".to_owned()),
            ("TACHO_ASSEMBLE__QUIET", "100ms".to_owned()),
            ("TACHO_LIMITS__BACKEND", "redis".to_owned()),
            ("TACHO_LIMITS__URL", format!("redis://bot:{password}@127.0.0.1:{}", redis.port)),
            ("TACHO_NOTIFY__ALERTMANAGER_URLS", json!(managers).to_string()),
            ("TACHO_NOTIFY__RESEND_INTERVAL", "1s".to_owned()),
            ("TACHO_EXPORT__ELASTICSEARCH__URLS", json!([search.url()]).to_string()),
            ("TACHO_EXPORT__ELASTICSEARCH__START", "all".to_owned()),
            ("TACHO_EXPORT__ELASTICSEARCH__USERNAME", "bot".to_owned()),
            ("TACHO_EXPORT__ELASTICSEARCH__PASSWORD_FILE", password_file.display().to_string()),
        ];
        let port = postgres.port();
        let database =
            format!("postgres://bot:{password}@127.0.0.1:{port}/records?application_name=x&password={password}");
        Self { folder, settings, database }
    }

    fn start(&self) -> Tacho {
        let settings: Vec<(&str, &str)> = self.settings.iter().map(|(name, value)| (*name, &**value)).collect();
        Tacho::start(self.folder.path(), &self.database, &settings)
    }

    /// What a verb says, and its exit code.
    fn verb(&self, arguments: &[&str]) -> Option<i32> {
        let output = Command::new(env!("CARGO_BIN_EXE_tacho"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("TACHO_DATABASE__URL", &self.database)
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
        assert_hidden(&format!("{arguments:?}"), &said);
        output.status.code()
    }
}

const VERBS: [&[&str]; 10] = [
    &["report"],
    &["verify"],
    &["prices", "gpt-4o"],
    &["limits", "explain"],
    &["limits", "show", "user-0"],
    &["accounts", "list"],
    &["export", "status"],
    &["dead-letters", "list"],
    &["setup", "elasticsearch"],
    &["export", "elasticsearch", "--since", "1d"],
];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

async fn get(tacho: &Tacho, path: &'static str) -> String {
    post(JSON, "").method("GET").path(path).send(tacho.http).await.text()
}

async fn until(tacho: &Tacho, what: &str, holds: impl Fn(&str) -> bool) {
    let begun = Instant::now();
    while !holds(&tacho.log()) {
        let log = tacho.log();
        let end: Vec<&str> = log.lines().filter(|line| !line.contains("TRACE") && !line.contains("DEBUG")).collect();
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}: {}", end.join("\n"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_told_at_work_nor_in_trouble() {
    let mut postgres = Postgres::start();
    postgres.database("records");
    // With what must be spelled in other ways in URLs, in JSON and in Rust.
    let (password, in_url) = (format!("p@/\"\\ {CANARY}"), format!("p%40%2F%22%5C%20{CANARY}"));
    postgres.sql(&format!("CREATE USER bot SUPERUSER PASSWORD '{password}'"));
    postgres.admit("host all bot 127.0.0.1/32 scram-sha-256");
    let mut redis = Redis::start();
    redis.cli(&["ACL", "SETUSER", "bot", "on", &format!(">{password}"), "~*", "+@all"]);
    redis.cli(&["ACL", "SETUSER", "default", "off"]);
    let manager = Alertmanager::start();
    let search = FakeSearch::start(Product::Elasticsearch9).await;
    let managers = [manager.address.to_string(), "127.0.0.1:1".to_owned()];
    let place = Place::new(&postgres, &redis, &managers, &search, &in_url);
    let tacho = place.start();
    let shape = Shape { seed: 3, traces: 1, calls: 1, users: 1, split: false, began: tacho::app::now().0 };
    assert_eq!(call(&shape.unit(1).bodies[0]).send(tacho.grpc).await, "Ok");
    let begun = Instant::now();
    while manager.alerts(&[]).is_empty() || !search.indices().iter().any(|index| index.starts_with("tacho-usage")) {
        assert!(begun.elapsed() < PATIENCE, "{:?} {:?}", manager.alerts(&[]), search.indices());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for verb in VERBS {
        assert_eq!(place.verb(verb), Some(0), "{verb:?}");
    }
    for path in ["/metrics", "/readyz", "/livez", "/v1/usage", "/v1/accounts", "/nothing"] {
        assert_hidden(path, &get(&tacho, path).await);
    }
    // All of them go away.
    postgres.halt();
    redis.kill();
    drop(manager);
    drop(search);
    assert_eq!(call(&shape.unit(2).bodies[0]).send(tacho.grpc).await, "Ok");
    until(&tacho, "outages", |log| ["database away", "limit store away"].iter().all(|said| log.contains(said))).await;
    for verb in VERBS {
        place.verb(verb);
    }
    for path in ["/metrics", "/readyz", "/v1/usage", "/v1/accounts/default/user-0"] {
        assert_hidden(path, &get(&tacho, path).await);
    }
    assert!(tacho.log().contains("TRACE"), "there are no traces to look at");
    drop(tacho);
    for file in files(place.folder.path()) {
        if file.file_name().unwrap() != "password" {
            assert_hidden(&file.display().to_string(), &String::from_utf8_lossy(&std::fs::read(&file).unwrap()));
        }
    }

    // The passwords are wrong.
    postgres.resume();
    redis.again();
    redis.cli(&["ACL", "SETUSER", "bot", "on", ">other", "~*", "+@all"]);
    let search = FakeSearch::start(Product::Elasticsearch9).await;
    let wrong = Place::new(&postgres, &redis, &managers, &search, &format!("no%20{CANARY}"));
    for verb in VERBS {
        wrong.verb(verb);
    }
    assert_eq!(wrong.verb(&["report"]), Some(1));
    // A database that refuses us is no outage.
    assert_eq!(wrong.verb(&["run"]), Some(1));
    postgres = Postgres::start();
    let fresh = postgres.database("records");
    let wrong = Place { database: fresh, ..wrong };
    let tacho = wrong.start();
    until(&tacho, "a refusal", |log| log.contains("limit store away") && log.contains("AuthenticationFailed")).await;
    assert_hidden("the log", &tacho.log());
}

/// A server, or something before it, may repeat what it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_a_server_repeats_is_hidden() {
    const REPEATED: &str =
        r#"{"error":{"type":"security_exception","reason":"bot:hunter2canary may not"},"status":403}"#;
    assert!(REPEATED.contains(CANARY));
    let search = FakeSearch::start(Product::Elasticsearch9).await;
    search.fail_requests("", RequestFault::Answer(403, REPEATED), Times::UntilCleared);
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, CANARY).unwrap();
    let settings = vec![
        ("TACHO_ASSEMBLE__QUIET", "100ms".to_owned()),
        ("TACHO_EXPORT__ELASTICSEARCH__URLS", json!([search.url()]).to_string()),
        ("TACHO_EXPORT__ELASTICSEARCH__START", "all".to_owned()),
        ("TACHO_EXPORT__ELASTICSEARCH__USERNAME", "bot".to_owned()),
        ("TACHO_EXPORT__ELASTICSEARCH__PASSWORD_FILE", password_file.display().to_string()),
    ];
    let database = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let place = Place { folder, settings, database };
    assert_eq!(place.verb(&["setup", "elasticsearch"]), Some(1));
    for format in ["text", "json"] {
        let mut settings: Vec<(&str, &str)> = place.settings.iter().map(|(name, value)| (*name, &**value)).collect();
        settings.push(("TACHO_TELEMETRY__LOG_FORMAT", format));
        let tacho = Tacho::start(place.folder.path(), &place.database, &settings);
        let shape = Shape { seed: 3, traces: 1, calls: 1, users: 1, split: false, began: tacho::app::now().0 };
        assert_eq!(call(&shape.unit(1).bodies[0]).send(tacho.grpc).await, "Ok");
        until(&tacho, "the refusal", |log| log.contains("bot:*** may not")).await;
        assert_hidden("the log", &tacho.log());
        drop(std::fs::remove_file(place.folder.path().join("tacho.log")));
    }
}
