//! The fake says what the real servers say: the same requests to both, and the answers side by side.

use serde_json::json;

use super::fake::{bulk, line, short, versioned};
use crate::support::client::{Ask, JSON, post};
use crate::support::fake_search::{FakeSearch, Product};
use crate::support::search::{NDJSON, SearchKind, SearchServer};

const VENDOR: &str = "application/vnd.elasticsearch+x-ndjson; compatible-with=8";

/// Bodies of bulk requests, good and bad. Each builds on what those before it have written.
fn bodies() -> Vec<String> {
    let external = json!({"_index": "plain", "_id": "b", "version": 5, "version_type": "external"});
    let nameless = json!({"_index": "plain", "version": 5, "version_type": "external"});
    let unversioned = json!({"_index": "plain", "_id": "b", "version_type": "external"});
    let internal = json!({"_index": "plain", "_id": "b", "version": 5});
    let (plain, document) = (json!({"_index": "plain", "_id": "b"}), json!({"n": 1}));
    vec![
        [versioned("a", 5), versioned("a", 5), versioned("a", 4), versioned("a", 6)].concat(),
        line("create", &json!({"_index": "plain", "_id": "a"}), &document),
        line("create", &external, &document),
        line("index", &nameless, &document),
        line("index", &unversioned, &document),
        line("index", &internal, &document),
        line("index", &json!({"_index": "plain", "_id": "x".repeat(512)}), &document),
        line("index", &json!({"_index": "plain", "_id": "x".repeat(513)}), &document),
        line("index", &json!({"_id": "b"}), &document),
        line("index", &json!({"_index": "plain", "_id": "b", "what": 1}), &document),
        line("index", &json!({"_index": "Plain"}), &document),
        line("index", &plain, &document) + &line("index", &plain, &document),
        line("index", &plain, &document).trim_end().to_owned(),
        "{\"index\":{\"_index\":\"plain\",\"_id\":\"m\"}}\n{\"n\":\n".to_owned(),
        "{\"index\":{\"_index\":\"plain\",\"_id\":\"m\"}}\n".to_owned(),
        "no json\n{}\n".to_owned(),
        "\n".to_owned(),
        String::new(),
    ]
}

fn requests(has_data_streams: bool) -> Vec<Ask> {
    let mut asks: Vec<Ask> = bodies().iter().map(|body| bulk(body)).collect();
    let put = |path: &'static str, body: &str| post(JSON, body).method("PUT").path(path);
    let get = |path: &'static str| post(JSON, "").method("GET").path(path);
    for content in [VENDOR, "text/plain", "application/json", "application/x-ndjson; charset=utf-8"] {
        asks.push(post(content, versioned("a", 1)).path("/_bulk"));
    }
    asks.extend([
        bulk(&versioned("a", 1)).without_headers(),
        post(NDJSON, versioned("a", 1)).path("/_bulk").header("accept", VENDOR),
        post(NDJSON, versioned("a", 1)).path("/_bulk?filter_path=errors,items.*.status,items.*.error.type"),
        post(NDJSON, versioned("a", 1)).path("/_bulk?what=1"),
        get("/_index_template/plain"),
        put("/_index_template/plain", r#"{"index_patterns":["plain-*"],"composed_of":["missing"]}"#),
        put("/_index_template/plain", r#"{"index_patterns":["plain-*"],"what":1}"#),
        put("/_index_template/plain", r#"{"priority":1}"#),
        put("/_index_template/plain", "{no json"),
    ]);
    if has_data_streams {
        let (metadata, document) =
            (json!({"_index": "stream-a", "_id": "1"}), json!({"@timestamp": "2026-01-01T00:00:00Z"}));
        let created = line("create", &metadata, &document);
        let timeless = line("create", &json!({"_index": "stream-a", "_id": "2"}), &json!({"n": 1}));
        asks.extend([
            put("/_index_template/stream", r#"{"index_patterns":["stream-*"],"data_stream":{}}"#),
            get("/_data_stream/stream-a"),
            bulk(&(line("index", &metadata, &document) + &created + &created + &timeless)),
        ]);
    }
    asks
}

async fn compare(kind: SearchKind, product: Product) {
    let (real, fake) = (SearchServer::start(kind).await, FakeSearch::start(product).await);
    for (number, ask) in requests(kind.has_data_streams()).iter().enumerate() {
        let (said, faked) = (ask.send(real.address()).await, ask.send(fake.address()).await);
        assert_eq!(short(&faked), short(&said), "{kind:?}, request {number}: {}\n{}", said.text(), faked.text());
    }
}

#[tokio::test]
async fn the_fake_says_what_elasticsearch_7_says() {
    compare(SearchKind::Elasticsearch7, Product::Elasticsearch7).await;
}

#[tokio::test]
async fn the_fake_says_what_opensearch_2_says() {
    compare(SearchKind::OpenSearch2, Product::OpenSearch2).await;
}

#[tokio::test]
async fn the_fake_says_what_opensearch_3_says() {
    compare(SearchKind::OpenSearch3, Product::OpenSearch3).await;
}
