//! The Debian package: made by cargo-deb, installed into a fresh root of Debian, run there, purged. No systemd runs in that root; what
//! its unit says is tested elsewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::place::Place;
use super::{PROFILE, Scratch, as_from_a_shell, as_root, cache, output, root, static_binary};

/// A root of Debian that nobody has changed yet.
struct Debian {
    folder: Scratch,
}

impl Debian {
    fn new() -> Self {
        let (folder, source) = (Scratch::new(), cache().join("debian/root"));
        assert!(source.exists(), "{} is missing: run tests/setup.sh", source.display());
        output(as_root("cp").args(["--archive", "--reflink=auto"]).args([&source, &folder.path("root")]));
        Self { folder }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.folder.path("root").join(inside)
    }

    /// In this root, by root.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        // dpkg warns of the lack of folders for programs that is not in every PATH.
        let path = "/usr/sbin:/usr/bin:/sbin:/bin";
        let mut command = as_root("chroot");
        output(command.arg(self.path("")).arg(program).args(arguments).env("PATH", path).env("LC_ALL", "C"))
    }

    /// All that is in it, but what dpkg and the programs that know users keep for themselves.
    fn content(&self) -> BTreeSet<String> {
        let listed = output(as_root("find").arg(self.path("")).args(["-xdev", "-printf", "/%P\n"]));
        let kept = |path: &&str| {
            !path.starts_with("/var/lib/dpkg/") && !path.starts_with("/var/log/") && !USERS.contains(path)
        };
        listed.lines().filter(kept).map(str::to_owned).collect()
    }

    fn knows(&self, user: &str) -> bool {
        let users = self.run("getent", &["passwd"]);
        users.lines().any(|line| line.starts_with(&format!("{user}:")))
    }
}

/// Copies of the lists of users as they were, and a lock.
const USERS: [&str; 5] = ["/etc/.pwd.lock", "/etc/passwd-", "/etc/shadow-", "/etc/group-", "/etc/gshadow-"];

/// The package and what else is handed out, made in `folder`.
fn release(folder: &Path) -> PathBuf {
    static_binary();
    output(as_from_a_shell(Command::new(root().join("deploy/release.sh")).arg(folder).args([PROFILE, "--fast"])));
    let checked = output(Command::new("sha256sum").args(["--check", "SHA256SUMS"]).current_dir(folder));
    let checked: Vec<&str> = checked.lines().collect();
    let binary = format!("tacho-{}-unknown-linux-musl: OK", std::env::consts::ARCH);
    assert!(checked.len() == 2 && checked.contains(&&*binary), "{checked:?}");
    let package = checked.iter().find_map(|line| line.strip_suffix(".deb: OK")).unwrap();
    folder.join(format!("{package}.deb"))
}

fn run(debian: &Debian) -> Place {
    let ports =
        ["HTTP", "OTLP_HTTP", "OTLP_GRPC"].map(|name| (format!("TACHO_LISTEN__{name}"), "127.0.0.1:0".to_owned()));
    let root = debian.path("").to_str().unwrap().to_owned();
    let way = ["chroot", "--userspec=tacho:tacho", &root, "/usr/bin/tacho"];
    let config = ("TACHO_CONFIG".to_owned(), "/etc/tacho/tacho.toml".to_owned());
    Place {
        way: way.map(str::to_owned).to_vec(),
        environment: ports.into_iter().chain([config]).collect(),
        data: debian.path("var/lib/tacho"),
        log: debian.folder.path("tacho.log"),
    }
}

#[tokio::test]
async fn a_fresh_debian_installs_runs_and_forgets_it_but_keeps_the_records() {
    let (debian, folder) = (Debian::new(), tempfile::tempdir().unwrap());
    let package = release(&folder.path().join("dist"));
    output(as_root("cp").arg(&package).arg(debian.path("tmp/tacho.deb")));
    let before = debian.content();

    // Not used, it leaves nothing, the user and the folder that it made included.
    debian.run("dpkg", &["--install", "/tmp/tacho.deb"]);
    assert!(debian.knows("tacho"));
    debian.run("dpkg", &["--purge", "tacho"]);
    assert_eq!(debian.content().symmetric_difference(&before).collect::<Vec<_>>(), [""; 0]);
    assert!(!debian.knows("tacho"));

    debian.run("dpkg", &["--install", "/tmp/tacho.deb"]);
    let installed = debian.content();
    for file in [
        "/usr/share/bash-completion/completions/tacho",
        "/usr/share/zsh/vendor-completions/_tacho",
        "/usr/share/fish/vendor_completions.d/tacho.fish",
        "/usr/share/man/man1/tacho.1.gz",
        "/usr/share/man/man1/tacho-report.1.gz",
        "/usr/share/doc/tacho/copyright",
        "/usr/share/doc/tacho/examples/secrets.conf",
        "/usr/lib/systemd/system/tacho.service",
        // It starts with the machine.
        "/etc/systemd/system/multi-user.target.wants/tacho.service",
    ] {
        assert!(installed.contains(file), "{file} is missing");
    }
    assert_eq!(debian.run("stat", &["--format=%U:%G %a", "/etc/tacho/tacho.toml"]), "root:tacho 640\n");
    assert_eq!(debian.run("stat", &["--format=%U:%G %a", "/var/lib/tacho"]), "tacho:tacho 700\n");
    assert_eq!(debian.run("tacho", &["--version"]), concat!("tacho ", env!("CARGO_PKG_VERSION"), "\n"));

    let place = run(&debian);
    let (code, said) = place.tacho(&["check-config"]);
    assert!(code == 0 && said.contains("database sqlite"), "{said}");
    let running = place.run();
    println!("package    {} ms to listen.json", running.started_in.as_millis());
    assert_ne!(running.status("Uid:").split('\t').next(), Some("0"));
    place.feed(&running, 0, 10).await;
    running.stop();
    assert_eq!(place.tacho(&["healthcheck"]).0, 1);

    // The same version again stands for an upgrade: what the administrator changed stays.
    output(as_root("sed").args(["--in-place", "$a # mine"]).arg(debian.path("etc/tacho/tacho.toml")));
    debian.run("dpkg", &["--install", "--force-confold", "/tmp/tacho.deb"]);
    assert!(debian.run("cat", &["/etc/tacho/tacho.toml"]).ends_with("# mine\n"));
    let running = place.run();
    place.feed(&running, 1, 20).await;
    running.stop();

    debian.run("dpkg", &["--purge", "tacho"]);
    let after = debian.content();
    let left: Vec<&String> = after.symmetric_difference(&before).collect();
    assert!(left.contains(&&"/var/lib/tacho/tacho.db".to_owned()), "{left:?}");
    let others: Vec<_> = left.iter().filter(|path| !path.starts_with("/var/lib/tacho")).collect();
    assert!(others.is_empty(), "{others:?}");
    // Whose they are.
    assert!(debian.knows("tacho"));
}
