//! TLS on every listener: certificates of clients, and replaced files.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{metrics_address, start, tacho};
use crate::ingest::span;
use crate::support::certificates::{Authority, Issued};
use crate::support::client::{Channel, JSON, PROTOBUF, call, post};
use crate::support::tacho_process::Tacho;

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

fn settings<'a>(files: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    let metrics = [("TACHO_LISTEN__METRICS", "127.0.0.1:0")];
    metrics.into_iter().chain(files.iter().map(|(name, path)| (*name, path.as_str()))).collect()
}

fn files(folder: &Path, server: &Issued, clients: Option<&Authority>) -> Vec<(&'static str, String)> {
    let written = server.write(folder, "server");
    let mut files = vec![
        ("TACHO_TLS__CERT_FILE", written.certificate.display().to_string()),
        ("TACHO_TLS__KEY_FILE", written.key.display().to_string()),
    ];
    if let Some(clients) = clients {
        files.push(("TACHO_TLS__CLIENT_CA_FILE", clients.write(&folder.join("clients.pem")).display().to_string()));
    }
    files
}

async fn connect(
    address: SocketAddr,
    authority: &Authority,
    own: Option<&Issued>,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = authority.client_config(own);
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await
}

/// What each listener says to a client that shows this certificate: near, so no token is needed.
async fn told(running: &Tacho, authority: &Authority, own: Option<&Issued>) -> String {
    let metrics = metrics_address(&running.folder);
    let mut told = match connect(running.grpc, authority, own, b"h2").await {
        Ok(stream) => match Channel::over(stream, running.grpc).await {
            Ok(mut channel) => match channel.send(&call(span::protobuf([span::good()]))).await {
                Ok(line) => line.split(':').next().unwrap().to_owned(),
                Err(_) => "cut".to_owned(),
            },
            Err(_) => "cut".to_owned(),
        },
        Err(_) => "cut".to_owned(),
    };
    for (address, ask) in [
        (running.otlp_http, post(PROTOBUF, span::protobuf([span::good()]))),
        (running.http, post(JSON, "{}").path("/v1/check")),
        (running.http, post(JSON, "").method("GET").path("/readyz")),
        (metrics, post(JSON, "").method("GET").path("/metrics")),
        (metrics, post(JSON, "").method("GET").path("/livez")),
    ] {
        let answer = match connect(address, authority, own, b"http/1.1").await {
            Ok(stream) => ask.exchange(stream, address).await.map(|answer| answer.status().to_string()),
            Err(error) => Err(error.to_string()),
        };
        told += &format!(" {}", answer.unwrap_or_else(|_| "cut".to_owned()));
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listener_speaks_tls_and_asks_for_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    let server = authority.server(&NAMES);
    let files = files(folder.path(), &server, Some(&authority));
    let running = start(folder.path(), &settings(&files));
    assert_eq!(told(&running, &authority, Some(&authority.client("bot"))).await, "Ok 200 200 200 200 200");
    // One without may see that Tacho is there.
    assert_eq!(told(&running, &authority, None).await, "PermissionDenied 403 403 200 403 200");
    assert_eq!(told(&running, &authority, Some(&other.client("bot"))).await, "cut cut cut cut cut cut");
    assert_eq!(told(&running, &other, Some(&authority.client("bot"))).await, "cut cut cut cut cut cut");
    for address in [running.grpc, running.otlp_http, running.http, metrics_address(folder.path())] {
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut heard = Vec::new();
        drop(plain.read_to_end(&mut heard).await);
        assert!(!String::from_utf8_lossy(&heard).contains("HTTP"), "{heard:?}");
    }
    // The health check of a container has no certificate.
    let vars: Vec<_> = files.iter().map(|(name, path)| (*name, path.as_str())).collect();
    let mut health = std::process::Command::new(env!("CARGO_BIN_EXE_tacho"));
    health.arg("healthcheck").current_dir(folder.path()).env("TACHO_DATA_DIR", folder.path()).envs(vars);
    let health = health.output().unwrap();
    assert!(health.status.success(), "{}", String::from_utf8_lossy(&health.stderr));
    let stream = connect(metrics_address(folder.path()), &authority, Some(&authority.client("p")), b"http/1.1").await;
    let metrics = post(JSON, "").method("GET").path("/metrics").exchange(stream.unwrap(), running.http).await.unwrap();
    let ended = |listener: &str| {
        let series = format!("tacho_connections_ended_total{{listener=\"{listener}\",reason=\"handshake\"}} ");
        metrics.text().lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse::<u64>().unwrap()
    };
    // Plain text, a client of another authority, and one that does not trust ours.
    assert_eq!(["otlp_grpc", "otlp_http", "http", "metrics"].map(ended), [3, 3, 5, 5]);
    running.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_certificate_is_taken_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let files = files(folder.path(), &first.server(&NAMES), None);
    let running = start(folder.path(), &settings(&files));
    let mut before = connect(running.http, &first, None, b"http/1.1").await.unwrap();
    std::fs::write(folder.path().join("server.pem"), "no certificate").unwrap();
    running.signal("-HUP");
    let begun = Instant::now();
    while !running.log().contains("configuration not reloaded") {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(running.log().contains("tls.cert_file"), "{}", running.log());
    assert!(connect(running.http, &first, None, b"http/1.1").await.is_ok());
    // Nobody says so: it looks by itself.
    second.server(&NAMES).write(folder.path(), "server");
    while connect(running.http, &second, None, b"http/1.1").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", running.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(connect(running.http, &first, None, b"http/1.1").await.is_err());
    // What was open stays open.
    before.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut heard = String::new();
    drop(before.read_to_string(&mut heard).await);
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    running.stop();
}

#[test]
fn bad_files_stop_the_start_and_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (Authority::new("one").server(&NAMES), Authority::new("other").server(&NAMES));
    let good = one.write(folder.path(), "one");
    let key = other.write(folder.path(), "other").key;
    let (empty, missing) = (folder.path().join("empty"), folder.path().join("missing"));
    std::fs::write(&empty, "").unwrap();
    for (cert, key, ca, said) in [
        (Some(&good.certificate), None, None, "go together"),
        (None, None, Some(&good.certificate), "go together"),
        (Some(&missing), Some(&good.key), None, "tls.cert_file"),
        (Some(&empty), Some(&good.key), None, "holds no certificate"),
        (Some(&good.certificate), Some(&empty), None, "tls.key_file"),
        (Some(&good.certificate), Some(&key), None, "tls.key_file"),
        (Some(&good.certificate), Some(&good.key), Some(&empty), "tls.client_ca_file"),
    ] {
        let entry = |name: &str, path: Option<&std::path::PathBuf>| {
            path.map_or(String::new(), |path| format!("{name} = {:?}\n", path.display().to_string()))
        };
        let text =
            ["[tls]\n".to_owned(), entry("cert_file", cert), entry("key_file", key), entry("client_ca_file", ca)];
        std::fs::write(folder.path().join("tacho.toml"), text.concat()).unwrap();
        for verb in ["run", "check-config"] {
            let error = tacho(folder.path(), &[verb]).unwrap_err();
            assert!(error.contains(said), "{verb}: {error}");
        }
    }
}
