//! An Alertmanager of its own, on a free port, in a temporary folder.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::certificates::{Authority, Issued};

pub struct Alertmanager {
    process: Child,
    folder: tempfile::TempDir,
    pub address: SocketAddr,
}

/// Tells nobody of the alerts it has.
const MUTE: &str = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

impl Alertmanager {
    /// One that tells nobody.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("alertmanager.yml"), MUTE).unwrap();
        Self::within(folder)
    }

    /// One that tells nobody and speaks TLS, to which `authority` is the way.
    pub fn tls(own: &Issued, authority: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("alertmanager.yml"), MUTE).unwrap();
        own.write(folder.path(), "server");
        let web = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n";
        std::fs::write(folder.path().join("web.yml"), web).unwrap();
        let tool = format!("tls_config: {{ca_file: {}}}\n", authority.write(&folder.path().join("ca.pem")).display());
        std::fs::write(folder.path().join("amtool.yml"), tool).unwrap();
        Self::within(folder)
    }

    /// With the `alertmanager.yml` in this folder, and what that names.
    pub fn within(folder: tempfile::TempDir) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let web = folder.path().join("web.yml");
        let process = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", folder.path().join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(web.exists().then(|| format!("--web.config.file={}", web.display())))
            // Alone: what it has it has from us.
            .args(["--web.external-url=http://alerts.example.com/", "--cluster.listen-address="])
            .env("NO_PROXY", "127.0.0.1")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus-alertmanager is missing: run tests/setup.sh");
        let alertmanager = Self { process, folder, address };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < PATIENCE, "alertmanager does not listen: {}", alertmanager.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        alertmanager
    }

    pub fn url(&self) -> String {
        let scheme = if self.folder.path().join("web.yml").exists() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The alerts that are firing, as its own tool tells them; with `--inhibited` those that it tells nobody.
    pub fn alerts(&self, which: &[&str]) -> Vec<Value> {
        let url = format!("--alertmanager.url={}", self.url());
        let http = self.folder.path().join("amtool.yml");
        let http = http.exists().then(|| format!("--http.config.file={}", http.display()));
        let arguments = ["alert", "query", "--output=json", &url];
        let told = Command::new("amtool").args(arguments).args(http).args(which).output();
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
