//! The servers start, keep what they have, and count versions.

use serde_json::{Value, json};

use crate::support::search::{SearchKind, SearchServer};

/// One document with a version of ours.
fn versioned(id: &str, version: u64) -> String {
    let action = json!({"index": {"_index": "plain-1", "_id": id, "version": version, "version_type": "external"}});
    format!("{action}\n{}\n", json!({"tokens": version}))
}

fn status(answer: &Value) -> u64 {
    answer["items"][0]["index"]["status"].as_u64().unwrap()
}

async fn takes_a_template_and_a_document(kind: SearchKind) -> SearchServer {
    let server = SearchServer::start(kind).await;
    let mappings = json!({"properties": {"tokens": {"type": "long"}}});
    let template = json!({"index_patterns": ["plain-*"], "template": {"mappings": mappings}});
    assert_eq!(server.put("/_index_template/tacho", &template).await["acknowledged"], true, "{kind:?}");
    assert_eq!(status(&server.bulk(&versioned("a", 5)).await), 201, "{kind:?}");
    let again = server.bulk(&versioned("a", 5)).await;
    assert_eq!(status(&again), 409, "{kind:?}: {again}");
    assert_eq!(again["items"][0]["index"]["error"]["type"], "version_conflict_engine_exception", "{kind:?}");
    assert_eq!(status(&server.bulk(&versioned("a", 6)).await), 200, "{kind:?}");
    server.refresh("plain-1").await;
    assert_eq!(server.count("plain-1").await, 1, "{kind:?}");
    let found = server.search("plain-1", &json!({"query": {"term": {"tokens": 6}}})).await;
    assert_eq!(found["hits"]["hits"][0]["_id"], "a", "{kind:?}: {found}");
    server
}

#[tokio::test]
async fn search_servers_answer() {
    let (elastic, open2, open3) = tokio::join!(
        takes_a_template_and_a_document(SearchKind::Elasticsearch7),
        takes_a_template_and_a_document(SearchKind::OpenSearch2),
        takes_a_template_and_a_document(SearchKind::OpenSearch3),
    );
    for (server, number) in [(elastic, "7.10.2"), (open2, "2.19.1"), (open3, "3.8.0")] {
        assert_eq!(server.get("/").await["version"]["number"], number);
    }
}

#[tokio::test]
async fn a_search_server_keeps_what_it_has() {
    let mut server = takes_a_template_and_a_document(SearchKind::OpenSearch3).await;
    let url = server.url();
    server.stop().await;
    server.restart().await;
    assert_eq!(status(&server.bulk(&versioned("a", 6)).await), 409);
    assert_eq!(status(&server.bulk(&versioned("b", 1)).await), 201);
    server.kill();
    server.restart().await;
    assert_eq!(status(&server.bulk(&versioned("b", 1)).await), 409);
    assert_eq!(server.url(), url);
    server.pause();
    let lines = versioned("c", 1);
    let waits = tokio::time::timeout(std::time::Duration::from_millis(500), server.bulk(&lines)).await;
    assert!(waits.is_err(), "a server that is paused answers: {waits:?}");
    server.resume();
    // The first one may have come in yet, after the pause.
    assert!(matches!(status(&server.bulk(&lines).await), 201 | 409));
}

/// What the exporter may use depends on it.
#[tokio::test]
async fn a_data_stream_takes_only_new_documents() {
    let kind = SearchKind::OpenSearch2;
    assert!(kind.has_data_streams());
    let server = SearchServer::start(kind).await;
    let template = json!({"index_patterns": ["stream-*"], "data_stream": {}});
    server.put("/_index_template/stream", &template).await;
    let document = json!({"@timestamp": "2026-01-01T00:00:00Z"});
    let index = json!({"index": {"_index": "stream-1", "_id": "a"}});
    let create = json!({"create": {"_index": "stream-1", "_id": "a"}});
    let answer = server.bulk(&format!("{index}\n{document}\n{create}\n{document}\n{create}\n{document}\n")).await;
    let items = answer["items"].as_array().unwrap();
    let statuses: Vec<u64> = items
        .iter()
        .map(|item| item.as_object().unwrap().values().next().unwrap()["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [400, 201, 409], "{answer}");
}
