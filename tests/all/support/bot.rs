//! The example bot and what it talks to, as programs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::tacho_process::Tacho;

/// A program of the bot's side; killed where a test fails before it is stopped.
pub struct Program(Child);

impl Program {
    /// Waits for `listening on ADDRESS`.
    pub fn start(command: &mut Command) -> (Self, String) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let said = lines.find_map(|line| line.strip_prefix("listening on ").map(str::to_owned));
        let address = said.unwrap_or_else(|| panic!("{command:?} does not listen"));
        // Read on, so that the program never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        (Self(child), address)
    }

    pub fn stop(mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var("HOME").unwrap()).join(".cache/tacho");
    std::env::var("TACHO_CACHE").map_or_else(|_| home(), PathBuf::from)
}

pub fn python(script: &str) -> Command {
    let python = cache().join("example-bot-venv/bin/python");
    assert!(python.exists(), "{} is missing: run tests/setup.sh", python.display());
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/example-bot").join(script));
    command
}

/// The example bot with its middleware, which asks this Tacho and sends it its spans.
pub fn limited(tacho: &Tacho, service: &str, model: &str) -> (Program, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = python("bot.py");
    command
        .env("PYTHONPATH", root.join("deploy/python/src"))
        .env("TACHO_URL", format!("http://{}", tacho.http))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", tacho.grpc))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .env("OTEL_SERVICE_NAME", service)
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .env("OPENAI_BASE_URL", format!("http://{model}/v1"))
        .env("OPENAI_API_KEY", "none");
    Program::start(&mut command)
}
