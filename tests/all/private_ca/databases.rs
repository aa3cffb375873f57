//! Postgres and Redis.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use tacho::limit::StoreError;
use tacho::persist::{PersistError, Store};
use tacho::remote::Target;

use super::{Certificates, chain};
use crate::support::certificates::Issued;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::tacho_process::Tacho;

const PATIENCE: Duration = Duration::from_secs(30);

fn postgres_url(postgres: &Postgres, name: &str) -> String {
    format!("postgres://tacho@{name}:{}/records", postgres.port())
}

/// An outage, as the server may be mended.
async fn refused(target: Target) -> String {
    match Store::open(target, "test").await.err() {
        Some(error @ PersistError::Unreachable(_)) => chain(&error),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn postgres_is_known_by_its_certificate() {
    let certificates = Certificates::new();
    let postgres = Postgres::start();
    postgres.database("records");
    let target = certificates.target("database", &postgres_url(&postgres, "localhost"));
    // One that speaks no TLS is never spoken to in plain text.
    assert!(refused(target.clone()).await.contains("server does not support TLS"));
    for (which, issued, reason) in certificates.refused() {
        postgres.speak_tls(&issued.certificate, &issued.key, None);
        let said = refused(target.clone()).await;
        assert!(said.contains(reason), "{which}: {said}");
        // What Postgres does without a ca_file: encrypted, and nobody is known.
        Store::open(&postgres_url(&postgres, "localhost"), "test").await.unwrap().close().await;
    }
    let own = certificates.good();
    postgres.speak_tls(&own.certificate, &own.key, None);
    postgres.admit("hostssl all all 127.0.0.1/32 trust");
    for name in ["localhost", "127.0.0.1"] {
        let target = certificates.target("database", &postgres_url(&postgres, name));
        Store::open(target.clone(), "test").await.unwrap().close().await;
        // The store of limits has a pool of its own.
        let limits = tacho::limit::Store::database(target).await.unwrap();
        limits.heartbeat(&"n".into(), PATIENCE, 0).await.unwrap();
        limits.close().await;
    }
}

#[tokio::test]
async fn postgres_may_ask_for_our_certificate() {
    let certificates = Certificates::new();
    let postgres = Postgres::start();
    postgres.database("records");
    let own = certificates.good();
    postgres.speak_tls(&own.certificate, &own.key, Some(&certificates.trusted.pem()));
    postgres.admit("hostssl all all 127.0.0.1/32 cert");
    let url = postgres_url(&postgres, "localhost");
    let open = async |own: &Issued| Store::open(certificates.known_target("database", &url, own), "test").await;
    open(&certificates.trusted.client("tacho")).await.unwrap().close().await;
    assert!(open(&certificates.trusted.client("somebody")).await.is_err());
    assert!(open(&certificates.other.client("tacho")).await.is_err());
    assert!(Store::open(certificates.target("database", &url), "test").await.is_err());
}

async fn until(tacho: &Tacho, text: &str) {
    let begun = Instant::now();
    while !tacho.log().contains(text) {
        assert!(begun.elapsed() < PATIENCE, "no {text} in {}", tacho.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The real binary starts before a server that it does not trust, and goes on when the right authority is in the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_trusted_is_an_outage_until_it_is() {
    let certificates = Certificates::new();
    let postgres = Postgres::start();
    postgres.database("records");
    let own = certificates.good();
    postgres.speak_tls(&own.certificate, &own.key, None);
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    certificates.other.write(&ca_file);
    let ca = ca_file.display().to_string();
    let tacho = Tacho::start(
        folder.path(),
        &postgres_url(&postgres, "localhost"),
        &[("TACHO_DATABASE__CA_FILE", &ca), ("TACHO_LIMITS__BACKEND", "memory")],
    );
    until(&tacho, "database away").await;
    until(&tacho, "UnknownIssuer").await;
    certificates.trusted.write(&ca_file);
    let begun = Instant::now();
    while crate::support::client::post("text/plain", "").method("GET").path("/readyz").send(tacho.http).await.status()
        != 200
    {
        assert!(begun.elapsed() < PATIENCE, "{}", tacho.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tacho.stop();
}

/// Where Redis is not trusted, limits do without it, and the log says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_not_trusted_is_away_and_it_is_said_why() {
    let certificates = Certificates::new();
    let redis = Redis::tls(&certificates.other.server(&["localhost"]), None, &[]);
    let folder = tempfile::tempdir().unwrap();
    // Without a limit nobody asks.
    std::fs::write(folder.path().join("tacho.toml"), super::LIMIT).unwrap();
    let (ca, url) = (certificates.ca_file().display().to_string(), rediss(&redis, "localhost"));
    let settings = [("TACHO_LIMITS__BACKEND", "redis"), ("TACHO_LIMITS__URL", &*url), ("TACHO_LIMITS__CA_FILE", &*ca)];
    let tacho = Tacho::start(folder.path(), &format!("sqlite:{}/tacho.db", folder.path().display()), &settings);
    until(&tacho, "limit store away").await;
    until(&tacho, "UnknownIssuer").await;
    tacho.stop();
}

async fn beat(target: Target) -> Result<u32, StoreError> {
    let store = tacho::limit::Store::redis(target, Duration::from_millis(500)).await?;
    store.heartbeat(&"n".into(), PATIENCE, 0).await
}

fn rediss(redis: &Redis, name: &str) -> String {
    format!("rediss://{name}:{}", redis.port)
}

#[tokio::test]
async fn redis_is_known_by_its_certificate() {
    let certificates = Certificates::new();
    for (which, issued, reason) in certificates.refused() {
        let redis = Redis::tls(&issued, None, &[]);
        match beat(certificates.target("limits", &rediss(&redis, "localhost"))).await {
            Err(error @ StoreError::Away(_)) => assert!(chain(&error).contains(reason), "{which}: {}", chain(&error)),
            other => panic!("{which}: {other:?}"),
        }
    }
    let plain = Redis::start();
    let said = beat(certificates.target("limits", &rediss(&plain, "localhost"))).await;
    assert!(matches!(said, Err(StoreError::Away(_))), "{said:?}");
    // A `redis://` would be plain text.
    match beat(certificates.target("limits", &plain.url())).await {
        Err(error @ StoreError::Unusable(_)) => assert!(chain(&error).contains("limits.ca_file"), "{}", chain(&error)),
        other => panic!("{other:?}"),
    }
    let redis = Redis::tls(&certificates.good(), None, &[]);
    for name in ["localhost", "127.0.0.1"] {
        assert_eq!(beat(certificates.target("limits", &rediss(&redis, name))).await.unwrap(), 1);
    }
    // The system does not know this authority.
    assert!(matches!(beat(rediss(&redis, "localhost").as_str().into()).await, Err(StoreError::Away(_))));
}

#[tokio::test]
async fn redis_may_ask_for_our_certificate() {
    let certificates = Certificates::new();
    let redis = Redis::tls(&certificates.good(), Some(&certificates.trusted), &[]);
    let url = rediss(&redis, "localhost");
    let own = certificates.trusted.client("tacho");
    assert_eq!(beat(certificates.known_target("limits", &url, &own)).await.unwrap(), 1);
    let stranger = certificates.other.client("tacho");
    assert!(beat(certificates.known_target("limits", &url, &stranger)).await.is_err());
    assert!(beat(certificates.target("limits", &url)).await.is_err());
}

/// A cluster of one, which has all slots.
#[tokio::test]
async fn a_cluster_of_redis_is_known_by_its_certificates() {
    let certificates = Certificates::new();
    let bus = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let more = ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", &bus];
    let redis = Redis::tls(&certificates.good(), None, &more);
    let ca = certificates.ca_file().display().to_string();
    assert_eq!(redis.cli(&["--tls", "--cacert", &ca, "CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
    let begun = Instant::now();
    while !redis.cli(&["--tls", "--cacert", &ca, "CLUSTER", "INFO"]).contains("cluster_state:ok") {
        assert!(begun.elapsed() < PATIENCE, "the cluster does not come up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let url = format!("{},{}", rediss(&redis, "localhost"), rediss(&redis, "127.0.0.1"));
    assert_eq!(beat(certificates.target("limits", &url)).await.unwrap(), 1);
    let mut other = certificates.target("limits", &url);
    other.files.ca_file = Some(certificates.folder.path().join("other.pem"));
    let said = beat(other).await;
    assert!(matches!(said, Err(StoreError::Away(_))), "{said:?}");
}
