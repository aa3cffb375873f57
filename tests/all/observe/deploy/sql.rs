//! The queries for people, run by `psql` and `sqlite3` as people run them, over what the real binary has made of spans.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{output, read, root};
use crate::e2e::durability::until;
use crate::support::client::{JSON, post};
use crate::support::postgres::Postgres;
use crate::support::tacho_process::Tacho;

/// A dollar for a million tokens that go in, two for a million that come out.
const PRICES: &str = r#"{"providers": [{"id": "house", "models": [
    {"id": "model-a", "prices": [{"input": 1000000000, "output": 2000000000}]}, {"id": "model-b", "prices": []}]}]}"#;

/// Periods that never end, so that the time of the test is nobody's business.
const SETTINGS: &str = r#"
[assemble]
quiet = "100ms"
[plans]
free = { default = true, free_requests = 1, period = "lifetime" }
[[limit]]
name = "free-requests"
per = ["user"]
meter = "requests"
quota = { limit = 4, period = "lifetime" }
warn_at = [0.5]
[[limit]]
name = "budget"
meter = "cost"
quota = { limit = 2, period = "lifetime" }
warn_at = [0.5]
"#;

/// A request with a call of this model, which says these tokens, or does not say any.
struct Asked {
    user: &'static str,
    at: &'static str,
    status: u16,
    call: Option<(&'static str, Option<(u64, u64)>)>,
}

const ASKED: [Asked; 6] = [
    Asked { user: "ann", at: "2026-04-01T08:00:00Z", status: 200, call: Some(("model-a", Some((1_000_000, 0)))) },
    Asked { user: "ann", at: "2026-05-19T10:05:00Z", status: 200, call: Some(("model-a", Some((1_000, 500)))) },
    Asked { user: "ann", at: "2026-05-19T10:20:00Z", status: 500, call: None },
    Asked { user: "bob", at: "2026-05-19T12:00:00Z", status: 200, call: Some(("model-a", Some((2_000, 1_000)))) },
    Asked { user: "bob", at: "2026-05-19T12:30:00Z", status: 200, call: Some(("model-b", Some((10, 20)))) },
    Asked { user: "eve", at: "2026-05-19T12:45:00Z", status: 200, call: Some(("model-a", None)) },
];

fn attributes(pairs: &[(&str, Value)]) -> Value {
    pairs.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
}

/// The request and its call as a bot exports them.
fn body(number: usize, asked: &Asked) -> String {
    let text = |value: &str| json!({"stringValue": value});
    let start = tacho_core::domain::time::Timestamp::parse(asked.at).unwrap().0;
    let span = |id: &str, kind: u8, more: Value| {
        let mut span = json!({
            "traceId": format!("{:032x}", number + 1), "spanId": id, "name": "span", "kind": kind,
            "startTimeUnixNano": start.to_string(), "endTimeUnixNano": (start + 1_500_000_000).to_string(),
        });
        span.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        span
    };
    let request = [
        ("http.request.method", text("POST")),
        ("http.route", text("/chat")),
        ("http.response.status_code", json!({"intValue": asked.status.to_string()})),
        ("user.id", text(asked.user)),
    ];
    let mut spans = vec![span("00000000000000aa", 2, json!({"attributes": attributes(&request)}))];
    if let Some((model, tokens)) = asked.call {
        let mut call = vec![
            ("gen_ai.provider.name", text("house")),
            ("gen_ai.operation.name", text("chat")),
            ("gen_ai.request.model", text(model)),
        ];
        if let Some((input, output)) = tokens {
            call.push(("gen_ai.usage.input_tokens", json!({"intValue": input.to_string()})));
            call.push(("gen_ai.usage.output_tokens", json!({"intValue": output.to_string()})));
        }
        let more = json!({"attributes": attributes(&call), "parentSpanId": "00000000000000aa"});
        spans.push(span("00000000000000bb", 3, more));
    }
    let service = attributes(&[("service.name", text("bot"))]);
    json!({"resourceSpans": [{"resource": {"attributes": service}, "scopeSpans": [{"spans": spans}]}]}).to_string()
}

/// Tacho takes the requests one after the other and stops.
async fn fill(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let prices = folder.path().join("prices.json");
    std::fs::write(&prices, PRICES).unwrap();
    std::fs::write(folder.path().join("tacho.toml"), SETTINGS).unwrap();
    let tacho = Tacho::start(folder.path(), url, &[("TACHO_PRICES__OVERRIDE", prices.to_str().unwrap())]);
    for (number, asked) in ASKED.iter().enumerate() {
        let answer = post(JSON, body(number, asked)).path("/v1/traces").send(tacho.otlp_http).await;
        assert_eq!(answer.line(), "200");
        // One after the other, so that it is known which of them is free.
        until(&tacho, &format!("tacho_persist_records_total{{result=\"new\"}} {}", number + 1)).await;
    }
    tacho.stop();
}

/// The two databases, as they are reached by the programs of people.
struct Databases {
    folder: tempfile::TempDir,
    _server: Postgres,
    postgres: String,
}

impl Databases {
    async fn filled() -> Self {
        let (folder, server) = (tempfile::tempdir().unwrap(), Postgres::start());
        let postgres = server.database("sql");
        let both = Self { folder, _server: server, postgres };
        fill(&format!("sqlite:{}", both.file())).await;
        fill(&both.postgres).await;
        both
    }

    fn file(&self) -> String {
        self.folder.path().join("tacho.db").display().to_string()
    }

    fn psql(&self, arguments: &[&str]) -> String {
        // Of a person in another time zone.
        let mut psql = Command::new("psql");
        psql.env("PGTZ", "America/New_York").args([
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "-P",
            "footer=off",
            "-v",
            "ON_ERROR_STOP=1",
        ]);
        output(psql.args(arguments).arg(&self.postgres))
    }

    fn sqlite3(&self, path: &str) -> String {
        let query = File::open(root().join(path)).unwrap();
        let mut sqlite3 = Command::new("sqlite3");
        sqlite3.args(["-readonly", "-header", "-list", "-bail", &self.file()]).stdin(query);
        output(&mut sqlite3)
    }

    /// What the file of this name answers in each.
    fn answers(&self, name: &str) -> [String; 2] {
        let path = |database: &str| format!("deploy/sql/{database}/{name}.sql");
        [self.psql(&["--file", &path("postgres")]), self.sqlite3(&path("sqlite"))]
    }

    /// The same in both.
    fn check(&self, name: &str, expected: Expect) {
        let [postgres, sqlite] = self.answers(name);
        expected.assert_eq(&postgres);
        // A heading comes with rows only in `sqlite3`.
        assert!(
            sqlite == postgres || sqlite.is_empty() && postgres.lines().count() == 1,
            "{name}\n{postgres}\n{sqlite}"
        );
    }
}

#[tokio::test]
async fn both_databases_answer_every_question() {
    let both = Databases::filled().await;
    both.check("last-records", expect![[r#"
        started_at_utc|tenant|user_id|endpoint|status_code|response_time_ms|model|llm_calls|known_tokens|cost_usd|unknown_usage_calls|unpriced_calls|trace_id
        2026-05-19 12:45:00|default|eve|/chat|200|1500|model-a|1|||1|0|00000000000000000000000000000006
        2026-05-19 12:30:00|default|bob|/chat|200|1500|model-b|1|30||0|1|00000000000000000000000000000005
        2026-05-19 12:00:00|default|bob|/chat|200|1500|model-a|1|3000|0.004000000|0|0|00000000000000000000000000000004
        2026-05-19 10:20:00|default|ann|/chat|500|1500||0|0|0.000000000|0|0|00000000000000000000000000000003
        2026-05-19 10:05:00|default|ann|/chat|200|1500|model-a|1|1500|0.002000000|0|0|00000000000000000000000000000002
        2026-04-01 08:00:00|default|ann|/chat|200|1500|model-a|1|1000000|1.000000000|0|0|00000000000000000000000000000001
    "#]]);
    both.check(
        "requests-per-hour",
        expect![[r#"
        hour_utc|requests|server_errors|llm_calls|known_tokens|known_cost_usd|unknown_usage_calls|unpriced_calls
        2026-05-19 10:00|2|1|1|1500|0.002000000|0|0
        2026-05-19 12:00|3|0|3|3030|0.004000000|1|1
    "#]],
    );
    both.check(
        "without-tokens",
        expect![[r#"
        service|provider|model|unknown_reason|streaming|calls|newest_utc|one_trace_id
        bot|house|model-a|missing|no|1|2026-05-19 12:45:00|00000000000000000000000000000006
    "#]],
    );
    both.check(
        "without-price",
        expect![[r#"
        provider|model|service_tier|calls|partly_priced|input_tokens|output_tokens|newest_utc
        house|model-b||1|0|10|20|2026-05-19 12:30:00
    "#]],
    );
    both.check("dearest-requests", expect![[r#"
        cost_usd|started_at_utc|tenant|user_id|service|endpoint|model|llm_calls|input_tokens|output_tokens|unknown_usage_calls|unpriced_calls|trace_id
        0.004000000|2026-05-19 12:00:00|default|bob|bot|/chat|model-a|1|2000|1000|0|0|00000000000000000000000000000004
        0.002000000|2026-05-19 10:05:00|default|ann|bot|/chat|model-a|1|1000|500|0|0|00000000000000000000000000000002
        0.000000000|2026-05-19 10:20:00|default|ann|bot|/chat||0|0|0|0|0|00000000000000000000000000000003
    "#]]);
    both.check(
        "near-limits",
        expect![[r#"
        limit_name|subject|meter|used|max|percent|used_usd|max_usd|first_refused_at_utc|period_ends_at_utc
        free-requests|{"user":"ann"}|requests|3|4|75.0||||
        budget|{}|cost|1006000000|2000000000|50.3|1.006000000|2.000000000||
        free-requests|{"user":"bob"}|requests|2|4|50.0||||
        free-requests|{"user":"eve"}||1||||||
    "#]],
    );
    both.check("accounts-against-records", expect![[r#"
        tenant|user_id|free_in_account|free_in_records|requests_in_account|requests_in_records|tokens_in_account|tokens_in_records|nanousd_in_account|nanousd_in_records
    "#]]);
    accounts_that_are_spoilt_are_named(&both);
    sizes_are_those_of_all_tables(&both);
}

/// One is changed by hand, and one goes.
fn accounts_that_are_spoilt_are_named(both: &Databases) {
    for spoil in [
        "UPDATE billing_accounts SET cost_used_current_period_nanousd = 1002000001 WHERE user_id = 'ann'",
        "DELETE FROM billing_accounts WHERE user_id = 'eve'",
    ] {
        both.psql(&["--command", spoil]);
        output(Command::new("sqlite3").args([&both.file(), spoil]));
    }
    both.check("accounts-against-records", expect![[r#"
        tenant|user_id|free_in_account|free_in_records|requests_in_account|requests_in_records|tokens_in_account|tokens_in_records|nanousd_in_account|nanousd_in_records
        default|ann|1|1|2|2|1001500|1001500|1002000001|1002000000
        default|eve||1||0||0||0
    "#]]);
}

fn sizes_are_those_of_all_tables(both: &Databases) {
    let [postgres, sqlite] = both.answers("table-sizes");
    let size = |answer: &str, table: &str| -> Option<[u64; 3]> {
        let row = answer.lines().find_map(|line| line.strip_prefix(&format!("{table}|")))?;
        let numbers: Vec<u64> = row.split('|').take(3).map(|number| number.parse().unwrap()).collect();
        Some(numbers.try_into().unwrap())
    };
    let migrations = std::fs::read_dir(root().join("migrations/sqlite")).unwrap();
    let text: String = migrations.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    let tables: Vec<&str> = text.split("CREATE TABLE ").skip(1).map(|rest| rest.split(' ').next().unwrap()).collect();
    assert!(tables.len() > 10, "{tables:?}");
    for table in tables {
        // Postgres has a sequence in the place of some.
        for (database, answer) in [("postgres", &postgres), ("sqlite", &sqlite)] {
            if database == "postgres" && !read_all("migrations/postgres").contains(&format!("CREATE TABLE {table} ")) {
                continue;
            }
            let [own, indexes, all] = size(answer, table).unwrap_or_else(|| panic!("{database}: no {table}\n{answer}"));
            assert!(own + indexes == all && all > 0, "{database}: {table}");
        }
    }
    let ask = "SELECT pg_total_relation_size('usage_records')";
    assert!(
        both.psql(&["--tuples-only", "--command", ask]).trim()
            == size(&postgres, "usage_records").unwrap()[2].to_string()
    );
    // All of the file.
    let pages: u64 = sqlite.lines().skip(1).map(|line| line.rsplit('|').next().unwrap().parse::<u64>().unwrap()).sum();
    let file = std::fs::metadata(both.file()).unwrap().len();
    assert_eq!(pages, file, "{sqlite}");
}

fn read_all(folder: &str) -> String {
    let files = std::fs::read_dir(root().join(folder)).unwrap();
    files.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn each_question_has_a_file_for_both_and_a_line_in_the_readme() {
    let names = |database: &str| -> BTreeSet<String> {
        let files = std::fs::read_dir(root().join("deploy/sql").join(Path::new(database))).unwrap();
        files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names("postgres"), names("sqlite"));
    let (readme, test) = (read("deploy/sql/README.md"), read("tests/all/observe/deploy/sql.rs"));
    for name in names("sqlite") {
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
        assert!(test.contains(&format!("\"{}\"", name.trim_end_matches(".sql"))), "{name} is not run here");
    }
}
