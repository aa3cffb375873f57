//! When a record is written: not before it can be kept to, and not so late that nobody sees it.

use std::path::Path;
use std::time::{Duration, Instant};

use super::durability::{get, query, until};
use crate::support::client::call;
use crate::support::load::{Shape, Unit};
use crate::support::postgres::Postgres;
use crate::support::tacho_process::Tacho;

fn unit(split: bool) -> Unit {
    Shape { seed: 8, traces: 5, calls: 2, users: 5, split, began: 1_790_000_000_000_000_000 }.unit(0)
}

fn start(folder: &Path, url: &str) -> Tacho {
    Tacho::start(folder, url, &[("TACHO_ASSEMBLE__QUIET", "100ms")])
}

/// A rolling deployment: the calls come before the stop, their requests after the start, of the same instance or of another one.
/// No request that never was is made of them in between, and nothing has to be taken back.
#[tokio::test]
async fn a_stop_makes_no_record_of_what_still_waits() {
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start();
    let sqlite = format!("sqlite:{}", folder.path().join("tacho.db").display());
    for url in [sqlite, server.database("deploy")] {
        let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let unit = unit(true);
        let tacho = start(before.path(), &url);
        assert_eq!(call(&unit.bodies[0]).send(tacho.grpc).await, "Ok");
        tacho.stop();
        assert_eq!(query(&url, "SELECT span_id FROM usage_records").await, [""; 0]);
        let waiting = "SELECT trace_id FROM trace_extracts WHERE due_at IS NOT NULL AND claimed_by IS NULL";
        assert_eq!(query(&url, waiting).await.len(), 5);

        let tacho = start(after.path(), &url);
        assert_eq!(call(&unit.bodies[1]).send(tacho.grpc).await, "Ok");
        until(&tacho, "tacho_persist_records_total{result=\"new\"} 5").await;
        tacho.stop();
        let endpoint = "/agents/{agent_id}/invoke";
        assert_eq!(query(&url, "SELECT endpoint FROM usage_records WHERE llm_calls = 2").await, [endpoint; 5]);
        assert_eq!(query(&url, "SELECT trace_id FROM usage_records WHERE revision > 1").await, [""; 0]);
        assert_eq!(query(&url, "SELECT trace_id FROM record_tombstones").await, [""; 0]);
        assert_eq!(query(&url, "SELECT trace_id FROM trace_extracts WHERE due_at IS NOT NULL").await, [""; 0]);
    }
}

/// Something always happens in these traces, so they are never quiet: their requests are seen all the same, long before `max_age`.
#[tokio::test]
async fn a_trace_that_is_never_quiet_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    // Longer than a pause between two bodies can be on a machine under load.
    let tacho = Tacho::start(folder.path(), &url, &[("TACHO_ASSEMBLE__QUIET", "3s")]);
    let (unit, begun) = (unit(false), Instant::now());
    let seen = "tacho_persist_records_total{result=\"new\"} 5";
    while !get(&tacho, "/metrics").await.lines().any(|line| line == seen) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the requests of busy traces are not seen");
        assert_eq!(call(&unit.bodies[0]).send(tacho.grpc).await, "Ok");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tacho.stop();
}
