//! The real binary in a folder of its own, on free ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Tacho {
    process: Child,
    pub folder: PathBuf,
    pub grpc: SocketAddr,
    pub otlp_http: SocketAddr,
    pub http: SocketAddr,
}

/// Long enough for a loaded machine; a healthy start takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(30);

impl Tacho {
    /// Starts in `folder` with debug logs in `tacho.log` there.
    pub(crate) fn start(folder: &Path, database_url: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_tacho")), folder, database_url, settings)
    }

    /// Likewise by a command that starts what is given to it as arguments.
    pub(crate) fn start_by(mut by: Command, folder: &Path, database_url: &str, settings: &[(&str, &str)]) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("tacho.log")).unwrap();
        let told = folder.join("listen.json");
        drop(std::fs::remove_file(&told));
        let process = by
            .arg("run")
            .current_dir(folder)
            .env("TACHO_DATA_DIR", folder)
            .env("TACHO_DATABASE__URL", database_url)
            .env("TACHO_LISTEN__OTLP_GRPC", "127.0.0.1:0")
            .env("TACHO_LISTEN__OTLP_HTTP", "127.0.0.1:0")
            .env("TACHO_LISTEN__HTTP", "127.0.0.1:0")
            .env("TACHO_TELEMETRY__LOG", "tacho=debug")
            .envs(settings.iter().copied())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let started = Instant::now();
        let listen: serde_json::Value = loop {
            if let Some(listen) = std::fs::read(&told).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                break listen;
            }
            assert!(started.elapsed() < PATIENCE, "tacho did not start: {}", log_of(folder));
            std::thread::sleep(Duration::from_millis(20));
        };
        let address = |name: &str| listen[name].as_str().unwrap().parse().unwrap();
        Self {
            process,
            folder: folder.to_owned(),
            grpc: address("otlp_grpc"),
            otlp_http: address("otlp_http"),
            http: address("http"),
        }
    }

    /// Sends TERM and waits for the drain.
    pub(crate) fn stop(mut self) {
        self.signal("-TERM");
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// The token that the first start has made.
    #[allow(dead_code, reason = "benches take this file too")]
    pub(crate) fn admin_token(&self) -> String {
        std::fs::read_to_string(self.folder.join("admin-token")).unwrap().trim().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// CPU time so far, of all threads. The kernel counts in hundredths of a second.
    #[allow(dead_code, reason = "benches measure it")]
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // Behind the name, which may hold anything, the 12th and 13th field are user and system time.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// The most resident memory it ever had, in bytes.
    #[allow(dead_code, reason = "benches measure it")]
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Sends a signal and does not wait.
    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.pid().to_string()]).status().unwrap().success());
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(mut self) -> std::process::ExitStatus {
        self.process.wait().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        log_of(&self.folder)
    }
}

impl Drop for Tacho {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn log_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("tacho.log")).unwrap_or_default()
}
