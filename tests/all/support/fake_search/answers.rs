//! What the servers say, in the shapes that real nodes of 7.10.2, 2.19.1 and 3.8.0 gave; those of later versions of
//! Elasticsearch are from its documentation and sources.

use serde_json::{Value, json};

use super::bulk::Item;
use super::faults::ItemFault;
use super::product::Product;

/// An error of a whole request.
pub(super) fn whole(status: u16, error: Value) -> Value {
    let mut error = error;
    let root = json!({"type": error["type"], "reason": error["reason"]});
    error["root_cause"] = json!([root]);
    json!({"error": error, "status": status})
}

pub(super) fn error(status: u16, kind: &str, reason: &str) -> Value {
    whole(status, json!({"type": kind, "reason": reason}))
}

pub(super) fn circuit_breaker() -> Value {
    let reason = "[in_flight_requests] Data too large, data for [<http_request>] would be [6270/6.1kb], which is \
                  larger than the limit of [1024/1kb]";
    let error = json!({
        "type": "circuit_breaking_exception", "reason": reason,
        "bytes_wanted": 6270, "bytes_limit": 1024, "durability": "TRANSIENT",
    });
    whole(429, error)
}

pub(super) fn queue_full(product: Product) -> Value {
    let reason = "rejected execution of coordinating operation [coordinating_and_primary_bytes=0, replica_bytes=0, \
                  all_bytes=0, coordinating_operation_bytes=3248, max_coordinating_and_primary_bytes=1024]";
    error(429, rejected(product), reason)
}

fn rejected(product: Product) -> &'static str {
    if product.is_elastic() { "es_rejected_execution_exception" } else { "rejected_execution_exception" }
}

pub(super) fn no_master(product: Product) -> Value {
    let kind = if product.is_elastic() {
        "master_not_discovered_exception"
    } else {
        "cluster_manager_not_discovered_exception"
    };
    whole(503, json!({"type": kind, "reason": null}))
}

pub(super) fn unauthorized() -> Value {
    error(401, "security_exception", "missing authentication credentials for REST request [/_bulk]")
}

pub(super) fn forbidden(product: Product) -> Value {
    let reason = if product.is_elastic() {
        "action [indices:data/write/bulk] is unauthorized for user [tacho] with effective roles [none]"
    } else {
        "no permissions for [indices:data/write/bulk] and User [name=tacho, backend_roles=[], requestedTenant=null]"
    };
    error(403, "security_exception", reason)
}

/// What an item says that failed on command.
pub(super) fn failed(product: Product, item: &Item, fault: ItemFault) -> Value {
    let Item { index, id, .. } = item;
    let id = id.as_deref().unwrap_or("generated");
    match fault {
        ItemFault::QueueFull => {
            let kind = if product.is_elastic() { "EsThreadPoolExecutor" } else { "OpenSearchThreadPoolExecutor" };
            let reason = format!(
                "rejected execution of primary operation on {kind}[name = fake/write, queue capacity = 10000, \
                 active = 2, queued tasks = 10000]"
            );
            item_error(product, item, 429, json!({"type": rejected(product), "reason": reason}))
        }
        ItemFault::FloodStage => {
            let reason = format!(
                "index [{index}] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index \
                 has read-only-allow-delete block];"
            );
            item_error(product, item, 429, json!({"type": "cluster_block_exception", "reason": reason}))
        }
        ItemFault::Mapping => {
            let place = if product.misfit() == "document_parsing_exception" { "[1:6] " } else { "" };
            let reason = format!(
                "{place}failed to parse field [n] of type [long] in document with id '{id}'. Preview of field's \
                 value: 'word'"
            );
            let cause = json!({"type": "illegal_argument_exception", "reason": "For input string: \"word\""});
            item_error(product, item, 400, json!({"type": product.misfit(), "reason": reason, "caused_by": cause}))
        }
        ItemFault::NoShard => {
            let reason = format!("[{index}][0] primary shard is not active Timeout: [1m]");
            item_error(product, item, 503, json!({"type": "unavailable_shards_exception", "reason": reason}))
        }
        ItemFault::NoIndex => {
            let error = json!({
                "type": "index_not_found_exception", "reason": format!("no such index [{index}]"), "index": index,
                "resource.id": index, "resource.type": "index_expression", "index_uuid": "_na_",
            });
            item_error(product, item, 404, error)
        }
        ItemFault::FailureStore => {
            let mut done = done(product, item, id, 1, 201);
            let inner = &mut done[item.action.name()];
            inner["_index"] = format!(".fs-{index}-2026.01.01-000002").into();
            inner["failure_store"] = "used".into();
            done
        }
    }
}

/// The index or stream knows this document already.
pub(super) fn conflict(product: Product, item: &Item, id: &str, why: &str) -> Value {
    let error = json!({
        "type": "version_conflict_engine_exception", "reason": format!("[{id}]: version conflict, {why}"),
        "index": item.index, "shard": "0", "index_uuid": "aaaaaaaaaaaaaaaaaaaaaa",
    });
    item_error(product, item, 409, error)
}

pub(super) fn item_error(product: Product, item: &Item, status: u16, error: Value) -> Value {
    let mut inner = json!({"_index": item.index, "_id": item.id, "status": status, "error": error});
    add_type(product, &mut inner);
    json!({item.action.name(): inner})
}

pub(super) fn done(product: Product, item: &Item, id: &str, version: u64, status: u16) -> Value {
    let mut inner = json!({
        "_index": item.index, "_id": id, "_version": version, "_seq_no": 0, "_primary_term": 1, "status": status,
        "result": if status == 201 { "created" } else { "updated" },
        "_shards": {"total": 2, "successful": 1, "failed": 0},
    });
    add_type(product, &mut inner);
    json!({item.action.name(): inner})
}

fn add_type(product: Product, inner: &mut Value) {
    if product == Product::Elasticsearch7 {
        inner["_type"] = "_doc".into();
    }
}

/// What `filter_path` leaves of an answer: names with `*`, divided by dots, lists of them by commas.
pub(super) fn filtered(value: &Value, filter: &str) -> Value {
    let paths: Vec<Vec<&str>> = filter.split(',').map(|path| path.split('.').collect()).collect();
    keep(value, &paths.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap_or_else(|| json!({}))
}

fn keep(value: &Value, paths: &[&[&str]]) -> Option<Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value.clone());
    }
    match value {
        Value::Object(fields) => {
            let below = |name: &str| -> Vec<&[&str]> {
                paths.iter().filter(|path| matches(path[0], name)).map(|path| &path[1..]).collect()
            };
            let kept = fields.iter().filter_map(|(name, value)| Some((name.clone(), keep(value, &below(name))?)));
            let kept: serde_json::Map<_, _> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Array(values) => {
            let kept: Vec<Value> = values.iter().filter_map(|value| keep(value, paths)).collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        _ => None,
    }
}

/// Whether a name fits a pattern, in which `*` stands for anything.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((begin, rest)) => name.strip_prefix(begin).is_some_and(|after| {
            after
                .char_indices()
                .map(|(place, _)| place)
                .chain([after.len()])
                .any(|place| matches(rest, &after[place..]))
        }),
    }
}
