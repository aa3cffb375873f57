//! What Tacho writes can be read by its own user alone, whatever the umask it is started with and whatever was there
//! before.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tacho::persist::Store;

use crate::support::client::{PROTOBUF, post};

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The real binary under an umask that forbids nothing.
fn open_handed(verb: &str, folder: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "umask 000 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tacho"), verb]).current_dir(folder);
    for listener in ["OTLP_GRPC", "OTLP_HTTP", "HTTP"] {
        command.env(format!("TACHO_LISTEN__{listener}"), "127.0.0.1:0");
    }
    command.envs(settings.iter().copied());
    command
}

struct Running {
    process: Child,
    log: PathBuf,
    data: PathBuf,
}

impl Running {
    /// Until it listens.
    fn start(folder: &Path, data: &Path, settings: &[(&str, &str)]) -> Self {
        let (log, told) = (folder.join("log"), data.join("listen.json"));
        drop(fs::remove_file(&told));
        let mut command = open_handed("run", folder, settings);
        command.env("TACHO_DATA_DIR", data).stderr(Stdio::from(fs::File::create(&log).unwrap()));
        let running = Self { process: command.spawn().unwrap(), log, data: data.to_owned() };
        let begun = Instant::now();
        while !told.exists() {
            assert!(begun.elapsed() < PATIENCE, "tacho did not start: {}", running.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    async fn send(&self) {
        let listen: serde_json::Value =
            serde_json::from_slice(&fs::read(self.data.join("listen.json")).unwrap()).unwrap();
        let answer = post(PROTOBUF, "").send(listen["otlp_http"].as_str().unwrap().parse().unwrap()).await;
        assert_eq!(answer.status(), 200);
    }

    fn stop(mut self) -> String {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.process.wait().unwrap().success(), "{}", self.log());
        self.log()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The folder and all that is in it.
fn all(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| found.extend(all(&entry.unwrap().path())));
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[track_caller]
fn assert_private(path: &Path) {
    let paths = all(path);
    for path in &paths {
        let right = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(path), right, "{}: {:o} in {paths:?}", path.display(), mode(path));
    }
}

fn open_up(path: &Path) {
    for path in all(path) {
        let mode = if path.is_dir() { 0o777 } else { 0o666 };
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
}

#[tokio::test]
async fn nobody_else_can_read_the_data_whatever_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("deep/data");
    let running = Running::start(folder.path(), &data, &[]);
    running.send().await;
    // Whatever it makes from here on is private from the first moment on.
    let status = fs::read_to_string(format!("/proc/{}/status", running.process.id())).unwrap();
    assert!(status.contains("\nUmask:\t0077\n"), "{status}");
    let names = all(&data);
    for name in ["tacho.db", "tacho.db-wal", "tacho.db-shm", "tacho.db-feed-position", "listen.json", "journal/id"] {
        assert!(names.contains(&data.join(name)), "no {name} in {names:?}");
    }
    assert!(names.iter().any(|name| name.extension().is_some_and(|ending| ending == "journal")), "{names:?}");
    assert_private(&folder.path().join("deep"));
    running.stop();
    assert_private(&data);

    // An older version left it open to all.
    open_up(&data);
    let running = Running::start(folder.path(), &data, &[]);
    assert_private(&data);
    let log = running.stop();
    assert_eq!(log.matches("others could read").count(), 1, "{log}");
    let log = Running::start(folder.path(), &data, &[]).stop();
    assert!(!log.contains("others could read"), "{log}");
}

#[tokio::test]
async fn a_folder_that_is_not_ours_alone_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("shared");
    fs::create_dir(&data).unwrap();
    Running::start(folder.path(), &data, &[]).stop();
    let foreign = data.join("somebody.txt");
    fs::write(&foreign, "hello").unwrap();
    // A link to what is somebody else's must not be followed.
    std::os::unix::fs::symlink(&foreign, data.join("tacho.db-link")).unwrap();
    open_up(&data);
    Running::start(folder.path(), &data, &[]).stop();
    assert_eq!((mode(&data), mode(&foreign)), (0o777, 0o666));
    for ours in ["tacho.db", "tacho.db-feed-position", "listen.json", "journal"] {
        assert_private(&data.join(ours));
    }
}

#[tokio::test]
async fn a_database_elsewhere_is_tightened_and_its_folder_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o755)).unwrap();
    let file = elsewhere.join("x.db");
    let url = format!("sqlite:{}", file.display());
    // Made by a process with the usual umask, as this test is one.
    let store = Store::open(&url, "before").await.unwrap();
    store.close().await;
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let running = Running::start(folder.path(), &folder.path().join("data"), &[("TACHO_DATABASE__URL", &url)]);
    for ending in ["", "-wal", "-shm", "-feed-position"] {
        assert_private(&elsewhere.join(format!("x.db{ending}")));
    }
    assert_eq!(mode(&elsewhere), 0o755);
    running.stop();

    // So does a verb that only looks.
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    let output = open_handed("report", folder.path(), &[("TACHO_DATABASE__URL", &url)]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_private(&file);
}

/// Who runs the service must not lose its files because root has looked at them.
#[tokio::test]
async fn a_look_as_root_leaves_the_files_to_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.db");
    let url = format!("sqlite:{}", file.display());
    Store::open(&url, "before").await.unwrap().close().await;
    // Where the tests do not run as root, the owner is who runs them, before and after.
    let owner =
        if fs::metadata("/proc/self").unwrap().uid() == 0 { 65_534 } else { fs::metadata(&file).unwrap().uid() };
    for path in all(folder.path()).iter().filter(|path| path.is_file()) {
        std::os::unix::fs::chown(path, Some(owner), None).unwrap();
    }
    let output = open_handed("report", folder.path(), &[("TACHO_DATABASE__URL", &url)]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let files: Vec<_> = all(folder.path()).into_iter().filter(|path| path.is_file()).collect();
    assert!(files.len() >= 2, "{files:?}");
    for path in files {
        assert_eq!(fs::metadata(&path).unwrap().uid(), owner, "{}", path.display());
    }
}
