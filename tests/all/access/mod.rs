//! Who may come in, by the real binary: every listener and every path, near and far, with and without tokens.

mod browser;
mod secure;
mod strangers;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

use expect_test::expect;

use crate::ingest::span;
use crate::support::client::{Ask, Call, JSON, PROTOBUF, call, post};
use crate::support::tacho_process::Tacho;

/// All listeners on all addresses, the metrics on one of their own.
const EVERYWHERE: [(&str, &str); 4] = [
    ("TACHO_LISTEN__OTLP_GRPC", "0.0.0.0:0"),
    ("TACHO_LISTEN__OTLP_HTTP", "0.0.0.0:0"),
    ("TACHO_LISTEN__HTTP", "0.0.0.0:0"),
    ("TACHO_LISTEN__METRICS", "0.0.0.0:0"),
];

/// What `tacho` says in this folder, on standard output or else on standard error.
pub(super) fn tacho(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tacho"));
    command.args(arguments).current_dir(folder).env("TACHO_DATA_DIR", folder);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

pub(super) fn start(folder: &Path, settings: &[(&str, &str)]) -> Tacho {
    Tacho::start(folder, &format!("sqlite:{}", folder.join("tacho.db").display()), settings)
}

/// An address of this machine that is none of loopback.
fn far() -> IpAddr {
    // Nothing is sent: it only asks which way it would go.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").expect("this machine has no network beside loopback");
    socket.local_addr().unwrap().ip()
}

fn metrics_address(folder: &Path) -> SocketAddr {
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("listen.json")).unwrap()).unwrap();
    told["metrics"].as_str().unwrap().parse().unwrap()
}

/// One way in.
enum Way {
    Http(Ask),
    Grpc(Call),
}

impl Way {
    fn with(&self, name: &'static str, value: &str) -> Self {
        match self {
            Self::Http(ask) => Self::Http(ask.clone().header(name, value.to_owned())),
            Self::Grpc(call) => Self::Grpc(call.clone().header(name, value.to_owned())),
        }
    }

    /// `in`, or in a word why not.
    async fn go(&self, address: SocketAddr) -> String {
        match self {
            Self::Http(ask) => {
                let answer = ask.send(address).await;
                match answer.status() {
                    status @ (401 | 403 | 404 | 405 | 415 | 421) => {
                        assert_eq!(
                            answer.header("content-type"),
                            Some("application/problem+json"),
                            "{}",
                            answer.text()
                        );
                        assert!(answer.header("access-control-allow-origin").is_none());
                        status.to_string()
                    }
                    _ => "in".to_owned(),
                }
            }
            Self::Grpc(call) => {
                let line = call.send(address).await;
                match line.split(':').next().unwrap() {
                    "Ok" => "in".to_owned(),
                    "Unauthenticated" => "401".to_owned(),
                    "PermissionDenied" => "403".to_owned(),
                    _ => line,
                }
            }
        }
    }
}

fn ways() -> Vec<(&'static str, &'static str, Way)> {
    let get = |path: &'static str| Way::Http(post(JSON, "").method("GET").path(path));
    let json = |path: &'static str, body: &'static str| Way::Http(post(JSON, body).path(path));
    let grpc = |path| Way::Grpc(call(span::protobuf([span::good()])).path(path));
    let otlp = |path: &'static str| Way::Http(post(PROTOBUF, span::protobuf([span::good()])).path(path));
    let mut ways = vec![
        ("otlp_grpc", "traces", grpc("/opentelemetry.proto.collector.trace.v1.TraceService/Export")),
        ("otlp_grpc", "metrics", grpc("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")),
        ("otlp_grpc", "logs", grpc("/opentelemetry.proto.collector.logs.v1.LogsService/Export")),
        ("otlp_http", "POST /v1/traces", otlp("/v1/traces")),
        ("otlp_http", "POST /v1/metrics", otlp("/v1/metrics")),
        ("otlp_http", "POST /v1/logs", otlp("/v1/logs")),
    ];
    for path in [
        "/livez",
        "/readyz",
        "/metrics",
        "/v1/usage",
        "/v1/usage/summary",
        "/v1/usage/changes",
        "/v1/limits",
        "/v1/accounts",
        "/v1/accounts/default/ann",
        "/nowhere",
    ] {
        ways.push(("http", path, get(path)));
    }
    for (path, body) in [
        ("/v1/check", "{}"),
        ("/v1/settle", r#"{"reservation": "00000000000000000000000000000001"}"#),
        ("/v1/release", r#"{"reservation": "00000000000000000000000000000001"}"#),
        ("/v1/accounts/default/ann/plan", r#"{"plan": "default"}"#),
        ("/v1/accounts/default/ann/reset", "{}"),
    ] {
        ways.push(("http", path, json(path, body)));
    }
    ways.extend(["/livez", "/readyz", "/metrics", "/v1/usage"].map(|path| ("metrics", path, get(path))));
    ways
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_is_guarded() {
    let folder = tempfile::tempdir().unwrap();
    let new = |role: &str, more: &[&str]| {
        tacho(folder.path(), &[&["token", "new", role, "--name", role], more].concat()).unwrap()
    };
    let shown: Vec<String> = ["ingest", "check", "read", "admin"].iter().map(|role| new(role, &[])).collect();
    let old = new("admin", &["--expires-in", "1ms"]);
    let running = start(folder.path(), &EVERYWHERE);
    let bearers = shown.iter().chain([&old]).map(|token| format!("Bearer {token}"));
    let bearers: Vec<String> = bearers.chain(["Bearer tacho_admin_0".to_owned()]).collect();
    let listeners = [
        ("otlp_grpc", running.grpc),
        ("otlp_http", running.otlp_http),
        ("http", running.http),
        ("metrics", metrics_address(folder.path())),
    ];
    let mut table = String::new();
    for (place, ip) in [("near", IpAddr::from([127, 0, 0, 1])), ("far", far())] {
        table += &format!("{place:<42} none ingest check read admin expired wrong | host origin\n");
        for (listener, path, way) in ways() {
            let port = listeners.iter().find(|(name, _)| *name == listener).unwrap().1.port();
            let address = SocketAddr::new(ip, port);
            let mut line = vec![way.go(address).await];
            for bearer in &bearers {
                line.push(way.with("authorization", bearer).go(address).await);
            }
            line.push("|".to_owned());
            // Even with the token that may do all.
            for (name, value) in [("host", "evil.example"), ("origin", "http://evil.example")] {
                line.push(way.with("authorization", &bearers[3]).with(name, value).go(address).await);
            }
            table += &format!("{:<42} {}\n", format!("{listener} {path}"), line.join(" "));
        }
    }
    expect![[r#"
        near                                       none ingest check read admin expired wrong | host origin
        otlp_grpc traces                           in in in in in in in | 403 403
        otlp_grpc metrics                          in in in in in in in | 403 403
        otlp_grpc logs                             in in in in in in in | 403 403
        otlp_http POST /v1/traces                  in in in in in in in | 421 403
        otlp_http POST /v1/metrics                 in in in in in in in | 421 403
        otlp_http POST /v1/logs                    in in in in in in in | 421 403
        http /livez                                in in in in in in in | 421 403
        http /readyz                               in in in in in in in | 421 403
        http /metrics                              404 404 404 404 404 404 404 | 421 403
        http /v1/usage                             401 403 403 in in 401 401 | 421 403
        http /v1/usage/summary                     401 403 403 in in 401 401 | 421 403
        http /v1/usage/changes                     401 403 403 in in 401 401 | 421 403
        http /v1/limits                            401 403 403 in in 401 401 | 421 403
        http /v1/accounts                          401 403 403 in in 401 401 | 421 403
        http /v1/accounts/default/ann              401 403 403 404 404 401 401 | 421 403
        http /nowhere                              404 404 404 404 404 404 404 | 421 403
        http /v1/check                             in in in in in in in | 421 403
        http /v1/settle                            404 404 404 404 404 404 404 | 421 403
        http /v1/release                           in in in in in in in | 421 403
        http /v1/accounts/default/ann/plan         401 403 403 403 404 401 401 | 421 403
        http /v1/accounts/default/ann/reset        401 403 403 403 404 401 401 | 421 403
        metrics /livez                             in in in in in in in | 421 403
        metrics /readyz                            in in in in in in in | 421 403
        metrics /metrics                           in in in in in in in | 421 403
        metrics /v1/usage                          404 404 404 404 404 404 404 | 421 403
        far                                        none ingest check read admin expired wrong | host origin
        otlp_grpc traces                           401 in 403 403 in 401 401 | 403 403
        otlp_grpc metrics                          401 in 403 403 in 401 401 | 403 403
        otlp_grpc logs                             401 in 403 403 in 401 401 | 403 403
        otlp_http POST /v1/traces                  401 in 403 403 in 401 401 | 421 403
        otlp_http POST /v1/metrics                 401 in 403 403 in 401 401 | 421 403
        otlp_http POST /v1/logs                    401 in 403 403 in 401 401 | 421 403
        http /livez                                in in in in in in in | 421 403
        http /readyz                               in in in in in in in | 421 403
        http /metrics                              404 404 404 404 404 404 404 | 421 403
        http /v1/usage                             401 403 403 in in 401 401 | 421 403
        http /v1/usage/summary                     401 403 403 in in 401 401 | 421 403
        http /v1/usage/changes                     401 403 403 in in 401 401 | 421 403
        http /v1/limits                            401 403 403 in in 401 401 | 421 403
        http /v1/accounts                          401 403 403 in in 401 401 | 421 403
        http /v1/accounts/default/ann              401 403 403 404 404 401 401 | 421 403
        http /nowhere                              404 404 404 404 404 404 404 | 421 403
        http /v1/check                             401 403 in 403 in 401 401 | 421 403
        http /v1/settle                            401 403 404 403 404 401 401 | 421 403
        http /v1/release                           401 403 in 403 in 401 401 | 421 403
        http /v1/accounts/default/ann/plan         401 403 403 403 404 401 401 | 421 403
        http /v1/accounts/default/ann/reset        401 403 403 403 404 401 401 | 421 403
        metrics /livez                             in in in in in in in | 421 403
        metrics /readyz                            in in in in in in in | 421 403
        metrics /metrics                           401 403 403 in in 401 401 | 421 403
        metrics /v1/usage                          404 404 404 404 404 404 404 | 421 403
    "#]]
    .assert_eq(&table);
    let counted = refusals(&running, &shown[2]).await;
    expect![[r#"
        {listener="http",reason="cross_site"} 30
        {listener="http",reason="expired_token"} 19
        {listener="http",reason="host"} 30
        {listener="http",reason="no_token"} 19
        {listener="http",reason="wrong_role"} 42
        {listener="http",reason="wrong_token"} 19
        {listener="metrics",reason="cross_site"} 8
        {listener="metrics",reason="expired_token"} 1
        {listener="metrics",reason="host"} 8
        {listener="metrics",reason="no_token"} 1
        {listener="metrics",reason="wrong_role"} 2
        {listener="metrics",reason="wrong_token"} 1
        {listener="otlp_grpc",reason="cross_site"} 6
        {listener="otlp_grpc",reason="expired_token"} 3
        {listener="otlp_grpc",reason="host"} 6
        {listener="otlp_grpc",reason="no_token"} 3
        {listener="otlp_grpc",reason="wrong_role"} 6
        {listener="otlp_grpc",reason="wrong_token"} 3
        {listener="otlp_http",reason="cross_site"} 6
        {listener="otlp_http",reason="expired_token"} 3
        {listener="otlp_http",reason="host"} 6
        {listener="otlp_http",reason="no_token"} 3
        {listener="otlp_http",reason="wrong_role"} 6
        {listener="otlp_http",reason="wrong_token"} 3
    "#]]
    .assert_eq(&counted);
    running.stop();
}

/// How many requests were refused, by listener and reason.
async fn refusals(tacho: &Tacho, read: &str) -> String {
    let address = metrics_address(&tacho.folder);
    let metrics = post(JSON, "").method("GET").path("/metrics").token(read).send(address).await.text();
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("tacho_access_refused_total"));
    lines.filter(|line| !line.ends_with(" 0")).map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_site_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let form = |path: &'static str| post(kind, "{}").path(path);
        assert_eq!(form("/v1/check").send(running.http).await.status(), 415, "{kind}");
        let reset = form("/v1/accounts/default/ann/reset");
        assert_eq!(reset.clone().send(running.http).await.status(), 401, "{kind}");
        assert_eq!(reset.token(&running.admin_token()).send(running.http).await.status(), 415, "{kind}");
        assert_eq!(form("/v1/traces").send(running.otlp_http).await.status(), 415, "{kind}");
    }
    let asked = post(JSON, "").method("OPTIONS").path("/v1/check").header("origin", "http://evil.example");
    assert_eq!(asked.send(running.http).await.status(), 403);
    running.stop();
}

/// A listener that strangers can reach needs tokens, or somebody who says that it does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_beyond_loopback_needs_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let run = |insecure: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tacho"));
        command.current_dir(folder.path()).env("TACHO_DATA_DIR", folder.path()).env("TACHO_AUTH__INSECURE", insecure);
        for (name, address) in EVERYWHERE {
            command.env(name, address.replace("0.0.0.0", "127.0.0.1"));
        }
        command.env("TACHO_LISTEN__HTTP", "0.0.0.0:0").output().unwrap()
    };
    let refused = run("false");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("listen.http is 0.0.0.0:") && said.contains("tacho token new"), "{said}");
    assert!(!folder.path().join("listen.json").exists());
    let settings: Vec<_> = EVERYWHERE.into_iter().chain([("TACHO_AUTH__INSECURE", "true")]).collect();
    let running = start(folder.path(), &settings);
    assert_eq!(running.log().matches("auth.insecure").count(), 4, "{}", running.log());
    let address = SocketAddr::new(far(), running.http.port());
    assert_eq!(post(JSON, "{}").path("/v1/check").send(address).await.status(), 200);
    assert_eq!(post(JSON, "").method("GET").path("/v1/usage").send(address).await.status(), 401);
    running.stop();
}

/// A certificate that is half replaced, and a configuration that is no good, keep no token that was taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_goes_whatever_else_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let token = tacho(folder.path(), &["token", "new", "read", "--name", "old"]).unwrap();
    let running = start(folder.path(), &[]);
    let usage = async || post(JSON, "").method("GET").path("/v1/usage").token(&token).send(running.http).await.status();
    assert_eq!(usage().await, 200);
    std::fs::write(folder.path().join("tacho.toml"), "no = configuration").unwrap();
    running.signal("-HUP");
    tacho(folder.path(), &["--config", "/dev/null", "token", "revoke", "old"]).unwrap();
    running.signal("-HUP");
    let begun = std::time::Instant::now();
    while usage().await != 401 {
        assert!(begun.elapsed().as_secs() < 30, "{}", running.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let metrics = post(JSON, "").method("GET").path("/metrics").send(running.http).await.text();
    assert!(metrics.contains("tacho_config_last_reload_successful 0"));
    assert!(tacho(folder.path(), &["--config", "/dev/null", "token", "revoke", ""]).is_err());
    running.stop();
}

/// What is given out works at once and what is taken back is refused within seconds, or at once by HUP; each is in the audit log.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_come_and_go_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path(), &[]);
    let token = tacho(folder.path(), &["token", "new", "read", "--name", "grafana", "--expires-in", "90d"]).unwrap();
    let usage = || post(JSON, "").method("GET").path("/v1/usage").token(&token);
    let until = async |status: u16| {
        let begun = std::time::Instant::now();
        while usage().send(running.http).await.status() != status {
            assert!(begun.elapsed().as_secs() < 30, "not {status}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    until(200).await;
    let listed = tacho(folder.path(), &["token", "list"]).unwrap();
    assert!(listed.contains("grafana") && !listed.contains(&token), "{listed}");
    let json = tacho(folder.path(), &["token", "list", "--json"]).unwrap();
    let id = serde_json::from_str::<serde_json::Value>(&json).unwrap()["tokens"][0]["id"].as_str().unwrap().to_owned();
    tacho(folder.path(), &["token", "revoke", &id]).unwrap();
    running.signal("-HUP");
    until(401).await;
    let again = tacho(folder.path(), &["token", "revoke", &id]).unwrap_err();
    assert!(again.contains(&format!("there is no token with the id or the name `{id}`")), "{again}");
    let audit = tacho(folder.path(), &["audit", "--json"]).unwrap();
    let audit: serde_json::Value = serde_json::from_str(&audit).unwrap();
    let [made, revoked] = &audit["audit"].as_array().unwrap()[..] else { panic!("{audit}") };
    for (row, action, side) in [(made, "token.new", "after"), (revoked, "token.revoke", "before")] {
        assert_eq!(
            (&row["action"], &row["object"], &row[side]["name"]),
            (&action.into(), &(*id).into(), &"grafana".into())
        );
        assert!(row["actor"].as_str().unwrap().starts_with("command line: "), "{row}");
    }
    assert!(!running.log().contains(&token) && !audit.to_string().contains(&token));
    running.stop();
}
