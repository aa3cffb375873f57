//! A Chromium without a window, with an empty profile, which reaches nothing beyond this machine.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A browser with all its processes; they end with it.
pub struct Chromium {
    process: Child,
    folder: tempfile::TempDir,
}

/// What leads to this machine.
const OURS: &str = "EXCLUDE localhost, EXCLUDE 127.*, EXCLUDE 0.0.0.0, EXCLUDE ::1";

const ARGUMENTS: [&str; 15] = [
    "--headless",
    // Its sandbox needs what neither root nor most containers have.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-proxy-server",
    "--enable-logging=stderr",
    // A page may open windows without being asked for them.
    "--disable-popup-blocking",
];

impl Chromium {
    /// Shows `url`. The host `name` leads to `address`; every other name but `localhost` to nowhere.
    pub fn show(url: &str, name: &str, address: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let rules = format!("MAP {name} {address}, MAP * ~NOTFOUND, {OURS}");
        let process = Command::new("chromium")
            .args(ARGUMENTS)
            .arg(format!("--host-resolver-rules={rules}"))
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg(url)
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .env("XDG_CONFIG_HOME", folder.path().join("config"))
            .env("XDG_CACHE_HOME", folder.path().join("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .process_group(0)
            .spawn()
            .expect("chromium is missing: run tests/setup.sh");
        Self { process, folder }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let group = format!("-{}", self.process.id());
        drop(Command::new("kill").args(["-KILL", "--", &group]).status());
        drop(self.process.wait());
    }
}

/// The version that is installed.
pub fn version() -> String {
    let output = Command::new("chromium").arg("--version").output().expect("chromium is missing: run tests/setup.sh");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
