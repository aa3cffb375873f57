//! How Tacho comes onto a machine: the verbs that packages need, the container image, the Debian package. Images and packages are
//! made by the scripts that make those which are handed out, from a static binary that is built with less care for its speed.

mod image;
mod place;
pub mod verbs;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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

/// The profile of static binaries for tests.
const PROFILE: &str = "static-test";

/// The static binary, built now unless it is there.
fn static_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--profile", PROFILE, "--target", &target, "--bin", "tacho"]);
        output(cargo.current_dir(root()));
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
