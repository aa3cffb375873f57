//! What the server says of a bulk request, and what it means. A 200 hides the fate of each document: it is told item by item.

use serde::Deserialize;

use crate::export::delivery::{Trouble, Verdict};
use crate::export::pace::Hold;

/// Most of a reason that is kept.
const MAX_REASON: usize = 500;

#[derive(Deserialize)]
struct Bulk {
    #[serde(default)]
    items: Vec<Outer>,
}

#[derive(Deserialize)]
struct Outer {
    #[serde(alias = "create")]
    index: Item,
}

#[derive(Deserialize)]
struct Item {
    status: u16,
    #[serde(default)]
    error: Option<Fault>,
    #[serde(default)]
    failure_store: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Fault {
    #[serde(rename = "type")]
    kind: String,
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Whole {
    error: Option<Fault>,
}

/// What it means for each document, or for all of them.
pub(super) fn verdicts(status: u16, body: &[u8]) -> Result<Vec<Verdict>, Trouble> {
    if status != 200 {
        return Err(trouble(status, body));
    }
    let bulk: Bulk = serde_json::from_slice(body)
        .map_err(|error| Trouble::Again(Hold::Away(format!("the answer to a bulk request cannot be read: {error}"))))?;
    Ok(bulk.items.into_iter().map(|outer| verdict(outer.index)).collect())
}

fn verdict(item: Item) -> Verdict {
    let fault = item.error.unwrap_or_default();
    let reason = || said(item.status, &fault);
    match (item.status, fault.kind.as_str()) {
        // It was taken, but not into the index.
        (200..=299, _) if item.failure_store.as_deref() == Some("used") => {
            Verdict::Never("it does not fit the mappings and lies in the failure store".to_owned())
        }
        (200..=299, _) => Verdict::Done,
        // It has this state or a newer one.
        (409, "version_conflict_engine_exception") => Verdict::Done,
        (_, kind) if is_for_operator(item.status, kind, fault.reason.as_deref()) => {
            Verdict::Again(Hold::Operator(reason()))
        }
        (429, "circuit_breaking_exception") => Verdict::Again(Hold::Memory(reason())),
        (408 | 409 | 425 | 429 | 500..=599, _) => Verdict::Again(Hold::Busy(reason())),
        _ => Verdict::Never(reason()),
    }
}

fn trouble(status: u16, body: &[u8]) -> Trouble {
    let fault = serde_json::from_slice::<Whole>(body).ok().and_then(|whole| whole.error).unwrap_or_default();
    let reason = said(status, &fault);
    match (status, fault.kind.as_str()) {
        (413, _) => Trouble::TooLarge,
        (_, kind) if is_for_operator(status, kind, fault.reason.as_deref()) => Trouble::Again(Hold::Operator(reason)),
        (429, "circuit_breaking_exception") => Trouble::Again(Hold::Memory(reason)),
        (408 | 425 | 429, _) => Trouble::Again(Hold::Busy(reason)),
        // What names no fault of ours comes from something in between, which would refuse every document.
        (400, kind) if !kind.is_empty() => Trouble::Refused(reason),
        // Wrong rights, a wrong path, a server that does not know our media type.
        (300..=499, _) => Trouble::Again(Hold::Operator(reason)),
        _ => Trouble::Again(Hold::Away(reason)),
    }
}

/// No document is at fault and no pause helps: a right, a block, a name or a bound of the cluster must be changed.
fn is_for_operator(status: u16, kind: &str, reason: Option<&str>) -> bool {
    const KINDS: [&str; 6] = [
        // A disk beyond its flood stage, an index that is read only or closed.
        "cluster_block_exception",
        "index_closed_exception",
        "security_exception",
        // The cluster makes no index by itself.
        "index_not_found_exception",
        "invalid_index_name_exception",
        // It has all the shards that it may have.
        "validation_exception",
    ];
    // Collections of Amazon OpenSearch Serverless for time series take no id; and a data stream where an index should be.
    const REASONS: [&str; 2] = ["Document ID is not supported", "op_type of create"];
    let says = |text: &str| reason.is_some_and(|reason| reason.contains(text));
    // While a node starts, it blocks what it does not know yet; that passes.
    status < 500 && ([401, 403].contains(&status) || KINDS.contains(&kind) || REASONS.into_iter().any(says))
}

fn said(status: u16, fault: &Fault) -> String {
    let mut text = match (&*fault.kind, &fault.reason) {
        ("", _) => format!("status {status}"),
        (kind, None) => format!("status {status}, {kind}"),
        (kind, Some(reason)) => format!("status {status}, {kind}: {reason}"),
    };
    if text.len() > MAX_REASON {
        text.truncate(text.floor_char_boundary(MAX_REASON));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "so reads a case")]
    fn check(status: u16, body: &str, expected: Expect) {
        expected.assert_eq(&match verdicts(status, body.as_bytes()) {
            Ok(verdicts) => verdicts.iter().map(|verdict| format!("{verdict:?}")).collect::<Vec<_>>().join("\n"),
            Err(trouble) => format!("all: {trouble:?}"),
        });
    }

    fn item(status: u16, kind: &str, reason: &str) -> String {
        serde_json::json!({"items": [{"index": {"status": status, "error": {"type": kind, "reason": reason}}}]})
            .to_string()
    }

    #[test]
    fn what_was_taken_is_done_and_so_is_what_is_newer_there() {
        let conflict = item(409, "version_conflict_engine_exception", "current version [4] is higher");
        check(200, &conflict, expect!["Done"]);
        check(
            200,
            r#"{"items":[{"index":{"status":201}},{"create":{"status":200}}]}"#,
            expect![[r"
            Done
            Done"]],
        );
    }

    #[test]
    fn the_failure_store_has_not_indexed_it() {
        check(
            200,
            r#"{"items":[{"create":{"status":201,"failure_store":"used"}},{"create":{"status":201,"failure_store":"not_enabled"}}]}"#,
            expect![[r#"
                Never("it does not fit the mappings and lies in the failure store")
                Done"#]],
        );
    }

    #[test]
    fn each_429_is_told_apart() {
        check(
            200,
            &item(429, "es_rejected_execution_exception", "queue"),
            expect![[r#"Again(Busy("status 429, es_rejected_execution_exception: queue"))"#]],
        );
        check(
            200,
            &item(429, "circuit_breaking_exception", "data too large"),
            expect![[r#"Again(Memory("status 429, circuit_breaking_exception: data too large"))"#]],
        );
        check(
            200,
            &item(429, "cluster_block_exception", "flood-stage"),
            expect![[r#"Again(Operator("status 429, cluster_block_exception: flood-stage"))"#]],
        );
        check(429, "", expect![[r#"all: Again(Busy("status 429"))"#]]);
    }

    #[test]
    fn a_document_that_does_not_fit_is_never_sent_again() {
        for kind in ["mapper_parsing_exception", "document_parsing_exception", "strict_dynamic_mapping_exception"] {
            let verdict = verdicts(200, item(400, kind, "failed to parse").as_bytes()).unwrap();
            assert_eq!(verdict, [Verdict::Never(format!("status 400, {kind}: failed to parse"))]);
        }
    }

    #[test]
    fn what_the_cluster_lacks_is_no_fault_of_a_document() {
        for (status, kind, reason) in [
            (400, "validation_exception", "this action would add [2] shards"),
            (404, "index_not_found_exception", "no such index"),
            (403, "security_exception", "no rights"),
            (403, "cluster_block_exception", "read-only"),
            (400, "illegal_argument_exception", "Document ID is not supported in create/index operation request"),
        ] {
            let verdict = verdicts(200, item(status, kind, reason).as_bytes()).unwrap();
            assert!(matches!(&verdict[..], [Verdict::Again(Hold::Operator(_))]), "{verdict:?}");
        }
    }

    #[test]
    fn a_whole_request_fails_in_its_own_ways() {
        check(413, "", expect!["all: TooLarge"]);
        check(401, "no", expect![[r#"all: Again(Operator("status 401"))"#]]);
        check(406, "", expect![[r#"all: Again(Operator("status 406"))"#]]);
        check(
            503,
            r#"{"error":{"type":"master_not_discovered_exception","reason":null},"status":503}"#,
            expect![[r#"all: Again(Away("status 503, master_not_discovered_exception"))"#]],
        );
        check(
            400,
            r#"{"error":{"type":"illegal_argument_exception","reason":"bad line"}}"#,
            expect![[r#"all: Refused("status 400, illegal_argument_exception: bad line")"#]],
        );
        check(
            200,
            "<html>",
            expect![[
                r#"all: Again(Away("the answer to a bulk request cannot be read: expected value at line 1 column 1"))"#
            ]],
        );
    }
}
