//! A real Postgres for a test: its own folder and port, gone when it is dropped.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) struct Postgres {
    bin: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    runs: AtomicBool,
}

impl Postgres {
    /// Panics where no Postgres is installed: a test that is skipped proves nothing.
    pub(crate) fn start() -> Self {
        let bin = bin();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let started = Self { bin, folder, port: free_port(), runs: AtomicBool::new(false) };
        if is_root() {
            // The server refuses to run as root; this user comes with its package.
            run(Command::new("chown").arg("postgres").arg(started.folder.path()));
        }
        let data = started.data();
        run(started.tool("initdb").args([
            "-D",
            &data,
            "-U",
            "tacho",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]));
        started.resume();
        started
    }

    /// Starts the server again after `halt`.
    pub(crate) fn resume(&self) {
        let (data, port) = (self.data(), self.port);
        let options = format!("-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories=''");
        run(self.tool("pg_ctl").args(["-D", &data, "-w", "-l", &format!("{data}.log"), "-o", &options, "start"]));
        self.runs.store(true, Ordering::Relaxed);
    }

    /// Ends the server as a crash would: every connection is cut, every open transaction is gone.
    pub(crate) fn halt(&self) {
        self.runs.store(false, Ordering::Relaxed);
        run(self.tool("pg_ctl").args(["-D", &self.data(), "-m", "immediate", "stop"]));
    }

    /// Has the server speak TLS from now on, with this certificate and key. `clients`: the authority of clients with a certificate.
    pub(crate) fn speak_tls(&self, certificate: &str, key: &str, clients: Option<&str>) {
        let mut settings = vec![("ssl", "on".to_owned())];
        let mut put = |name: &'static str, file: &str, text: &str| {
            let path = format!("{}/{file}", self.data());
            std::fs::write(&path, text).unwrap();
            if is_root() {
                run(Command::new("chown").args(["postgres", &path]));
            }
            // The server refuses a key that others can read.
            run(Command::new("chmod").args(["600", &path]));
            settings.push((name, path));
        };
        put("ssl_cert_file", "server.pem", certificate);
        put("ssl_key_file", "server.key", key);
        if let Some(clients) = clients {
            put("ssl_ca_file", "clients.pem", clients);
        }
        let settings: String = settings.iter().map(|(name, value)| format!("{name} = '{value}'\n")).collect();
        let file = format!("{}/postgresql.conf", self.data());
        let before = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, before + &settings).unwrap();
        self.halt();
        self.resume();
    }

    /// Takes only clients that come like this: a line of its host-based authentication.
    pub(crate) fn admit(&self, rule: &str) {
        std::fs::write(format!("{}/pg_hba.conf", self.data()), format!("{rule}\n")).unwrap();
        self.halt();
        self.resume();
    }

    pub(crate) fn sql(&self, statement: &str) {
        let port = self.port.to_string();
        let arguments = ["-q", "-h", "127.0.0.1", "-p", &port, "-U", "tacho", "-c", statement, "postgres"];
        run(Command::new(self.bin.join("psql")).args(arguments));
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a new, empty database.
    pub(crate) fn database(&self, name: &str) -> String {
        let port = self.port.to_string();
        run(Command::new(self.bin.join("createdb")).args(["-h", "127.0.0.1", "-p", &port, "-U", "tacho", name]));
        self.url(name)
    }

    /// Loads a dump of this database into a new one of another server.
    pub(crate) fn restore_into(&self, name: &str, other: &Self) -> String {
        let url = other.database(name);
        let port = self.port.to_string();
        let dump = other.folder.path().join("dump.sql");
        let arguments = ["-h", "127.0.0.1", "-p", &port, "-U", "tacho", "-f"];
        std::fs::write(&dump, "").expect("the folder can be written");
        run(Command::new(self.bin.join("pg_dump")).args(arguments).arg(&dump).arg(name));
        run(Command::new(self.bin.join("psql")).args(["-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&dump).arg(&url));
        url
    }

    /// A copy that follows this server until it is promoted.
    pub(crate) fn standby(&self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let copy = Self { bin: self.bin.clone(), folder, port: free_port(), runs: AtomicBool::new(false) };
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(copy.folder.path()));
        }
        let port = self.port.to_string();
        let (data, from) = (copy.data(), ["-h", "127.0.0.1", "-p", &port, "-U", "tacho", "-c", "fast", "-X", "stream"]);
        run(copy.tool("pg_basebackup").args(from).args(["-R", "-D", &data]));
        copy.resume();
        copy
    }

    /// Makes a standby the server that is written to.
    pub(crate) fn promote(&self) {
        run(self.tool("pg_ctl").args(["-D", &self.data(), "-w", "promote"]));
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://tacho@127.0.0.1:{}/{database}", self.port)
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn tool(&self, name: &str) -> Command {
        let tool = self.bin.join(name);
        if !is_root() {
            return Command::new(tool);
        }
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(tool);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if !self.runs.load(Ordering::Relaxed) {
            return;
        }
        let data = self.data();
        let stopped = self.tool("pg_ctl").args(["-D", &data, "-m", "immediate", "stop"]).stdout(Stdio::null()).status();
        assert!(stopped.is_ok_and(|status| status.success()), "postgres in {data} did not stop");
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free").port()
}

fn bin() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let bins = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    bins.max().expect("no Postgres under /usr/lib/postgresql: install the package `postgresql`")
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn run(command: &mut Command) {
    let status = command.stdout(Stdio::null()).current_dir("/").status();
    assert!(status.as_ref().is_ok_and(|status| status.success()), "{command:?}: {status:?}");
}
