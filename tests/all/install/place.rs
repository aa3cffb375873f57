//! Tacho where it was installed: in a container, in another root. It is started there, fed, asked and stopped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{as_root, ended};
use crate::support::client::{PROTOBUF, post};
use crate::support::load::Shape;

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a verb of Tacho is run there.
pub struct Place {
    /// Program and first arguments of the command line, before the verb.
    pub way: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Its data folder, as it is seen from here.
    pub data: PathBuf,
    /// Its log, which goes on from start to start.
    pub log: PathBuf,
}

/// One that runs. Dropped, it is killed, and whatever stands between it and us.
pub struct Running {
    child: Child,
    pub otlp_http: SocketAddr,
    pub started_in: Duration,
    log: PathBuf,
}

impl Place {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = as_root(&self.way[0]);
        command.args(&self.way[1..]).args(arguments).envs(self.environment.iter().cloned());
        command
    }

    /// The exit code and what is said.
    pub fn tacho(&self, arguments: &[&str]) -> (i32, String) {
        let ended = ended(&mut self.command(arguments));
        let said = [ended.stdout, ended.stderr].concat();
        (ended.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
    }

    /// Started, it is waited for until it is ready.
    pub fn run(&self) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let told = self.data.join("listen.json");
        drop(as_root("rm").arg("--force").arg(&told).status());
        let begun = Instant::now();
        let child = self.command(&["run"]).stdout(log.try_clone().unwrap()).stderr(Stdio::from(log)).spawn().unwrap();
        let mut running =
            Running { child, otlp_http: ([127, 0, 0, 1], 0).into(), started_in: Duration::ZERO, log: self.log.clone() };
        // By root, as the folder is another user's.
        let text = wait_for("listen.json", &running, || {
            let text = as_root("cat").arg(&told).output().unwrap().stdout;
            serde_json::from_slice::<serde_json::Value>(&text).ok()
        });
        running.started_in = begun.elapsed();
        wait_for("health", &running, || (self.tacho(&["healthcheck"]).0 == 0).then_some(()));
        running.otlp_http = text["otlp_http"].as_str().unwrap().parse().unwrap();
        running
    }

    /// Sends ten requests and waits until the report has `expected` in all. Others for another number.
    pub async fn feed(&self, running: &Running, number: u64, expected: u64) {
        let shape = Shape { seed: 5, traces: 10, calls: 1, users: 2, split: false, began: 1_790_000_000_000_000_000 };
        let body = shape.unit(number).bodies.remove(0);
        assert_eq!(post(PROTOBUF, body).send(running.otlp_http).await.line(), "200");
        wait_for("record", running, || (self.reported() == Some(expected)).then_some(()));
    }

    /// How many requests the report tells of; `None` if it was not heard, as buildah now and then loses what a short program says.
    fn reported(&self) -> Option<u64> {
        let (code, said) = self.tacho(&["report", "--json"]);
        assert_eq!(code, 0, "{said}");
        let report: serde_json::Value = serde_json::from_str(&said).ok()?;
        report["summary"].as_array()?.iter().map(|row| row["requests"].as_u64()).sum()
    }
}

impl Running {
    /// The process of Tacho itself, below those that brought it there.
    fn pid(&self) -> Option<u32> {
        let mut pid = self.child.id();
        loop {
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            // As a whole: who brings it there has it among the arguments.
            if command == "/usr/bin/tacho\0run\0" {
                return Some(pid);
            }
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
            let mut children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
            pid = children.find_map(|children| children.split(' ').next().and_then(|first| first.parse().ok()))?;
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().unwrap_or_else(|| self.child.id());
        drop(as_root("kill").args([name, &pid.to_string()]).status());
    }

    /// A line of what the kernel says of it, its name left out.
    pub fn status(&self, name: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid().unwrap())).unwrap();
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    }

    /// Sends TERM and waits for the drain.
    pub fn stop(mut self) {
        self.signal("-TERM");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Those that brought it there end when it does.
            self.signal("-KILL");
            drop(self.child.wait());
        }
    }
}

fn wait_for<T>(what: &str, running: &Running, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} never came: {}", running.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}
