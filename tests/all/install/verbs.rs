//! The verbs for whoever starts Tacho and for whoever packs it.

use std::path::Path;
use std::process::Command;

use crate::support::tacho_process::Tacho;

/// The exit code and what is said, of the binary in a folder without configuration.
pub fn tacho(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let ended = Command::new(env!("CARGO_BIN_EXE_tacho"))
        .args(arguments)
        .current_dir(folder)
        .env("TACHO_DATA_DIR", folder)
        .output()
        .unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    (ended.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[test]
fn healthcheck_asks_the_one_that_runs_here() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let running =
        Tacho::start(folder.path(), &url, &[("TACHO_LISTEN__HTTP", "0.0.0.0:0"), ("TACHO_AUTH__INSECURE", "true")]);
    let url = format!("http://127.0.0.1:{}/readyz", running.http.port());
    assert_eq!(tacho(folder.path(), &["healthcheck"]), (0, format!("{url} is ready\n")));
    running.stop();
    let (code, said) = tacho(folder.path(), &["healthcheck"]);
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(said.starts_with(&format!("tacho: no answer from {url}: tacho does not run here")), "{said}");
}

/// Each shell reads its script and knows the verbs then; a broken configuration does not keep it from it.
#[test]
fn a_shell_learns_the_verbs() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tacho.toml"), "nonsense").unwrap();
    assert_eq!(tacho(folder.path(), &["check-config"]).0, 2);
    let (code, script) = tacho(folder.path(), &["completions", "bash"]);
    assert_eq!(code, 0, "{script}");
    let ask =
        format!("{script}\nCOMP_WORDS=(tacho heal); COMP_CWORD=1; _tacho tacho heal tacho; echo \"${{COMPREPLY[*]}}\"");
    let asked = Command::new("bash").args(["-c", &ask]).output().unwrap();
    assert_eq!(String::from_utf8(asked.stdout).unwrap(), "healthcheck\n");
    for (shell, word) in [("zsh", "#compdef tacho"), ("fish", "complete -c tacho")] {
        let (code, script) = tacho(folder.path(), &["completions", shell]);
        assert!(code == 0 && script.contains(word) && script.contains("healthcheck"), "{script}");
    }
    assert_eq!(tacho(folder.path(), &["completions", "cmd"]).0, 2);
}

#[test]
fn each_verb_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert_eq!(tacho(folder.path(), &["man", pages.to_str().unwrap()]).0, 0);
    let (_, help) = tacho(folder.path(), &["--help"]);
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let verbs =
        commands.lines().take_while(|line| !line.is_empty()).map(|line| line.split_whitespace().next().unwrap());
    let verbs: Vec<&str> = verbs.filter(|verb| *verb != "help").collect();
    assert!(verbs.contains(&"healthcheck") && !verbs.contains(&"man"), "{help}");
    for verb in verbs {
        let page = std::fs::read_to_string(pages.join(format!("tacho-{verb}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{verb}: {page}");
    }
    assert!(std::fs::read_to_string(pages.join("tacho.1")).unwrap().contains("tachograph"));
}
