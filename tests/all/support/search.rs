//! Elasticsearch and OpenSearch: a real node of its own, on a free port, in a temporary folder.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bot::cache;
use super::client::{Ask, JSON, post};

pub const NDJSON: &str = "application/x-ndjson";

/// A node alone takes five seconds to start; three of them on a loaded machine take much longer.
const PATIENCE: Duration = Duration::from_secs(180);

/// Each node is alone, as nodes with the same cluster name join each other. The disk of a test machine may be fuller
/// than what a node takes for an emergency.
const CONFIG: &str = "discovery.type: single-node\ncluster.routing.allocation.disk.threshold_enabled: false\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchKind {
    /// 7.10.2 without the modules of Elastic's own licence, so it has no data streams.
    Elasticsearch7,
    /// 2.19.1
    OpenSearch2,
    /// 3.8.0
    OpenSearch3,
}

impl SearchKind {
    /// The folder that `tests/setup.sh` fills.
    fn folder(self) -> &'static str {
        match self {
            Self::Elasticsearch7 => "elasticsearch-7",
            Self::OpenSearch2 => "opensearch-2",
            Self::OpenSearch3 => "opensearch-3",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Elasticsearch7 => "org.codelibs.elasticsearch.runner.ElasticsearchClusterRunner",
            Self::OpenSearch2 | Self::OpenSearch3 => "org.codelibs.opensearch.runner.OpenSearchRunner",
        }
    }

    fn config_file(self) -> &'static str {
        match self {
            Self::Elasticsearch7 => "elasticsearch.yml",
            Self::OpenSearch2 | Self::OpenSearch3 => "opensearch.yml",
        }
    }

    pub fn has_data_streams(self) -> bool {
        self != Self::Elasticsearch7
    }
}

pub struct SearchServer {
    kind: SearchKind,
    process: Option<Child>,
    folder: tempfile::TempDir,
    port: Port,
}

impl SearchServer {
    /// Waits until it answers.
    pub async fn start(kind: SearchKind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("data/node_1/config");
        std::fs::create_dir_all(&config).unwrap();
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        std::fs::write(config.join(kind.config_file()), CONFIG).unwrap();
        let mut server = Self { kind, process: None, folder, port: Port::take() };
        server.restart().await;
        server
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port.number))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// In good order: the node says goodbye and closes its files.
    pub async fn stop(&mut self) {
        self.signal("-TERM");
        let mut process = self.process.take().unwrap();
        let begun = Instant::now();
        while process.try_wait().unwrap().is_none() {
            if begun.elapsed() > PATIENCE {
                self.process = Some(process);
                panic!("{:?} does not stop: {}", self.kind, self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// At once, as a crash; what was acknowledged is in its transaction log and is found again.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// Starts it again on the same port with the same data; waits until it answers and has its indices back.
    pub async fn restart(&mut self) {
        self.kill();
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let cluster = format!("tacho-{}-{}", std::process::id(), self.port.number);
        let mut command = Command::new(java());
        command
            .current_dir(self.folder.path())
            // A short life does not repay the second compiler.
            .args(["-Xms512m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"])
            .arg(format!("-Djava.io.tmpdir={}", self.folder.path().join("tmp").display()))
            .arg("-cp")
            .arg(libraries(self.kind))
            .arg(self.kind.class())
            .args(["-numOfNode", "1", "-clusterName", &cluster, "-basePath"])
            .arg(self.folder.path().join("data"))
            // The first node listens on the port after this one.
            .args(["-baseHttpPort", &(self.port.number - 1).to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.process = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
        let begun = Instant::now();
        while !self.is_ready(&cluster).await {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            let waits = ended.is_none() && begun.elapsed() < PATIENCE;
            assert!(waits, "{:?} does not come up ({ended:?}): {}", self.kind, self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whether this cluster, and no other that has taken the port, answers and has all its primary shards.
    async fn is_ready(&self, cluster: &str) -> bool {
        if TcpStream::connect(self.address()).is_err() {
            return false;
        }
        let path = "/_cluster/health?wait_for_status=yellow&timeout=1s";
        let answer = self.ask("GET", path, "").send(self.address()).await;
        let is_ready = answer.status() == 200;
        if is_ready {
            let health: Value = serde_json::from_str(&answer.text()).unwrap();
            assert_eq!(health["cluster_name"], cluster, "another server has taken port {}", self.port.number);
        }
        is_ready
    }

    /// Connections stay open and nothing is answered, until `resume`.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn ask(&self, method: &'static str, path: &str, body: impl Into<Vec<u8>>) -> Ask {
        let content_type = if path.starts_with("/_bulk") { NDJSON } else { JSON };
        post(content_type, body).method(method).path(path.to_owned())
    }

    /// An answer that is not 200 or 201 is an error of the test.
    async fn json(&self, ask: Ask) -> Value {
        let answer = ask.send(self.address()).await;
        assert!(matches!(answer.status(), 200 | 201), "{:?}: {} {}", self.kind, answer.status(), answer.text());
        serde_json::from_str(&answer.text()).unwrap()
    }

    pub async fn get(&self, path: &str) -> Value {
        self.json(self.ask("GET", path, "")).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Value {
        self.json(self.ask("PUT", path, body.to_string())).await
    }

    /// Lines of actions and documents.
    pub async fn bulk(&self, lines: &str) -> Value {
        self.json(self.ask("POST", "/_bulk", lines)).await
    }

    /// Makes what was written visible to `search` and `count`.
    pub async fn refresh(&self, index: &str) {
        self.json(self.ask("POST", &format!("/{index}/_refresh"), "")).await;
    }

    pub async fn search(&self, index: &str, query: &Value) -> Value {
        self.json(self.ask("POST", &format!("/{index}/_search"), query.to_string())).await
    }

    /// The documents that are visible.
    pub async fn count(&self, index: &str) -> u64 {
        self.get(&format!("/{index}/_count")).await["count"].as_u64().unwrap()
    }
}

impl Drop for SearchServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What `tests/setup.sh` has found to be new enough.
fn java() -> String {
    let path = cache().join("search/java");
    let java = std::fs::read_to_string(&path);
    java.unwrap_or_else(|_| panic!("{} is missing: run tests/setup.sh", path.display())).trim().to_owned()
}

fn libraries(kind: SearchKind) -> String {
    let folder = cache().join("search").join(kind.folder());
    assert!(folder.join(".stamp").exists(), "{} is missing: run tests/setup.sh", folder.display());
    format!("{}/lib/*", folder.display())
}

/// A port that is ours until it is dropped, among all tests on this machine that look for one here.
struct Port {
    number: u16,
    /// The lock ends with the process, whatever ends it.
    _lock: File,
}

impl Port {
    /// The runners of the nodes end in silence on a port above 9299.
    fn take() -> Self {
        let folder = std::env::temp_dir().join("tacho-search-ports");
        std::fs::create_dir_all(&folder).unwrap();
        (9202..=9298).find_map(|number| Self::lock(&folder, number)).expect("a port below 9299 is free")
    }

    fn lock(folder: &Path, number: u16) -> Option<Self> {
        let lock = File::create(folder.join(number.to_string())).unwrap();
        lock.try_lock().ok()?;
        // Nodes listen on both.
        TcpListener::bind(("127.0.0.1", number)).ok()?;
        TcpListener::bind(("::1", number)).ok()?;
        Some(Self { number, _lock: lock })
    }
}
