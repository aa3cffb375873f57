//! The unit, read by systemd's own programs and held to what Tacho does.

use std::path::Path;
use std::process::Command;

use super::{output, read, root};

const UNIT: &str = "deploy/systemd/tacho.service";
const SECRETS: &str = "deploy/systemd/secrets.conf";

/// The values of a key, in their order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// What systemd says of a unit that is changed so, with the drop-in beside it. Nothing is fine.
fn complaints(change: impl Fn(String) -> String) -> String {
    let folder = tempfile::tempdir().unwrap();
    let unit = read(UNIT).replace("/usr/bin/tacho", env!("CARGO_BIN_EXE_tacho"));
    std::fs::write(folder.path().join("tacho.service"), change(unit)).unwrap();
    std::fs::create_dir(folder.path().join("tacho.service.d")).unwrap();
    std::fs::copy(root().join(SECRETS), folder.path().join("tacho.service.d/secrets.conf")).unwrap();
    let mut verify = Command::new("systemd-analyze");
    let ended = verify.args(["verify", "--man=no"]).arg(folder.path().join("tacho.service")).output().unwrap();
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

#[test]
fn systemd_takes_it() {
    assert_eq!(complaints(|unit| unit), "");
    let wrong = complaints(|unit| unit.replace("WatchdogSec=60s", "WatchdogSec=soon"));
    assert!(wrong.contains("Failed to parse sec value"), "{wrong}");
}

#[test]
fn it_may_do_little() {
    // In tenths.
    output(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20", UNIT]));
}

#[test]
fn systemd_waits_for_the_drain_and_does_not_repeat_wrong_use() {
    let unit = read(UNIT);
    let stop: u64 = values(&unit, "TimeoutStopSec")[0].trim_end_matches('s').parse().unwrap();
    let drain = super::drain();
    assert!(stop >= drain + 5, "{stop} s for a drain of {drain} s");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tacho.toml"), "nonsense").unwrap();
    let mut tacho = Command::new(env!("CARGO_BIN_EXE_tacho"));
    let ended = tacho.arg("run").env("TACHO_CONFIG", folder.path().join("tacho.toml")).output().unwrap();
    assert_eq!(values(&unit, "RestartPreventExitStatus"), [&*ended.status.code().unwrap().to_string()]);
}

/// All examples of secrets, the commented ones too.
#[test]
fn secrets_are_read_from_the_files_that_systemd_makes() {
    let folder = tempfile::tempdir().unwrap();
    let text = read(SECRETS).replace("\n#", "\n");
    let loaded = values(&text, "LoadCredential").into_iter().chain(values(&text, "LoadCredentialEncrypted"));
    let names: Vec<&str> = loaded.map(|loaded| loaded.split_once(':').unwrap().0).collect();
    let variables: Vec<(&str, &str)> =
        values(&text, "Environment").into_iter().map(|variable| variable.split_once('=').unwrap()).collect();
    assert_eq!((names.len(), variables.len()), (3, 3), "{names:?} {variables:?}");
    for (name, value) in [
        ("database-url", "postgres://tacho:secret@db/tacho\n"),
        ("redis-url", "redis://:secret@redis"),
        ("elasticsearch-password", "secret"),
    ] {
        assert!(names.contains(&name) && variables.iter().any(|(_, path)| *path == format!("%d/{name}")), "{name}");
        std::fs::write(folder.path().join(name), value).unwrap();
    }
    let mut tacho = tacho_of_unit(folder.path());
    for (name, path) in variables {
        tacho.env(name, path.replace("%d", folder.path().to_str().unwrap()));
    }
    tacho.env("TACHO_LIMITS__BACKEND", "redis").env("TACHO_EXPORT__ELASTICSEARCH__USERNAME", "tacho");
    assert_eq!(output(tacho.arg("check-config")), "configuration is valid; database postgres\n");
}

/// Tacho with the environment that the unit gives it, its folders elsewhere.
fn tacho_of_unit(folder: &Path) -> Command {
    std::fs::write(folder.join("tacho.toml"), "").unwrap();
    let unit = read(UNIT);
    let mut tacho = Command::new(env!("CARGO_BIN_EXE_tacho"));
    for variable in values(&unit, "Environment")[0].split(' ') {
        let (name, value) = variable.split_once('=').unwrap();
        tacho.env(name, value.replace("/etc/tacho", folder.to_str().unwrap()));
    }
    tacho
}
