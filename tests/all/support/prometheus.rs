//! A Prometheus of its own, on a free port, in a temporary folder.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{JSON, post};

pub struct Prometheus {
    process: Child,
    folder: tempfile::TempDir,
    pub address: SocketAddr,
}

/// Its first scrape alone takes up to ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);

impl Prometheus {
    /// With a configuration, and with blocks of a day that `fill` puts into the folder of data.
    pub async fn start(config: &Path, fill: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        fill(&data);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let address = free_address();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--storage.tsdb.retention.time=100y", "--enable-feature=exemplar-storage", "--log.level=warn"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is missing: run tests/setup.sh");
        let prometheus = Self { process, folder, address };
        let begun = Instant::now();
        while std::net::TcpStream::connect(address).is_err() || !prometheus.is_ready().await {
            assert!(begun.elapsed() < PATIENCE, "prometheus does not come up: {}", prometheus.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        prometheus
    }

    async fn is_ready(&self) -> bool {
        post(JSON, "").method("GET").path("/-/ready").send(self.address).await.status() == 200
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// An answer of the API; an error is one of the test.
    pub async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let given: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let path = format!("/api/v1/{path}?{}", given.join("&"));
        let answer = post(JSON, "").method("GET").path(path).send(self.address).await;
        let body: Value = serde_json::from_str(&answer.text()).unwrap();
        assert_eq!(body["status"], "success", "{parameters:?}: {body}");
        body["data"].clone()
    }

    /// The series of an instant query; at this time if one is given, in seconds since 1970.
    pub async fn query(&self, expression: &str, time: Option<u64>) -> Vec<Value> {
        let time = time.map(|time| time.to_string());
        let mut parameters = vec![("query", expression)];
        parameters.extend(time.as_deref().map(|time| ("time", time)));
        self.get("query", &parameters).await["result"].as_array().cloned().unwrap_or_default()
    }

    /// Asks until the answer is what is waited for.
    pub async fn until(&self, expression: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let found = self.query(expression, None).await;
            if holds(&found) {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "{expression} stays at {found:?}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Prometheus' own tool finds nothing to say of a page.
pub fn lint(page: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: run tests/setup.sh");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let found = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[found.stdout, found.stderr].concat()).into_owned();
    assert!(found.status.success() && said.trim().is_empty(), "{said}");
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn encoded(text: &str) -> String {
    let byte =
        |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}
