//! Somebody else spoils one thing at a time: verify names exactly that, and rebuild mends accounts.

use std::cell::Cell;
use std::process::{Command, Output};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection};
use tacho::metrics::Metrics;
use tacho::persist::{Checked, Mended, RowKey, Store, Verification};
use tacho_core::domain::account::{Drift, Used};
use tacho_core::domain::record::Request;

use super::faults::execute;
use super::{NOW, account, act, request, time, write};

const MOST: u32 = 1000;
const WHOLE: &str = "2 requests, 123 tokens, 123 n$ since 2026-05-01, 0 resets";

/// Sees the rows of all cases before it; leaves them as they were.
pub async fn what_is_spoilt_is_named_and_mended(store: &Store, url: &str) {
    for (trace, request) in [(40, forty()), (41, forty_one())] {
        write(store, trace, vec![request]).await;
    }
    let Checked { accounts, records, calls, .. } = clean(store).await;
    assert!(accounts > 8 && records > 3000 && calls > 9000, "{accounts} {records} {calls}");
    assert_eq!(store.drift().await.unwrap(), Drift::default());
    let spoiler = Spoiler { store, url };
    spoiler.accounts().await;
    spoiler.accounts_that_are_gone().await;
    spoiler.records().await;
    spoiler.calls().await;
    spoiler.rows_that_are_gone().await;
    verbs(url).await;
    while_others_write(store, url).await;
    a_fault_that_moves_is_always_one(store, url).await;
    what_is_being_written_is_counted(store, url).await;
}

fn forty() -> Request {
    request(40, Some("vic"), "2026-05-19T10:00:00Z", &[100, 20])
}

fn forty_one() -> Request {
    request(41, Some("vic"), "2026-05-19T10:00:00Z", &[3])
}

struct Spoiler<'s> {
    store: &'s Store,
    url: &'s str,
}

impl Spoiler<'_> {
    async fn accounts(&self) {
        let vic = |change: &str| format!("UPDATE billing_accounts SET {change} WHERE user_id = 'vic'");
        self.spoil(&vic("tokens_used_current_period = 124")).await;
        self.names(&["account vic tokens_used_current_period 124, not 123"]).await;
        assert_eq!(self.drift().await, [0, 1, 0]);
        // Dropped, and so a dry run.
        assert_eq!(mended(self.store.rebuild(time(NOW)).await.unwrap().mended()), ["vic [2, 124, 123] [2, 123, 123]"]);
        self.names(&["account vic tokens_used_current_period 124, not 123"]).await;
        assert_eq!(self.rebuild().await, ["vic [2, 124, 123] [2, 123, 123]"]);
        self.names(&[]).await;
        assert_eq!(self.rebuild().await, [""; 0]);

        // One too high and one too low do not cancel out.
        self.spoil(&vic("requests_used_current_period = 12, cost_used_current_period_nanousd = 100")).await;
        self.spoil("UPDATE billing_accounts SET requests_used_current_period = 0 WHERE user_id = 'ann'").await;
        self.names(&[
            "account ann requests_used_current_period 0, not 1",
            "account vic cost_used_current_period_nanousd 100, not 123",
            "account vic requests_used_current_period 12, not 2",
        ])
        .await;
        assert_eq!(self.drift().await, [11, 0, 23]);
        assert_eq!(self.rebuild().await, ["ann [0, 150, 150] [1, 150, 150]", "vic [12, 123, 100] [2, 123, 123]"]);
        self.names(&[]).await;
        assert_eq!(self.drift().await, [0, 0, 0]);
    }

    async fn accounts_that_are_gone(&self) {
        self.spoil("DELETE FROM billing_accounts WHERE user_id = 'vic'").await;
        self.names(&["missing account vic accounts 0, not 1"]).await;
        assert_eq!(self.drift().await, [2, 123, 123]);
        assert_eq!(self.rebuild().await, ["created vic [0, 0, 0] [2, 123, 123]"]);
        assert_eq!(account(self.store, "vic").await, WHOLE);

        // With records of April, of May, and of June by a clock that ran ahead.
        self.spoil("DELETE FROM billing_accounts WHERE user_id = 'eve'").await;
        self.names(&["missing account eve accounts 0, not 1"]).await;
        assert_eq!(self.rebuild().await, ["created eve [0, 0, 0] [2, 27, 27]"]);
        assert_eq!(account(self.store, "eve").await, "2 requests, 27 tokens, 27 n$ since 2026-05-01, 1 resets");
        self.names(&[]).await;
    }

    async fn records(&self) {
        let counts = ["llm_calls", "llm_errors", "unknown_usage_calls", "unpriced_calls"];
        let tokens = ["input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens"];
        for column in counts.iter().chain(&tokens) {
            let was = match *column {
                "llm_calls" => 2,
                "input_tokens" => 120,
                _ => 0,
            };
            self.spoil(&of_forty("usage_records", &format!("{column} = {}", was + 7))).await;
            self.names(&[&format!("record 40 {column} {}, not {was}", was + 7)]).await;
            self.spoil(&of_forty("usage_records", &format!("{column} = {was}"))).await;
        }
        self.spoil(&of_forty("usage_records", "total_tokens = 121")).await;
        let account = "account vic tokens_used_current_period 123, not 124";
        self.names(&[account, "record 40 total_tokens 121, not 120"]).await;
        self.spoil(&of_forty("usage_records", "total_tokens = 120, cost_nanousd = NULL")).await;
        let account = "account vic cost_used_current_period_nanousd 123, not 3";
        self.names(&[account, "record 40 cost_nanousd null, not 120"]).await;
        self.spoil(&of_forty("usage_records", "cost_nanousd = 120")).await;
        self.names(&[]).await;
    }

    async fn calls(&self) {
        let call = |change: &str| of_forty("llm_calls", change) + " AND input_tokens = 100";
        let cases: [(&str, &str, &[&str]); 9] = [
            ("output_tokens = 1", "output_tokens = 0", &["output_tokens 0, not 1", "total_tokens 120, not 121"]),
            ("cached_input_tokens = 1", "cached_input_tokens = 0", &["cached_input_tokens 0, not 1"]),
            ("cache_write_tokens = 1", "cache_write_tokens = 0", &["cache_write_tokens 0, not 1"]),
            ("reasoning_tokens = 1", "reasoning_tokens = 0", &["reasoning_tokens 0, not 1"]),
            ("error_type = 'x'", "error_type = NULL", &["llm_errors 0, not 1"]),
            ("cost_nanousd = 99", "cost_nanousd = 100", &["cost_nanousd 120, not 119"]),
            ("cost_nanousd = NULL", "cost_nanousd = 100", &["cost_nanousd 120, not 20", "unpriced_calls 0, not 1"]),
            ("partly_priced = TRUE", "partly_priced = FALSE", &["unpriced_calls 0, not 1"]),
            ("usage = 'unknown'", "usage = 'reported'", &["unknown_usage_calls 0, not 1"]),
        ];
        for (spoil, undo, lines) in cases {
            self.spoil(&call(spoil)).await;
            let lines: Vec<String> = lines.iter().map(|line| format!("record 40 {line}")).collect();
            self.names(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
            self.spoil(&call(undo)).await;
        }
        // None of its calls has a price: not known, and not 0.
        self.spoil(&of_forty("llm_calls", "cost_nanousd = NULL")).await;
        self.names(&["record 40 cost_nanousd 120, not null", "record 40 unpriced_calls 0, not 2"]).await;
        self.spoil(&of_forty("llm_calls", "cost_nanousd = input_tokens")).await;

        // Away from its record: to another span, to another time.
        for spoil in ["record_span_id = '00'", "record_started_at = '2020-01-01T00:00:00.000000Z'"] {
            self.spoil(&call(spoil)).await;
            let cost = "record 40 cost_nanousd 120, not 20";
            let (tokens, total) = ("record 40 input_tokens 120, not 20", "record 40 total_tokens 120, not 20");
            let calls = "record 40 llm_calls 2, not 1";
            self.names(&[cost, tokens, calls, total, "orphan call 40 records 0, not 1"]).await;
            let listed = self.store.verify(2).await.unwrap();
            assert_eq!((lines(&listed), listed.not_listed), (vec![cost.to_owned(), tokens.to_owned()], 3));
            let key = "(record_started_at, record_span_id) = (SELECT r.started_at, r.span_id FROM usage_records r \
                       WHERE r.trace_id = llm_calls.trace_id)";
            self.spoil(&call(key)).await;
            self.names(&[]).await;
        }
    }

    async fn rows_that_are_gone(&self) {
        self.spoil(&format!("DELETE FROM llm_calls WHERE trace_id = '{}'", "29".repeat(16))).await;
        let (cost, tokens) = ("record 41 cost_nanousd 3, not 0", "record 41 input_tokens 3, not 0");
        self.names(&[cost, tokens, "record 41 llm_calls 1, not 0", "record 41 total_tokens 3, not 0"]).await;
        write(self.store, 41, vec![forty_one()]).await;
        self.names(&[]).await;

        self.spoil(&format!("DELETE FROM usage_records WHERE trace_id = '{}'", "29".repeat(16))).await;
        self.names(&[
            "account vic cost_used_current_period_nanousd 123, not 120",
            "account vic requests_used_current_period 2, not 1",
            "account vic tokens_used_current_period 123, not 120",
            "orphan call 41 records 0, not 1",
        ])
        .await;
        assert_eq!(self.drift().await, [1, 3, 3]);
        // It comes again and the account, which never forgot it, counts it twice.
        write(self.store, 41, vec![forty_one()]).await;
        assert_eq!(self.rebuild().await, ["vic [3, 126, 126] [2, 123, 123]"]);
        self.names(&[]).await;
    }

    async fn spoil(&self, sql: &str) {
        execute(self.url, sql).await;
    }

    async fn names(&self, expected: &[&str]) {
        let found = self.store.verify(MOST).await.unwrap();
        assert_eq!(lines(&found), expected);
        assert_eq!((found.is_clean(), found.not_listed), (expected.is_empty(), 0));
    }

    /// As the gauge shows it.
    async fn drift(&self) -> [i64; 3] {
        let metrics = Metrics::default();
        metrics.drift(self.store.drift().await.unwrap());
        let text = metrics.exposition(tacho::metrics::Format::Text);
        ["requests", "tokens", "cost_nanousd"].map(|counter| {
            let series = format!("tacho_ledger_drift{{counter=\"{counter}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
        })
    }

    async fn rebuild(&self) -> Vec<String> {
        let rebuild = self.store.rebuild(time(NOW)).await.unwrap();
        let mended = mended(rebuild.mended());
        rebuild.commit(&act(None, time(NOW))).await.unwrap();
        mended
    }
}

fn of_forty(table: &str, change: &str) -> String {
    format!("UPDATE {table} SET {change} WHERE trace_id = '{}'", "28".repeat(16))
}

async fn clean(store: &Store) -> Checked {
    let found = store.verify(MOST).await.unwrap();
    assert_eq!(lines(&found), [""; 0]);
    found.checked
}

fn lines(found: &Verification) -> Vec<String> {
    let number = |number: Option<i64>| number.map_or("null".to_owned(), |number| number.to_string());
    let line = found.differences.iter().map(|found| {
        let key = match &found.key {
            RowKey::Account { tenant, user_id } => user_id.clone() + if tenant == "acme" { "" } else { tenant },
            RowKey::Limit { limit, subject, .. } => format!("{limit} {subject}"),
            RowKey::Span { trace_id, .. } => u8::from_str_radix(&trace_id[..2], 16).unwrap().to_string(),
        };
        let (stored, computed) = (number(found.stored), number(found.computed));
        format!("{} {key} {} {stored}, not {computed}", found.kind.label(), found.column)
    });
    line.collect()
}

fn mended(mended: &[Mended]) -> Vec<String> {
    let used = |used: &Used| [used.requests, used.tokens, used.cost_nanousd];
    let line = mended.iter().map(|mended| {
        let created = if mended.created { "created " } else { "" };
        format!("{created}{} {:?} {:?}", mended.account.user, used(&mended.before), used(&mended.after))
    });
    line.collect()
}

/// The real binary, from another process.
async fn verbs(url: &str) {
    let expect = |arguments: &[&str], code: i32, said: &str| {
        let output = tacho(url, arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {text} {:?}", String::from_utf8(output.stderr));
        assert!(text.contains(said), "{arguments:?} said: {text}");
        text
    };
    expect(&["verify"], 0, "all is right; checked ");
    expect(&["verify", "--json"], 0, r#""differences": []"#);
    expect(&["rebuild"], 0, "every account is the sum of its records");
    expect(&["verify", "--since", "yesterday"], 2, "");
    expect(&["rebuild", "--hard"], 2, "");
    execute(url, "UPDATE billing_accounts SET tokens_used_current_period = 124 WHERE user_id = 'vic'").await;
    expect(&["verify"], 1, "differences: 1; checked ");
    let json: serde_json::Value = serde_json::from_str(&expect(&["verify", "--json"], 1, "")).unwrap();
    let found = serde_json::json!([{
        "kind": "account",
        "key": {"tenant": "acme", "user_id": "vic"},
        "column": "tokens_used_current_period",
        "stored": 124,
        "computed": 123,
    }]);
    assert_eq!((&json["differences"], &json["not_listed"]), (&found, &0.into()));
    expect(&["rebuild", "--dry-run"], 0, "acme/vic: tokens 124 -> 123\nto mend: accounts: 1; nothing was changed");
    expect(&["verify"], 1, "");
    expect(&["rebuild"], 0, "acme/vic: tokens 124 -> 123\nmended: accounts: 1");
    expect(&["verify"], 0, "");
}

fn tacho(url: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tacho"));
    command.args(arguments).env("TACHO_DATABASE__URL", url).current_dir(&folder).output().unwrap()
}

/// Each record that is written has two calls, and in no moment has it fewer.
async fn while_others_write(store: &Store, url: &str) {
    let before = clean(store).await;
    let other = Store::open(url, "other").await.unwrap();
    let writing = write_some(&other, 42..62);
    let looking = async {
        for _ in 0..10 {
            let now = clean(store).await;
            assert_eq!(now.calls - before.calls, 2 * (now.records - before.records));
        }
    };
    tokio::join!(writing, looking);

    other.close().await;
}

/// One thing is spoilt at any moment, now an account and now a record: in a snapshot it is never none of them and never both.
async fn a_fault_that_moves_is_always_one(store: &Store, url: &str) {
    let account = |requests| {
        format!("UPDATE billing_accounts SET requests_used_current_period = {requests} WHERE user_id = 'ann'")
    };
    let record = |calls| of_forty("usage_records", &format!("llm_calls = {calls}"));
    execute(url, &account(7)).await;
    let done = Cell::new(false);
    let moving = async {
        while !done.get() {
            together(url, [&account(1), &record(3)], Duration::ZERO).await;
            together(url, [&account(7), &record(2)], Duration::ZERO).await;
        }
    };
    let looking = async {
        for _ in 0..40 {
            assert_eq!(store.verify(MOST).await.unwrap().differences.len(), 1);
        }
        done.set(true);
    };
    tokio::join!(moving, looking);
    execute(url, &account(1)).await;
    clean(store).await;
}

/// Somebody else is in the middle of writing when an account is counted anew.
async fn what_is_being_written_is_counted(store: &Store, url: &str) {
    let account =
        |tokens| format!("UPDATE billing_accounts SET tokens_used_current_period = {tokens} WHERE user_id = 'kim'");
    let record =
        |tokens| format!("UPDATE usage_records SET total_tokens = {tokens} WHERE trace_id = '{}'", "06".repeat(16));
    execute(url, &account(100)).await;
    let writing = (account(104), record(7));
    let writing = together(url, [&writing.0, &writing.1], Duration::from_millis(500));
    let mending = async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        store.rebuild(time(NOW)).await.unwrap().commit(&act(None, time(NOW))).await.unwrap();
    };
    tokio::join!(writing, mending);
    assert_eq!(lines(&store.verify(MOST).await.unwrap()), ["record 6 total_tokens 7, not 3"]);
    let (account, record) = (account(3), record(3));
    together(url, [&account, &record], Duration::ZERO).await;
    clean(store).await;
}

/// Both statements in one transaction, which is left open for so long.
async fn together(url: &str, statements: [&str; 2], open: Duration) {
    let statements = statements.map(str::to_owned);
    if url.starts_with("sqlite:") {
        let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
        for sql in statements {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
        }
        tokio::time::sleep(open).await;
        tx.commit().await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        let mut tx = connection.begin().await.unwrap();
        for sql in statements {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
        }
        tokio::time::sleep(open).await;
        tx.commit().await.unwrap();
        connection.close().await.unwrap();
    }
}

async fn write_some(store: &Store, traces: std::ops::Range<u8>) {
    for trace in traces {
        write(store, trace, vec![request(trace, Some("vic"), "2026-05-19T10:00:00Z", &[1, 2])]).await;
    }
}
