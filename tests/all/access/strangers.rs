//! Strangers who want to be a nuisance, and a bot beside them that must not notice.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{start, tacho};
use crate::ingest::span;
use crate::support::client::{Ask, Channel, JSON, PROTOBUF, call, post};
use crate::support::tacho_process::Tacho;

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bot that was there before: connections that it keeps, over each listener.
struct Bot {
    grpc: Channel,
    http: TcpStream,
    running: SocketAddr,
    otlp_http: SocketAddr,
}

impl Bot {
    async fn of(running: &Tacho) -> Self {
        let grpc = Channel::open(running.grpc).await.unwrap();
        let http = TcpStream::connect(running.http).await.unwrap();
        let mut bot = Self { grpc, http, running: running.http, otlp_http: running.otlp_http };
        bot.works().await;
        bot
    }

    /// Over the connections that it has, and over new ones.
    async fn works(&mut self) {
        let works = async {
            let spans = span::protobuf([span::good()]);
            assert_eq!(self.grpc.send(&call(&spans)).await.unwrap(), "Ok");
            let ask = "POST /v1/check HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                       content-length: 2\r\n\r\n{}";
            self.http.write_all(ask.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            self.http.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
            // The rest of the answer, which is one small packet.
            let mut rest = [0; 4096];
            assert!(self.http.read(&mut rest).await.unwrap() > 0);
            assert_eq!(post(JSON, "{}").path("/v1/check").send(self.running).await.status(), 200);
            assert_eq!(post(PROTOBUF, spans).send(self.otlp_http).await.status(), 200);
        };
        tokio::time::timeout(PATIENCE, works).await.expect("the bot waits");
    }
}

fn may_open(files: u64) {
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    assert!(maximum >= files, "this test opens {files} files, and the system lets it have {maximum}");
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

async fn metric(running: &Tacho, series: &str) -> u64 {
    let text = post(JSON, "").method("GET").path("/metrics").send(running.http).await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("no {series}"));
    line.trim().parse().unwrap()
}

/// Three thousand on each listener and a thousand more that begin a request and go on with it by a byte a second.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_harm_nobody() {
    may_open(12_000);
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]);
    let mut bot = Bot::of(&running).await;
    let mut idle = Vec::new();
    for round in 0..30 {
        for address in [running.grpc, running.otlp_http, running.http] {
            for _ in 0..100 {
                idle.push(TcpStream::connect(address).await.unwrap());
            }
        }
        if round % 5 == 0 {
            bot.works().await;
        }
    }
    let mut slow = Vec::new();
    for _ in 0..1_000 {
        let mut connection = TcpStream::connect(running.http).await.unwrap();
        connection.write_all(b"POST /v1/check HTTP/1.1\r\nx-slow: ").await.unwrap();
        slow.push(connection);
    }
    for _ in 0..5 {
        for connection in &mut slow {
            drop(connection.write_all(b"a").await);
        }
        bot.works().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for listener in ["otlp_grpc", "otlp_http", "http"] {
        let open = metric(&running, &format!("tacho_connections{{listener=\"{listener}\"}}")).await;
        assert!(open <= 1_024 + 16, "{listener}: {open}");
        let series = format!("tacho_connections_ended_total{{listener=\"{listener}\",reason=\"displaced\"}}");
        assert!(metric(&running, &series).await >= 1_900, "{listener}");
    }
    println!("peak memory beside 10 000 connections: {} MiB", running.peak_memory() >> 20);
    // Without optimisation, where a connection takes twice what it does else.
    assert!(running.peak_memory() < 256 << 20, "{} bytes", running.peak_memory());
    running.stop();
}

/// A request whose head does not end is over after its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]);
    let mut waiting = JoinSet::new();
    for (address, begin) in [
        (running.http, "GET /livez HTTP/1.1\r\nx: "),
        (running.otlp_http, "POST /v1/traces HTTP/1.1\r\n"),
        (running.http, ""),
        (running.grpc, ""),
        (running.grpc, "PRI * HTTP/2.0\r\n"),
    ] {
        waiting.spawn(async move {
            let mut connection = TcpStream::connect(address).await.unwrap();
            connection.write_all(begin.as_bytes()).await.unwrap();
            let mut heard = Vec::new();
            drop(tokio::time::timeout(PATIENCE, connection.read_to_end(&mut heard)).await.expect("it stays open"));
        });
    }
    while let Some(ended) = waiting.join_next().await {
        ended.unwrap();
    }
    for (listener, ended) in [("http", 2), ("otlp_http", 1), ("otlp_grpc", 2)] {
        let series = format!("tacho_connections_ended_total{{listener=\"{listener}\",reason=\"slow\"}}");
        assert_eq!(metric(&running, &series).await, ended, "{listener}");
    }
    running.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_head_is_refused_and_a_slow_body_too() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]);
    let mut bot = Bot::of(&running).await;
    let large = "a".repeat(1 << 20);
    let many: String = (0..1_000).map(|n| format!("x-{n}: y\r\n")).collect();
    for head in [format!("x: {large}\r\n"), many, format!("{large}: x\r\n")] {
        let mut connection = TcpStream::connect(running.http).await.unwrap();
        drop(connection.write_all(format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{head}\r\n").as_bytes()).await);
        let mut heard = Vec::new();
        drop(tokio::time::timeout(PATIENCE, connection.read_to_end(&mut heard)).await.expect("it stays open"));
        let heard = String::from_utf8_lossy(&heard);
        assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 4"), "{heard}");
        bot.works().await;
    }
    assert_eq!(
        metric(&running, "tacho_connections_ended_total{listener=\"http\",reason=\"malformed\"}").await,
        3,
        "{}",
        running.log()
    );
    let bomb = call(span::protobuf([span::good()])).header("x-large", "a".repeat(64 << 10));
    let refused = Channel::open(running.grpc).await.unwrap().send(&bomb).await;
    assert!(refused.is_err() || !refused.as_ref().unwrap().starts_with("Ok"), "{refused:?}");
    bot.works().await;
    let mut slow = TcpStream::connect(running.http).await.unwrap();
    let head =
        "POST /v1/check HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut heard = String::new();
    drop(tokio::time::timeout(PATIENCE, slow.read_to_string(&mut heard)).await.expect("it stays open"));
    assert!(heard.starts_with("HTTP/1.1 408") && heard.contains("application/problem+json"), "{heard}");
    running.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_wrong_tokens_is_counted_and_harms_nobody() {
    const CLIENTS: u64 = 16;
    const EACH: u64 = 500;
    let folder = tempfile::tempdir().unwrap();
    let read = tacho(folder.path(), &["token", "new", "read"]).unwrap();
    let running = start(folder.path(), &[]);
    let mut bot = Bot::of(&running).await;
    let mut flood = JoinSet::new();
    for client in 0..CLIENTS {
        let address = running.http;
        flood.spawn(async move {
            let mut connection = TcpStream::connect(address).await.unwrap();
            let mut answer = vec![0; 4096];
            for n in 0..EACH {
                let ask = format!(
                    "GET /v1/usage HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer tacho_read_{client:032}{n:032}\r\n\r\n"
                );
                connection.write_all(ask.as_bytes()).await.unwrap();
                let read = connection.read(&mut answer).await.unwrap();
                assert!(answer[..read].starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer[..read]));
            }
        });
    }
    let usage: Ask = post(JSON, "").method("GET").path("/v1/usage").token(&read);
    while !flood.is_empty() {
        bot.works().await;
        assert_eq!(usage.send(running.http).await.status(), 200);
        while let Some(ended) = flood.try_join_next() {
            ended.unwrap();
        }
    }
    let counted = metric(&running, "tacho_access_refused_total{listener=\"http\",reason=\"wrong_token\"}").await;
    assert_eq!(counted, CLIENTS * EACH);
    assert!(!running.log().contains("tacho_read_0"), "a token is in the log");
    running.stop();
}

/// With few files the listeners take fewer connections, so that the journal can always be written.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_leaves_files_for_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let mut few = Command::new("prlimit");
    few.args(["--nofile=400:400", env!("CARGO_BIN_EXE_tacho")]);
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let running = Tacho::start_by(few, folder.path(), &url, &[("TACHO_JOURNAL__MAX_SIZE", "8MiB")]);
    assert!(running.log().contains("files are limited"), "{}", running.log());
    let mut bot = Bot::of(&running).await;
    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(TcpStream::connect(running.http).await.unwrap());
    }
    // Large enough that segments of the journal are opened and removed.
    let many: Vec<_> = (0..2_000).map(|_| span::good()).collect();
    for _ in 0..20 {
        assert_eq!(call(span::protobuf(many.clone())).send(running.grpc).await, "Ok");
        bot.works().await;
    }
    assert!(!running.log().contains("journal cannot be written"), "{}", running.log());
    running.stop();
}
