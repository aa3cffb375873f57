//! An Alertmanager of its own, on a free port, in a temporary folder. It tells nobody of the alerts it has.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub struct Alertmanager {
    process: Child,
    _folder: tempfile::TempDir,
    port: u16,
}

const CONFIG: &str = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";

impl Alertmanager {
    pub fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("alertmanager.yml");
        std::fs::write(&config, CONFIG).unwrap();
        let process = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            // Alone: what it has it has from us.
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus-alertmanager is missing: run tests/setup.sh");
        let begun = Instant::now();
        while TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "alertmanager did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { process, _folder: folder, port }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The alerts that are firing, as its own tool tells them.
    pub fn alerts(&self) -> Vec<Value> {
        let url = format!("--alertmanager.url={}", self.url());
        let told = Command::new("amtool").args(["alert", "query", "--output=json", &url]).output();
        let told = told.expect("amtool is missing: run tests/setup.sh");
        assert!(told.status.success(), "{told:?}");
        serde_json::from_slice(&told.stdout).unwrap()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
