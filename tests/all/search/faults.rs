//! What a fake does wrong on command.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fake::{bulk, json_of, short, versioned};
use crate::support::client::{JSON, post};
use crate::support::fake_search::{FakeSearch, ItemFault, Product, RequestFault, Times};

/// All that comes back before the connection ends, whole or not.
pub(super) async fn raw(address: SocketAddr, head: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request =
        format!("{head} HTTP/1.1\r\nhost: tacho\r\nconnection: close\r\ncontent-type: application/x-ndjson\r\n");
    connection.write_all(format!("{request}content-length: {length}\r\n\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    drop(connection.read_to_end(&mut answer).await);
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn whole_requests_fail_on_command() {
    let fake = FakeSearch::start(Product::Elasticsearch9).await;
    let refusals = [
        (RequestFault::CircuitBreaker, "429 circuit_breaking_exception"),
        (RequestFault::QueueFull, "429 es_rejected_execution_exception"),
        (RequestFault::NoMaster, "503 master_not_discovered_exception"),
        (RequestFault::Unauthorized, "401 security_exception"),
        (RequestFault::Forbidden, "403 security_exception"),
        (RequestFault::Answer(502, r#"{"error":"bad gateway"}"#), "502 bad gateway"),
    ];
    for (fault, _) in &refusals {
        fake.fail_requests("_bulk", fault.clone(), Times::Next(1));
    }
    for (_, expected) in refusals {
        assert_eq!(short(&bulk(&versioned("a", 1)).send(fake.address()).await), expected);
    }
    assert_eq!(short(&bulk(&versioned("a", 1)).send(fake.address()).await), "201");
    fake.fail_requests("", RequestFault::TooLarge, Times::UntilCleared);
    let answer = post(JSON, "").method("GET").path("/").send(fake.address()).await;
    assert_eq!((answer.status(), answer.text().as_str()), (413, ""));
    fake.clear_faults();
    fake.limit_body(10);
    assert_eq!(bulk(&versioned("a", 2)).send(fake.address()).await.status(), 413);
    assert_eq!(fake.documents("plain")["a"].version, 1);
}

#[tokio::test]
async fn answers_are_late_or_cut_or_never_come() {
    let fake = FakeSearch::start(Product::OpenSearch3).await;
    fake.fail_requests("_bulk", RequestFault::CutAnswer, Times::Next(1));
    let cut = raw(fake.address(), "POST /_bulk", &versioned("a", 1)).await;
    assert!(cut.starts_with("HTTP/1.1 200 OK") && cut.contains("\r\n\r\n{") && !cut.ends_with("}]}"), "{cut}");
    assert_eq!(fake.documents("plain").len(), 1, "what was cut is done");
    fake.fail_requests("_bulk", RequestFault::Slow(Duration::from_millis(300)), Times::Next(2));
    let begun = Instant::now();
    let (first, second) = (versioned("b", 1), versioned("c", 1));
    let (first, second) = (bulk(&first), bulk(&second));
    let (first, second) = tokio::join!(first.send(fake.address()), second.send(fake.address()));
    assert_eq!((short(&first).as_str(), short(&second).as_str()), ("201", "201"));
    assert!(begun.elapsed() >= Duration::from_millis(300) && fake.counts().most_at_once == 2, "{:?}", fake.counts());
    fake.fail_requests("_bulk", RequestFault::Hang, Times::Next(1));
    let lines = versioned("d", 1);
    let hangs = tokio::time::timeout(Duration::from_millis(300), raw(fake.address(), "POST /_bulk", &lines)).await;
    assert!(hangs.is_err() && !fake.documents("plain").contains_key("d"));
    let head = raw(fake.address(), "HEAD /_index_template/nope", "").await;
    assert!(head.starts_with("HTTP/1.1 404") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(fake.counts().requests, 5);
}

#[tokio::test]
async fn items_fail_on_command() {
    let cases = [
        (ItemFault::QueueFull, "429 es_rejected_execution_exception"),
        (ItemFault::FloodStage, "429 cluster_block_exception"),
        (ItemFault::Mapping, "400 document_parsing_exception"),
        (ItemFault::NoShard, "503 unavailable_shards_exception"),
        (ItemFault::NoIndex, "404 index_not_found_exception"),
        (ItemFault::FailureStore, "201"),
    ];
    let fake = FakeSearch::start(Product::Elasticsearch9).await;
    for (fault, expected) in cases {
        fake.fail_items(|item| item.id.as_deref() == Some("bad"), fault, Times::Next(1));
        let lines = versioned("good", 1) + &versioned("bad", 1);
        let answer = bulk(&lines).send(fake.address()).await;
        assert!(short(&answer).ends_with(&format!(", {expected}")), "{fault:?}: {}", answer.text());
        let is_kept_apart = json_of(&answer)["items"][1]["index"]["failure_store"] == json!("used");
        assert_eq!(is_kept_apart, fault == ItemFault::FailureStore);
    }
    let documents = fake.documents("plain");
    assert!(documents.contains_key("good") && !documents.contains_key("bad"));
    let failures = fake.failures();
    let [item] = failures.as_slice() else { panic!("{failures:?}") };
    assert_eq!(
        (item.action.name(), item.index.as_str(), item.version, &item.source),
        ("index", "plain", Some(1), &json!({"n": 1}))
    );
    assert_eq!(short(&bulk(&versioned("bad", 1)).send(fake.address()).await), "201", "used up");
}
