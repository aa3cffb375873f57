//! How Tacho comes onto a machine: the verbs that packages need, the container image, the Debian package. Images and packages are
//! made by the scripts that make those which are handed out, from a static binary that is built with less care for its speed.

mod deb;
mod image;
mod place;
mod tls;
pub mod verbs;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `tests/setup.sh` made.
fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var("HOME").unwrap()).join(".cache/tacho");
    std::env::var("TACHO_CACHE").map_or_else(|_| home(), PathBuf::from)
}

/// A command that needs root's rights: to change roots, to mount, to install packages.
fn as_root(program: &str) -> Command {
    static IS_ROOT: OnceLock<bool> = OnceLock::new();
    if *IS_ROOT.get_or_init(|| Command::new("id").arg("-u").output().unwrap().stdout == b"0\n") {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--non-interactive", "--preserve-env", program]);
    command
}

fn ended(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run tests/setup.sh"))
}

/// What it printed, if it ended well.
fn output(command: &mut Command) -> String {
    let ended = ended(command);
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&ended.stderr));
    text
}

/// Without what cargo tells a test of its package: build scripts see it, and would run again at each change between the two.
fn as_from_a_shell(command: &mut Command) -> &mut Command {
    let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars().filter(|(name, _)| told(name)) {
        command.env_remove(name);
    }
    command
}

/// The profile of static binaries for tests.
const PROFILE: &str = "static-test";

/// The static binary, built now unless it is there.
fn static_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--profile", PROFILE, "--target", &target, "--bin", "tacho"]);
        output(as_from_a_shell(cargo.current_dir(root())));
        let folder = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| root().join("target"), PathBuf::from);
        folder.join(target).join(PROFILE).join("tacho")
    })
}

/// A folder that holds files of other users, with whatever is mounted below it gone before it goes.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap().keep())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(as_root("rm").args(["--recursive", "--force", "--one-file-system"]).arg(&self.0).status());
    }
}
