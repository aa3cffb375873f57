//! What a service manager is told, by the real binary over a real socket as systemd makes one.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use super::durability::{get, until};
use crate::support::client::call;
use crate::support::load::Shape;
use crate::support::postgres::Postgres;
use crate::support::tacho_process::Tacho;

/// The manager's end.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn new(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { socket, path: path.to_str().unwrap().to_owned() }
    }

    fn start(&self, folder: &Path, url: &str, settings: &[(&str, &str)]) -> Tacho {
        let settings: Vec<_> = [("NOTIFY_SOCKET", &*self.path)].into_iter().chain(settings.iter().copied()).collect();
        Tacho::start(folder, url, &settings)
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("the service manager is told nothing more");
        String::from_utf8(buffer[..length].to_vec()).unwrap().trim_end().to_owned()
    }

    /// The next thing that it is told beside the status.
    fn next_state(&self) -> String {
        loop {
            let told = self.next();
            if !told.starts_with("STATUS=") {
                return told;
            }
        }
    }

    fn until(&self, wanted: &str) {
        while self.next() != wanted {}
    }
}

fn sqlite(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("tacho.db").display())
}

#[tokio::test]
async fn it_is_told_of_the_start_of_reloads_and_of_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tacho.toml"), "").unwrap();
    let manager = Manager::new(folder.path());
    let tacho = manager.start(folder.path(), &sqlite(folder.path()), &[]);
    assert_eq!(manager.next(), "READY=1");
    assert_eq!(get(&tacho, "/readyz").await, "ready\n");
    manager.until("STATUS=takes spans and writes records");
    // The second file cannot be read; the manager would wait for ever for the end of that reload.
    for text in ["[telemetry]\nlog = \"warn\"", "nonsense"] {
        std::fs::write(folder.path().join("tacho.toml"), text).unwrap();
        tacho.signal("-HUP");
        let reloading = manager.next_state();
        let since_boot = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(since_boot.parse::<u64>().unwrap() > 0, "{reloading}");
        assert_eq!(manager.next_state(), "READY=1");
    }
    tacho.stop();
    assert_eq!(manager.next_state(), "STOPPING=1\nSTATUS=draining");
    manager.socket.set_nonblocking(true).unwrap();
    assert!(manager.socket.recv(&mut [0; 16]).is_err(), "something was said behind the stop");
}

const WATCHDOG: (&str, &str) = ("WATCHDOG_USEC", "300000");

/// A restart would not bring it back.
#[tokio::test]
async fn the_watchdog_is_fed_while_the_database_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start();
    let url = server.database("away");
    server.halt();
    let manager = Manager::new(folder.path());
    let tacho = manager.start(folder.path(), &url, &[WATCHDOG]);
    manager.until("STATUS=takes spans; the database is away, so the journal keeps them");
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    server.resume();
    manager.until("STATUS=takes spans and writes records");
    // Away again, with traces that wait for it.
    server.halt();
    let unit =
        Shape { seed: 7, traces: 20, calls: 1, users: 5, split: false, began: 1_790_000_000_000_000_000 }.unit(1);
    assert_eq!(call(&unit.bodies[0]).send(tacho.grpc).await, "Ok");
    manager.until("STATUS=takes spans; the database is away, so the journal keeps them");
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
}

/// A start reads the journal anew, and that is the only thing that helps.
#[tokio::test]
async fn the_watchdog_is_not_fed_when_the_journal_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::new(folder.path());
    let settings = [WATCHDOG, ("TACHO_JOURNAL__MAX_SIZE", "1MiB")];
    let tacho = manager.start(folder.path(), &sqlite(folder.path()), &settings);
    manager.until("WATCHDOG=1");
    let shape = Shape { seed: 7, traces: 20, calls: 1, users: 5, split: false, began: 1_790_000_000_000_000_000 };
    assert_eq!(call(&shape.unit(0).bodies[0]).send(tacho.grpc).await, "Ok");
    until(&tacho, "tacho_persist_records_total{result=\"new\"} 20").await;
    // What stands where the next segment has to be cannot be written.
    for first in 3..1000 {
        std::fs::create_dir(folder.path().join(format!("journal/{first:020}.journal"))).unwrap();
    }
    let mut sent = 0;
    while !get(&tacho, "/readyz").await.contains("the journal cannot be written") {
        sent += 1;
        assert!(sent < 900, "{}", tacho.log());
        call(&shape.unit(sent).bodies[0]).send(tacho.grpc).await;
    }
    manager.until("STATUS=the journal cannot be written");
    for _ in 0..3 {
        assert_eq!(manager.next(), "STATUS=the journal cannot be written");
    }
    assert!(tacho.log().contains("the pipeline does not work"), "{}", tacho.log());
}

/// As in a pod beside a Service named `tacho`.
#[tokio::test]
async fn variables_that_others_made_are_named_once_and_stop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let made = [
        ("TACHO_PORT", "tcp://10.96.0.7:4317"),
        ("TACHO_SERVICE_PORT_OTLP_GRPC", "4317"),
        ("TACHO_TOKEN", "of-a-client"),
    ];
    let tacho = Tacho::start(folder.path(), &sqlite(folder.path()), &made);
    let log = tacho.log();
    assert_eq!(log.matches("TACHO_PORT TACHO_SERVICE_PORT_OTLP_GRPC TACHO_TOKEN").count(), 1, "{log}");
    assert!(!log.contains("of-a-client"), "{log}");
}
