//! Requests and answers of a fake: which path does what, which headers it must have, and the faults of whole requests.

use std::io::Read;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::Shared;
use super::answers::{self, error, filtered};
use super::bulk::{self, backing};
use super::faults::RequestFault;
use super::product::{Product, Refused};

/// The parameters of a bulk request.
const BULK_PARAMETERS: [&str; 9] = [
    "error_trace",
    "filter_path",
    "human",
    "pipeline",
    "pretty",
    "refresh",
    "require_alias",
    "timeout",
    "wait_for_active_shards",
];

const INDEX_TEMPLATE: [&str; 9] = [
    "_meta",
    "allow_auto_create",
    "composed_of",
    "data_stream",
    "ignore_missing_component_templates",
    "index_patterns",
    "priority",
    "template",
    "version",
];

const COMPONENT_TEMPLATE: [&str; 3] = ["_meta", "template", "version"];

/// One more request is being served, until this is dropped.
struct Present(Shared);

impl Present {
    fn enter(shared: Shared, path: &str) -> Self {
        let mut state = shared.lock();
        state.at_once += 1;
        state.counts.requests += 1;
        state.counts.bulks += u64::from(path.ends_with("/_bulk"));
        state.counts.most_at_once = state.counts.most_at_once.max(state.at_once);
        drop(state);
        Self(shared)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.lock().at_once -= 1;
    }
}

pub(super) async fn take(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let _present = Present::enter(shared.clone(), uri.path());
    let fault = shared.lock().faults.of_request(uri.path());
    let product = shared.product;
    let refusal = match &fault {
        Some(RequestFault::CircuitBreaker) => Some((429, answers::circuit_breaker())),
        Some(RequestFault::QueueFull) => Some((429, answers::queue_full(product))),
        Some(RequestFault::NoMaster) => Some((503, answers::no_master(product))),
        Some(RequestFault::Unauthorized) => Some((401, answers::unauthorized())),
        Some(RequestFault::Forbidden) => Some((403, answers::forbidden(product))),
        Some(RequestFault::TooLarge) => return response(product, 413, String::new()),
        Some(RequestFault::Answer(status, text)) => return response(product, *status, (*text).to_owned()),
        Some(RequestFault::Hang) => std::future::pending().await,
        Some(RequestFault::Slow(duration)) => {
            tokio::time::sleep(*duration).await;
            None
        }
        Some(RequestFault::CutAnswer) | None => None,
    };
    let (status, answer) = refusal.unwrap_or_else(|| {
        let refused = |refused: Refused| (refused.status, refused.body);
        answer(&shared, &method, &uri, &headers, &body).unwrap_or_else(refused)
    });
    let text = if answer.is_null() { String::new() } else { answer.to_string() };
    if matches!(fault, Some(RequestFault::CutAnswer)) {
        return cut(product, status, &text);
    }
    response(product, status, text)
}

fn response(product: Product, status: u16, text: String) -> Response {
    let mut response =
        Response::builder().status(status).header(header::CONTENT_TYPE, "application/json; charset=UTF-8");
    if let Some((name, value)) = product.header() {
        response = response.header(name, value);
    }
    response.body(Body::from(text)).unwrap()
}

/// The head and half of the body, and then the end of the connection.
fn cut(product: Product, status: u16, text: &str) -> Response {
    let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
    let end = stream::once(async {
        // What was sent before must be out.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        Err(std::io::Error::other("cut"))
    });
    let length = text.len();
    let mut response = response(product, status, String::new());
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    *response.body_mut() = Body::from_stream(stream::iter([Ok(half)]).chain(end));
    response
}

type Answer = Result<(u16, Value), Refused>;

fn answer(shared: &Shared, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Answer {
    let body = unzipped(headers, body)?;
    {
        let mut state = shared.lock();
        state.counts.biggest_body = state.counts.biggest_body.max(body.len());
        if state.max_body.is_some_and(|most| body.len() > most) {
            return Ok((413, Value::Null));
        }
    }
    if body.is_empty() {
        shared.product.check_accept(headers)?;
    } else {
        shared.product.check_types(headers)?;
    }
    let parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
    match (method.as_str(), parts.as_slice()) {
        ("GET" | "HEAD", []) => Ok((200, shared.product.banner())),
        ("POST" | "PUT", ["_bulk"]) => bulk(shared, None, uri.query(), &body),
        ("POST" | "PUT", [index, "_bulk"]) => bulk(shared, Some(index), uri.query(), &body),
        ("GET" | "HEAD", ["_index_template", name]) => show_template(shared, "index", name),
        ("GET" | "HEAD", ["_component_template", name]) => show_template(shared, "component", name),
        ("PUT" | "POST", ["_index_template", name]) => put_index_template(shared, name, &body),
        ("PUT" | "POST", ["_component_template", name]) => {
            let template = template(&body, "component_template", &COMPONENT_TEMPLATE)?;
            shared.lock().store.components.insert((*name).to_owned(), template);
            Ok((200, json!({"acknowledged": true})))
        }
        ("GET", ["_data_stream", name]) => data_stream(shared, name),
        ("GET", ["_cluster", "health"]) => {
            Ok((200, json!({"cluster_name": "fake", "status": "green", "timed_out": false})))
        }
        _ => {
            let said = format!("no handler found for uri [{}] and method [{method}]", uri.path());
            Ok((400, json!({"error": said})))
        }
    }
}

fn unzipped(headers: &HeaderMap, body: &Bytes) -> Result<Bytes, Refused> {
    if headers.get(header::CONTENT_ENCODING).is_none_or(|encoding| encoding != "gzip") {
        return Ok(body.clone());
    }
    let mut plain = Vec::new();
    // The real ones cut the connection.
    let read = flate2::read::MultiGzDecoder::new(&**body).read_to_end(&mut plain);
    read.map_err(|cause| bad("illegal_argument_exception", &format!("no gzip: {cause}")))?;
    Ok(plain.into())
}

fn bad(kind: &str, reason: &str) -> Refused {
    Refused { status: 400, body: error(400, kind, reason) }
}

fn bulk(shared: &Shared, index: Option<&str>, query: Option<&str>, body: &[u8]) -> Answer {
    let mut filter = None;
    for parameter in query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !BULK_PARAMETERS.contains(&name) {
            let reason = format!("request [/_bulk] contains unrecognized parameter: [{name}]");
            return Err(bad("illegal_argument_exception", &reason));
        }
        if name == "filter_path" {
            filter = Some(value.replace("%2C", ",").replace("%2A", "*"));
        }
    }
    let items = bulk::parse(shared.product, body, index)?;
    let mut state = shared.lock();
    let state = &mut *state;
    let mut told = Vec::new();
    for item in &items {
        let (answer, is_written) = state.store.write(shared.product, &mut state.faults, item);
        state.counts.items += 1;
        state.counts.written += u64::from(is_written);
        told.push(answer);
    }
    let fails =
        |item: &Value| item.as_object().is_some_and(|item| item.values().any(|inner| inner.get("error").is_some()));
    let answer = json!({"took": 1, "errors": told.iter().any(fails), "items": told});
    Ok((200, filter.map_or_else(|| answer.clone(), |filter| filtered(&answer, &filter))))
}

/// A template with the fields that one may have.
fn template(body: &[u8], kind: &str, fields: &[&str]) -> Result<Value, Refused> {
    let template: Value =
        serde_json::from_slice(body).map_err(|cause| bad("json_parse_exception", &cause.to_string()))?;
    let unknown = template.as_object().and_then(|given| given.keys().find(|name| !fields.contains(&name.as_str())));
    match unknown {
        Some(name) => Err(bad("x_content_parse_exception", &format!("[1:2] [{kind}] unknown field [{name}]"))),
        None if !template.is_object() => Err(bad("parse_exception", "request body is required")),
        None => Ok(template),
    }
}

fn put_index_template(shared: &Shared, name: &str, body: &[u8]) -> Answer {
    let template = template(body, "index_template", &INDEX_TEMPLATE)?;
    if template["index_patterns"].as_array().is_none_or(Vec::is_empty) {
        return Err(bad("illegal_argument_exception", "Required [index_patterns]"));
    }
    let mut state = shared.lock();
    let composed = template["composed_of"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let missing: Vec<&str> = composed.filter(|part| !state.store.components.contains_key(*part)).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        let reason = format!(
            "index_template [{name}] invalid, cause [index template [{name}] specifies component templates \
             [{missing}] that do not exist]"
        );
        return Err(bad("invalid_index_template_exception", &reason));
    }
    state.store.templates.insert(name.to_owned(), template);
    Ok((200, json!({"acknowledged": true})))
}

fn show_template(shared: &Shared, kind: &str, name: &str) -> Answer {
    let state = shared.lock();
    let templates = if kind == "index" { &state.store.templates } else { &state.store.components };
    let Some(template) = templates.get(name) else {
        let reason = format!("{kind} template matching [{name}] not found");
        return Err(Refused { status: 404, body: error(404, "resource_not_found_exception", &reason) });
    };
    let one = json!({"name": name, format!("{kind}_template"): template});
    Ok((200, json!({format!("{kind}_templates"): [one]})))
}

fn data_stream(shared: &Shared, name: &str) -> Answer {
    let state = shared.lock();
    let template = state.store.stream_template(name).filter(|_| state.store.documents.contains_key(name));
    let Some(template) = template else {
        let reason = format!("no such index [{name}]");
        return Err(Refused { status: 404, body: error(404, "index_not_found_exception", &reason) });
    };
    let indices = json!([{"index_name": backing(name), "index_uuid": "aaaaaaaaaaaaaaaaaaaaaa"}]);
    let stream = json!({
        "name": name, "timestamp_field": {"name": "@timestamp"}, "indices": indices,
        "generation": 1, "status": "YELLOW", "template": template,
    });
    Ok((200, json!({"data_streams": [stream]})))
}
