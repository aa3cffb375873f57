//! The fake is as strict as the servers: what it refuses, and in which words.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::client::{Answer, Ask, JSON, post};
use crate::support::fake_search::{Action, Document, FakeSearch, Product};
use crate::support::search::NDJSON;

pub(super) fn bulk(lines: &str) -> Ask {
    post(NDJSON, lines).path("/_bulk")
}

pub(super) fn line(action: &str, metadata: &Value, document: &Value) -> String {
    format!("{}\n{document}\n", json!({action: metadata}))
}

/// One document with a version of ours.
pub(super) fn versioned(id: &str, version: u64) -> String {
    let metadata = json!({"_index": "plain", "_id": id, "version": version, "version_type": "external"});
    line("index", &metadata, &json!({"n": version}))
}

pub(super) fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(&answer.text()).unwrap()
}

/// Status of the request, then status and error of each item.
pub(super) fn short(answer: &Answer) -> String {
    let body = json_of(answer);
    let kind = |error: &Value| error["type"].as_str().or(error.as_str()).unwrap_or_default().to_owned();
    let Some(items) = body["items"].as_array() else {
        return format!("{} {}", answer.status(), kind(&body["error"]));
    };
    let item = |item: &Value| {
        let inner = item.as_object().unwrap().values().next().unwrap();
        format!("{} {}", inner["status"], kind(&inner["error"])).trim_end().to_owned()
    };
    items.iter().map(item).collect::<Vec<_>>().join(", ")
}

async fn said(fake: &FakeSearch, ask: Ask) -> String {
    short(&ask.send(fake.address()).await)
}

#[tokio::test]
async fn versions_decide() {
    let fake = FakeSearch::start(Product::OpenSearch3).await;
    let lines = [versioned("a", 5), versioned("a", 5), versioned("a", 4), versioned("a", 6)].concat();
    let conflict = "409 version_conflict_engine_exception";
    assert_eq!(said(&fake, bulk(&lines)).await, format!("201, {conflict}, {conflict}, 200"));
    let documents = fake.documents("plain");
    assert_eq!(documents["a"], Document { version: 6, source: json!({"n": 6}) });
    let create = line("create", &json!({"_index": "plain", "_id": "a"}), &json!({}));
    assert_eq!(said(&fake, bulk(&create)).await, conflict);
    let answer = bulk(&versioned("a", 6)).send(fake.address()).await;
    let reason = "[a]: version conflict, current version [6] is higher or equal to the one provided [6]";
    assert_eq!(json_of(&answer)["items"][0]["index"]["error"]["reason"], reason);
    assert_eq!((fake.counts().written, fake.counts().items, fake.counts().bulks), (2, 6, 3));
    assert_eq!(fake.indices(), ["plain"]);
}

#[tokio::test]
async fn one_bad_action_spoils_the_whole_body() {
    let fake = FakeSearch::start(Product::Elasticsearch9).await;
    let external = json!({"_index": "plain", "_id": "a", "version": 5, "version_type": "external"});
    let validation = "400 action_request_validation_exception";
    let illegal = "400 illegal_argument_exception";
    let with = |bad: String| versioned("good", 1) + &bad;
    let long = json!({"_index": "plain", "_id": "x".repeat(513)});
    let cases = [
        (with(line("create", &external, &json!({}))), validation),
        (with(line("index", &long, &json!({}))), validation),
        (with(line("index", &json!({"_id": "a"}), &json!({}))), validation),
        (
            with(line("index", &json!({"_index": "plain", "version": 1, "version_type": "external"}), &json!({}))),
            validation,
        ),
        ("\n".to_owned(), validation),
        (with(line("index", &json!({"_index": "plain", "_type": "_doc"}), &json!({}))), illegal),
        (with(line("save", &json!({"_index": "plain"}), &json!({}))), illegal),
        (versioned("good", 1).trim_end().to_owned(), illegal),
        (String::new(), "400 parse_exception"),
        ("no json\n{}\n".to_owned(), "400 json_parse_exception"),
    ];
    for (body, expected) in cases {
        let asked = if body.is_empty() { bulk("") } else { bulk(&body) };
        assert_eq!(said(&fake, asked).await, expected, "{body}");
    }
    assert_eq!(fake.documents("plain").len(), 0);
    // A bad document spoils only itself.
    let lines = "{\"index\":{\"_index\":\"plain\",\"_id\":\"m\"}}\n{\"n\":\n".to_owned() + &versioned("good", 1);
    assert_eq!(said(&fake, bulk(&lines)).await, "400 document_parsing_exception, 201");
    let capital = line("index", &json!({"_index": "Plain"}), &json!({}));
    assert_eq!(said(&fake, bulk(&capital)).await, "400 invalid_index_name_exception");
}

#[tokio::test]
async fn a_stream_takes_only_new_documents_with_a_time() {
    let fake = FakeSearch::start(Product::OpenSearch2).await;
    let component = post(JSON, r#"{"template":{"mappings":{}}}"#).method("PUT").path("/_component_template/parts");
    let template = r#"{"index_patterns":["stream-*"],"data_stream":{},"composed_of":["parts"]}"#;
    let template = post(JSON, template).method("PUT").path("/_index_template/streams");
    assert_eq!(said(&fake, template.clone()).await, "400 invalid_index_template_exception");
    assert_eq!(component.send(fake.address()).await.text(), r#"{"acknowledged":true}"#);
    assert_eq!(template.send(fake.address()).await.text(), r#"{"acknowledged":true}"#);
    assert!(fake.templates().contains_key("streams") && fake.components().contains_key("parts"));
    let shown = post(JSON, "").method("GET").path("/_data_stream/stream-a");
    assert_eq!(said(&fake, shown.clone()).await, "404 index_not_found_exception");
    let metadata = json!({"_index": "stream-a", "_id": "1"});
    let timed = json!({"@timestamp": "2026-01-01T00:00:00Z"});
    let lines = line("index", &metadata, &timed)
        + &line("create", &metadata, &timed)
        + &line("create", &metadata, &timed)
        + &line("create", &json!({"_index": "stream-a", "_id": "2"}), &json!({}));
    let expected =
        "400 illegal_argument_exception, 201, 409 version_conflict_engine_exception, 400 mapper_parsing_exception";
    assert_eq!(said(&fake, bulk(&lines)).await, expected);
    assert_eq!(json_of(&shown.send(fake.address()).await)["data_streams"][0]["template"], "streams");
    let unknown = post(JSON, r#"{"index_patterns":["a"],"patterns":[]}"#).method("PUT").path("/_index_template/x");
    assert_eq!(said(&fake, unknown).await, "400 x_content_parse_exception");
    let missing = post(JSON, "").method("GET").path("/_index_template/nope");
    assert_eq!(said(&fake, missing).await, "404 resource_not_found_exception");
}

/// What `_bulk` says to a body of this type, and to an `Accept`.
async fn typed(fake: &FakeSearch, content: &'static str, accept: &'static str) -> String {
    let ask = post(content, versioned("a", 1)).path("/_bulk").header("accept", accept);
    short(&ask.send(fake.address()).await)
}

#[tokio::test]
async fn types_are_what_the_product_knows() {
    const V8: &str = "application/vnd.elasticsearch+x-ndjson; compatible-with=8";
    const V9: &str = "application/vnd.elasticsearch+x-ndjson; compatible-with=9";
    let not_supported = |content: &str| format!("406 Content-Type header [{content}] is not supported");
    for product in [Product::Elasticsearch7, Product::OpenSearch2, Product::OpenSearch3] {
        let fake = FakeSearch::start(product).await;
        assert_eq!(typed(&fake, NDJSON, V9).await, "201", "{product:?} looks at no accept");
        assert_eq!(typed(&fake, V8, V8).await, not_supported(V8), "{product:?}");
        assert_eq!(typed(&fake, "text/plain", "*/*").await, not_supported("text/plain"), "{product:?}");
        let none = bulk(&versioned("a", 2)).without_headers();
        assert_eq!(said(&fake, none).await, not_supported(""), "{product:?}");
    }
    let mismatch = "400 media_type_header_exception";
    let eight = FakeSearch::start(Product::Elasticsearch8).await;
    assert_eq!(typed(&eight, V9, V9).await, mismatch);
    assert_eq!(typed(&eight, V8, "*/*").await, mismatch);
    assert_eq!(typed(&eight, V8, V8).await, "201");
    let nine = FakeSearch::start(Product::Elasticsearch9).await;
    assert_eq!(typed(&nine, V9, V8).await, mismatch);
    assert_eq!(typed(&nine, V9, V9).await, "201");
    assert_eq!(
        typed(&nine, "application/x-ndjson; charset=utf-8", "*/*").await,
        "409 version_conflict_engine_exception"
    );
    assert!(Product::Elasticsearch9.is_elastic() && !Product::OpenSearch3.is_elastic());
    let greeting = post(JSON, "").method("GET").path("/").send(nine.address()).await;
    assert_eq!(greeting.header("x-elastic-product"), Some("Elasticsearch"));
    assert_eq!(json_of(&greeting)["version"]["number"], "9.1.0");
    let open = FakeSearch::start(Product::OpenSearch2).await;
    let greeting = post(JSON, "").method("GET").path("/").send(open.address()).await;
    assert_eq!(greeting.header("x-elastic-product"), None);
    assert_eq!(json_of(&greeting)["version"]["distribution"], "opensearch");
}

#[tokio::test]
async fn a_zipped_body_and_a_filtered_answer() {
    let fake = FakeSearch::start(Product::Elasticsearch8).await;
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let lines = line("index", &json!({"_id": "a", "version": 1, "version_type": "external"}), &json!({}));
    zip.write_all(lines.as_bytes()).unwrap();
    let zipped = zip.finish().unwrap();
    let errors = "?filter_path=errors,items.*.status,items.*.error.type";
    let ask = |query: &str| post(NDJSON, zipped.clone()).encoding("gzip").path(format!("/plain/_bulk{query}"));
    let answer = ask("?filter_path=items.*.error").send(fake.address()).await;
    assert_eq!(answer.text(), "{}");
    let answer = ask(errors).send(fake.address()).await;
    let conflict = json!({"index": {"status": 409, "error": {"type": "version_conflict_engine_exception"}}});
    assert_eq!(json_of(&answer), json!({"errors": true, "items": [conflict]}));
    assert_eq!(said(&fake, ask("?unknown=1")).await, "400 illegal_argument_exception");
    assert_eq!(said(&fake, bulk(&lines).encoding("gzip")).await, "400 illegal_argument_exception");
    assert_eq!(fake.counts().biggest_body, lines.len());
    assert_eq!(fake.url(), format!("http://{}", fake.address()));
    assert_eq!(Action::Create.name(), "create");
}
