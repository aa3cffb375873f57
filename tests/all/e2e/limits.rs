//! Limits with the real binary: a bot with the middleware, two instances, each backend, restarts of every part.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::bot::{Program, limited, python};
use crate::support::client::{Answer, JSON, post};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::tacho_process::Tacho;

/// Short waits, so that a test need not be long; the bot's spans come after 100 ms.
const SETTINGS: [(&str, &str); 1] = [("TACHO_ASSEMBLE__QUIET", "300ms")];

const FREE_PLAN: &str = r#"
[plans.free]
default = true

[[limit]]
name = "free-plan"
match = { plan = "free" }
per = ["user"]
meter = "requests"
quota = { limit = 5, period = "lifetime" }
"#;

fn configure(folder: &Path, backend: &str, limits: &str) {
    // A machine that does all the tests at once is slow, and this is not a test of what happens then.
    let patience = "timeout = \"5s\"";
    std::fs::write(folder.join("tacho.toml"), format!("[limits]\n{patience}\n{backend}\n{limits}")).unwrap();
}

/// Two instances that meet in this Redis.
fn shared(redis: &Redis) -> String {
    format!("backend = \"redis\"\nurl = \"{}\"\nexpected_instances = 2", redis.url())
}

async fn invoke(bot: &str, user: &'static str) -> Answer {
    let body = json!({"message": "hello"}).to_string();
    let ask = post(JSON, body).path("/agents/support/invoke").header("x-user-id", user);
    ask.send(bot.parse().unwrap()).await
}

async fn check(tacho: &Tacho, body: Value) -> Answer {
    post(JSON, body.to_string()).path("/v1/check").send(tacho.http).await
}

/// What `/v1/limits` says of the first limit of this user.
async fn stand(tacho: &Tacho, path: &'static str) -> Value {
    let answer = post(JSON, "").method("GET").path(path).token(&tacho.admin_token()).send(tacho.http).await;
    let body: Value = serde_json::from_str(&answer.text()).unwrap();
    body["limits"][0].clone()
}

/// Waits until so much is used and nothing is held.
async fn settled(tacho: &Tacho, path: &'static str, used: i64) {
    let begun = std::time::Instant::now();
    loop {
        let stand = stand(tacho, path).await;
        if stand["used"] == used && stand["held"] == 0 {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{stand}, and not {used} used\n{}", tacho.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const ANN: &str = "/v1/limits?user=ann";

/// Five requests over two instances; the sixth is refused by both, also when everything was restarted.
async fn a_free_plan_of_five(backend: &str, urls: [&str; 2], mut restart_store: impl FnMut()) {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    folders.iter().for_each(|folder| configure(folder.path(), backend, FREE_PLAN));
    let (model, model_address) = Program::start(&mut python("llm_stand_in.py"));
    let start = |place: usize| Tacho::start(folders[place].path(), urls[place], &SETTINGS);
    let (one, two) = (start(0), start(1));
    let (bot_one, address_one) = limited(&one, "limited-bot", &model_address);
    let (bot_two, address_two) = limited(&two, "limited-bot", &model_address);
    for address in [&address_one, &address_two, &address_one] {
        assert_eq!(invoke(address, "ann").await.status(), 200, "{}", one.log());
    }
    settled(&one, ANN, 3).await;
    settled(&two, ANN, 3).await;
    bot_one.stop();
    bot_two.stop();
    one.stop();
    drop(two);
    restart_store();
    let (one, two) = (start(0), start(1));
    let (bot_one, address_one) = limited(&one, "limited-bot", &model_address);
    let (bot_two, address_two) = limited(&two, "limited-bot", &model_address);
    settled(&two, ANN, 3).await;
    // At once, so that they are held and not settled yet.
    assert_eq!(invoke(&address_two, "ann").await.status(), 200, "{}", two.log());
    assert_eq!(invoke(&address_one, "ann").await.status(), 200, "{}", one.log());
    for address in [&address_one, &address_two] {
        let refused = invoke(address, "ann").await;
        assert_eq!(refused.status(), 429, "{}", refused.text());
        let body: Value = serde_json::from_str(&refused.text()).unwrap();
        assert_eq!(body["limit"]["name"], "free-plan");
        assert_eq!(body["limit"]["decision"], "refuse");
        assert_eq!(body["limit"]["subject"], json!({"user": "ann"}));
        assert_eq!(body["limit"]["limit"], 5);
        assert_eq!(invoke(address, "bob").await.status(), 200);
    }
    settled(&one, ANN, 5).await;
    settled(&two, ANN, 5).await;
    bot_one.stop();
    bot_two.stop();
    one.stop();
    two.stop();
    model.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn five_over_two_bots_that_share_redis() {
    let mut redis = Redis::durable();
    let postgres = Postgres::start();
    let url = postgres.database("limits");
    let backend = shared(&redis);
    a_free_plan_of_five(&backend, [&url, &url], || {
        redis.kill();
        redis.again();
    })
    .await;
}

/// What a store without memory has forgotten is told again from the records.
#[tokio::test(flavor = "multi_thread")]
async fn five_over_two_bots_when_redis_has_lost_everything() {
    let mut redis = Redis::start();
    let postgres = Postgres::start();
    let url = postgres.database("limits");
    let backend = shared(&redis);
    a_free_plan_of_five(&backend, [&url, &url], || {
        redis.kill();
        redis.again();
    })
    .await;
}

/// Each with records of its own: what is used is the sum over both.
#[tokio::test(flavor = "multi_thread")]
async fn five_over_two_bots_with_a_database_each() {
    let mut redis = Redis::durable();
    let folder = tempfile::tempdir().unwrap();
    let urls = ["one", "two"].map(|name| format!("sqlite:{}", folder.path().join(format!("{name}.db")).display()));
    let backend = shared(&redis);
    a_free_plan_of_five(&backend, [&urls[0], &urls[1]], || {
        redis.kill();
        redis.again();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_over_two_bots_that_share_postgres() {
    let postgres = Postgres::start();
    let url = postgres.database("limits");
    a_free_plan_of_five("backend = \"database\"\nexpected_instances = 2", [&url, &url], || {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_over_two_bots_that_share_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    a_free_plan_of_five("backend = \"database\"\nexpected_instances = 2", [&url, &url], || {}).await;
}

const ONE_A_SECOND: &str = r#"
[[limit]]
name = "user-rate"
per = ["user"]
meter = "requests"
rate = { limit = 2, period = "2s", burst = 2 }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn waiting_as_long_as_told_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "backend = \"memory\"", ONE_A_SECOND);
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let tacho = Tacho::start(folder.path(), &url, &SETTINGS);
    let (model, model_address) = Program::start(&mut python("llm_stand_in.py"));
    let (bot, address) = limited(&tacho, "limited-bot", &model_address);
    let mut refusals = 0;
    for _ in 0..8 {
        let answer = invoke(&address, "ann").await;
        if answer.status() == 200 {
            continue;
        }
        refusals += 1;
        assert_eq!(answer.status(), 429, "{}", answer.text());
        assert!(answer.header("ratelimit").unwrap().starts_with("\"user-rate\";r=0;t="));
        assert_eq!(answer.header("ratelimit-policy").unwrap(), "\"user-rate\";q=2;w=2;qu=\"requests\"");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        tokio::time::sleep(Duration::from_secs(wait)).await;
        assert_eq!(invoke(&address, "ann").await.status(), 200, "after {wait} s");
    }
    assert!(refusals > 0);
    bot.stop();
    model.stop();
    tacho.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_what_was_used_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "backend = \"memory\"", FREE_PLAN);
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let tacho = Tacho::start(folder.path(), &url, &SETTINGS);
    let ann = || check(&tacho, json!({"user": "ann"}));
    for _ in 0..5 {
        assert_eq!(ann().await.status(), 200);
    }
    assert_eq!(ann().await.status(), 429);
    let reload = async |limits: &str, success: &str| {
        configure(folder.path(), "backend = \"memory\"", limits);
        tacho.signal("-HUP");
        let wanted = format!("tacho_config_last_reload_successful {success}");
        for _ in 0..200 {
            let metrics = post(JSON, "").method("GET").path("/metrics").send(tacho.http).await.text();
            if metrics.lines().any(|line| line == wanted) && tacho.log().contains("reloaded") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not reloaded: {}", tacho.log());
    };
    reload(&FREE_PLAN.replace("limit = 5", "limit = \"many\""), "0").await;
    assert_eq!(ann().await.status(), 429);
    reload(&FREE_PLAN.replace("limit = 5", "limit = 7"), "1").await;
    assert_eq!(ann().await.status(), 200);
    assert_eq!(ann().await.status(), 200);
    assert_eq!(ann().await.status(), 429);
    reload(&FREE_PLAN.replace("limit = 5", "limit = 3"), "1").await;
    assert_eq!(ann().await.status(), 429);
    tacho.stop();
}

/// An instance without limits asks no store; the first limit that a reload brings is shared like any other.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_limit_may_come_by_a_reload() {
    let redis = Redis::durable();
    let backend = shared(&redis);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let start = |folder: &tempfile::TempDir| {
        configure(folder.path(), &backend, "");
        let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
        Tacho::start(folder.path(), &url, &SETTINGS)
    };
    let both = [start(&folders[0]), start(&folders[1])];
    for tacho in &both {
        assert_eq!(check(tacho, json!({"user": "ann"})).await.status(), 200);
    }
    for (tacho, folder) in both.iter().zip(&folders) {
        // A plan would not come by it: that takes a restart.
        let limit =
            FREE_PLAN.replace("[plans.free]\ndefault = true\n", "").replace("match = { plan = \"free\" }\n", "");
        configure(folder.path(), &backend, &limit);
        tacho.signal("-HUP");
    }
    for tacho in &both {
        let begun = std::time::Instant::now();
        while !tacho.log().contains("limit store there") {
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", tacho.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let mut admitted = 0;
    for round in 0..8 {
        admitted += usize::from(check(&both[round % 2], json!({"user": "ann"})).await.status() == 200);
    }
    assert_eq!(admitted, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_gives_back_and_a_refusal_has_the_shape_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "backend = \"memory\"", &FREE_PLAN.replace("limit = 5", "limit = 1"));
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let tacho = Tacho::start(folder.path(), &url, &SETTINGS);
    let admitted = check(&tacho, json!({"user": "ann"})).await;
    assert_eq!(admitted.status(), 200);
    let reservation = serde_json::from_str::<Value>(&admitted.text()).unwrap()["reservation"].clone();
    let ask = post(JSON, r#"{"user":"ann"}"#).path("/v1/check").header("accept", "application/vnd.openai+json");
    let refused = ask.send(tacho.http).await;
    let body: Value = serde_json::from_str(&refused.text()).unwrap();
    assert_eq!((refused.status(), &body["error"]["code"]), (429, &json!("insufficient_quota")));
    let release = json!({"reservation": reservation}).to_string();
    for released in [true, false] {
        let answer = post(JSON, release.clone()).path("/v1/release").send(tacho.http).await;
        assert_eq!(serde_json::from_str::<Value>(&answer.text()).unwrap(), json!({"released": released}));
    }
    assert_eq!(check(&tacho, json!({"user": "ann"})).await.status(), 200);
    for (path, body) in [
        ("/v1/check", r#"{"user":7}"#),
        ("/v1/check", r#"{"usr":"x"}"#),
        ("/v1/check", r#"{"trace_id":"x"}"#),
        ("/v1/release", r#"{"reservation":"x"}"#),
    ] {
        let answer = post(JSON, body).path(path).send(tacho.http).await;
        assert!((400..=422).contains(&answer.status()), "{path} {body}: {}", answer.text());
    }
    tacho.stop();
}

/// What an account's reset and its change of plan do to the limits of its user, as docs/limits.md says.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_begins_anew_and_a_plan_counts_its_own() {
    const TWO_PLANS: &str = r#"
[plans.free]
default = true
[plans.pro]

[[limit]]
name = "free-plan"
match = { plan = "free" }
per = ["tenant", "user"]
meter = "requests"
quota = { limit = 2, period = "month" }

[[limit]]
name = "pro-plan"
match = { plan = "pro" }
per = ["tenant", "user"]
meter = "requests"
quota = { limit = 3, period = "month" }
"#;
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), "backend = \"database\"", TWO_PLANS);
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let tacho = Tacho::start(folder.path(), &url, &SETTINGS);
    let (model, model_address) = Program::start(&mut python("llm_stand_in.py"));
    let (bot, address) = limited(&tacho, "limited-bot", &model_address);
    let uses = async |allowed: usize| {
        for nth in 1..=allowed {
            let answer = invoke(&address, "ann").await;
            assert_eq!(answer.status(), 200, "{nth} of {allowed}: {}\n{}", answer.text(), tacho.log());
        }
        assert_eq!(invoke(&address, "ann").await.status(), 429, "after {allowed}");
        settled(&tacho, ANN, i64::try_from(allowed).unwrap()).await;
    };
    let change = async |path: &'static str, body: &str| {
        let answer = post(JSON, body.to_owned()).path(path).token(&tacho.admin_token()).send(tacho.http).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        // As long as an instance may go on with what it knew.
        tokio::time::sleep(Duration::from_millis(2_200)).await;
    };
    uses(2).await;
    change("/v1/accounts/default/ann/reset", r#"{"reason":"sorry"}"#).await;
    uses(2).await;
    change("/v1/accounts/default/ann/plan", r#"{"plan":"pro"}"#).await;
    uses(3).await;
    change("/v1/accounts/default/ann/plan", r#"{"plan":"free"}"#).await;
    assert_eq!(invoke(&address, "ann").await.status(), 429, "what was used on this plan is still used");
    bot.stop();
    model.stop();
    tacho.stop();
}
