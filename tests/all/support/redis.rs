//! A Redis of its own, on a free port, in a temporary folder.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::certificates::{Authority, Issued};

pub struct Redis {
    process: Option<Child>,
    /// More than what every one is started with.
    arguments: Vec<String>,
    folder: tempfile::TempDir,
    pub port: u16,
    keeps: bool,
}

impl Redis {
    /// Keeps nothing over a restart.
    pub fn start() -> Self {
        Self::open(false)
    }

    /// Writes every command to disk before it answers.
    pub fn durable() -> Self {
        Self::open(true)
    }

    /// Speaks TLS on its port and nothing else. With `clients`, only to clients of this authority.
    pub fn tls(own: &Issued, clients: Option<&Authority>, more: &[&str]) -> Self {
        let mut redis = Self::new(false);
        let files = own.write(redis.folder.path(), "server");
        let authority = redis.folder.path().join("clients.pem");
        std::fs::write(&authority, clients.map_or_else(|| own.certificate.clone(), Authority::pem)).unwrap();
        let port = redis.port.to_string();
        let asks = if clients.is_some() { "yes" } else { "no" };
        let [certificate, key, authority] =
            [&files.certificate, &files.key, &authority].map(|path| path.display().to_string());
        redis.arguments = ["--port", "0", "--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key]
            .into_iter()
            .chain(["--tls-ca-cert-file", &authority, "--tls-auth-clients", asks])
            .chain(more.iter().copied())
            .map(str::to_owned)
            .collect();
        redis.again();
        redis
    }

    fn open(keeps: bool) -> Self {
        let mut redis = Self::new(keeps);
        redis.arguments = vec!["--port".to_owned(), redis.port.to_string()];
        redis.again();
        redis
    }

    fn new(keeps: bool) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { process: None, arguments: Vec::new(), folder: tempfile::tempdir().unwrap(), port, keeps }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// At once, as a crash.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// Starts it again on the same port; waits until it answers.
    pub fn again(&mut self) {
        let append = if self.keeps {
            ["--appendonly", "yes", "--appendfsync", "always"]
        } else {
            ["--appendonly", "no", "--appendfsync", "no"]
        };
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", ""])
            .args(&self.arguments)
            .args(append)
            .arg("--dir")
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing: run tests/setup.sh");
        self.process = Some(process);
        let begun = Instant::now();
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "redis did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the server says to a command.
    pub fn cli(&self, command: &[&str]) -> String {
        let asked = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(command).output().unwrap();
        assert!(asked.status.success(), "{command:?}: {asked:?}");
        String::from_utf8(asked.stdout).unwrap().trim_end().to_owned()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
