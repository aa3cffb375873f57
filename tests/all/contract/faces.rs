//! Accounts as people and programs get at them: the real binary runs on the database, by HTTP and beside it by command line.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tacho::persist::Store;
use tacho_core::domain::account::AccountId;

use super::{change, request, time};
use crate::support::client::{JSON, post};
use crate::support::tacho_process::Tacho;

const PLANS: &str = "{ free = { default = true, free_requests = 1, overage = \"deny\" }, pro = { period = \"year\" } }";
/// Whose period ended long ago.
const START: &str = "2024-01-31T10:00:00Z";

#[tokio::test]
async fn accounts_are_looked_at_and_changed_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let store = Store::open(&url, "before").await.unwrap();
    for (trace, user) in [(1, "ann"), (2, "bob/x"), (3, "eve")] {
        let proposed = [change(trace, vec![], vec![request(trace, Some(user), START, &[100])])];
        store.begin(&proposed).await.unwrap().commit(&[], None, time(START)).await.unwrap();
    }
    let tacho = Tacho::start(folder.path(), &url, &[("TACHO_PLANS", PLANS)]);
    periods_end_at_the_start(&store).await;
    by_http(tacho.http, &tacho.admin_token()).await;
    by_command_line(folder.path(), &url);
    tacho.stop();
    assert!(store.verify(10).await.unwrap().is_clean());
    store.close().await;
}

async fn periods_end_at_the_start(store: &Store) {
    let id = AccountId { tenant: "acme".into(), user: "eve".into() };
    let ended = async {
        while store.account_resets(&id, 1).await.unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), ended).await.unwrap();
    let [entry] = &store.account_resets(&id, 10).await.unwrap()[..] else {
        panic!("one entry for all that were missed")
    };
    assert_eq!((entry.kind.as_str(), &entry.period_started_at[..10], entry.requests_used), ("period", "2024-01-01", 1));
}

async fn by_http(address: SocketAddr, token: &str) {
    let get = async |path: &str| {
        let answer = post(JSON, "").method("GET").path(path.to_owned()).token(token).send(address).await.text();
        serde_json::from_str::<Value>(&answer).unwrap_or_else(|_| panic!("{path}: {answer}"))
    };
    let set = async |path: &'static str, body: &'static str| {
        let answer = post(JSON, body).path(path).token(token).send(address).await.text();
        serde_json::from_str::<Value>(&answer).unwrap_or_else(|_| panic!("{path}: {answer}"))
    };
    let users = |page: &Value| {
        let users = page["accounts"].as_array().unwrap().iter().map(|row| row["user_id"].as_str().unwrap().to_owned());
        users.collect::<Vec<_>>().join(" ")
    };
    let page = get("/v1/accounts?limit=2").await;
    assert_eq!(users(&page), "ann bob/x");
    let page = get(&format!("/v1/accounts?limit=2&after={}", page["next"].as_str().unwrap())).await;
    assert_eq!((users(&page), &page["next"]), ("eve".into(), &Value::Null));
    assert_eq!(users(&get("/v1/accounts?tenant=acme&plan=default").await), "ann bob/x eve");
    assert_eq!(get("/v1/accounts?after=5b5d").await["status"], 400);

    let account = get("/v1/accounts/acme/bob%2Fx").await;
    assert_eq!((&account["account"]["user_id"], &account["account"]["plan"]), (&json!("bob/x"), &json!("default")));
    assert_eq!(account["resets"][0]["tokens_used"], 100);
    assert_eq!(get("/v1/accounts/acme/nobody").await["status"], 404);

    let changed = set("/v1/accounts/acme/ann/plan", r#"{"plan": "pro", "reason": "paid"}"#).await;
    assert_eq!((&changed["account"]["plan"], &changed["account"]["period_kind"]), (&json!("pro"), &json!("year")));
    let refused = set("/v1/accounts/acme/ann/plan", r#"{"plan": "gold"}"#).await;
    assert_eq!(
        (&refused["status"], &refused["detail"]),
        (&json!(400), &json!("`plan` is not one of default, free, pro"))
    );
    assert_eq!(set("/v1/accounts/acme/nobody/plan", r#"{"plan": "pro"}"#).await["status"], 404);
    let reset = set("/v1/accounts/acme/ann/reset", r#"{"reason": "goodwill"}"#).await;
    assert_eq!(reset["account"]["last_manual_reset_at"], reset["account"]["period_started_at"]);
    assert_eq!(set("/v1/accounts/acme/eve/reset", "{}").await["account"]["requests_used_current_period"], 0);
    assert_eq!(set("/v1/accounts/acme/nobody/reset", "{}").await["status"], 404);
    let resets = get("/v1/accounts/acme/ann").await["resets"].as_array().unwrap().clone();
    let shown: Vec<_> = resets.iter().map(|entry| (&entry["kind"], &entry["reason"], &entry["next_plan"])).collect();
    let (manual, plan, period) = (json!("manual"), json!("plan"), json!("period"));
    let (goodwill, paid, pro, default) = (json!("goodwill"), json!("paid"), json!("pro"), json!("default"));
    assert_eq!(shown, [(&manual, &goodwill, &pro), (&plan, &paid, &pro), (&period, &Value::Null, &default)]);

    // What a page in a browser can send without asking.
    let form = post("text/plain", "{}").path("/v1/accounts/acme/ann/reset").token(token).send(address).await.line();
    assert!(form.starts_with("415"), "{form}");
    let looked =
        post(JSON, "").method("GET").path("/v1/accounts/acme/ann/reset").token(token).send(address).await.line();
    assert!(looked.starts_with("405"), "{looked}");
}

fn by_command_line(folder: &Path, url: &str) {
    let tacho = |arguments: &[&str], code: i32, said: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tacho"));
        command.args(arguments).current_dir(folder).env("TACHO_DATABASE__URL", url).env("TACHO_PLANS", PLANS);
        let output = command.output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
        text
    };
    let list = tacho(&["accounts", "list", "--plan", "default"], 0, "acme/bob/x");
    assert!(list.contains("acme/eve") && !list.contains("acme/ann"), "{list}");
    tacho(&["accounts", "list", "--tenant", "none"], 0, "no such accounts");
    tacho(&["accounts", "list", "--limit", "1"], 0, "acme/ann");
    tacho(&["accounts", "show", "bob/x", "--tenant", "acme"], 0, "plan           default");
    tacho(&["accounts", "show", "bob/x"], 1, "there is no account default/bob/x");
    tacho(
        &["accounts", "set-plan", "bob/x", "gold", "--tenant", "acme"],
        2,
        "the configuration has default, free, pro",
    );
    tacho(&["accounts", "set-plan", "bob/x"], 2, "");
    tacho(&["accounts", "set-plan", "bob/x", "free", "--tenant", "acme", "--reason", "asked"], 0, "acme/bob/x  free");
    tacho(&["accounts", "reset", "bob/x", "--tenant", "acme", "--reason", "again"], 0, "acme/bob/x  free");
    tacho(&["accounts", "reset", "nobody", "--tenant", "acme"], 1, "there is no account acme/nobody");
    let shown = tacho(&["accounts", "show", "bob/x", "--tenant", "acme", "--json"], 0, "");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["account"]["plan"], shown["resets"].as_array().unwrap().len()), (&json!("free"), 3));
    assert_eq!((&shown["resets"][0]["reason"], &shown["resets"][1]["reason"]), (&json!("again"), &json!("asked")));
    let all: Value = serde_json::from_str(&tacho(&["accounts", "--json", "list"], 0, "")).unwrap();
    assert_eq!(all["accounts"].as_array().unwrap().len(), 3);
}
