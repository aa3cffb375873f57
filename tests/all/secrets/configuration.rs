//! A configuration that is wrong is told by its place and its keys, and never by its values.

use std::path::Path;
use std::process::{Command, Output};

use super::CANARY;

struct Wrong {
    /// Of `tacho.toml`.
    file: &'static str,
    variables: &'static [(&'static str, &'static str)],
    /// What the error must say.
    says: &'static [&'static str],
}

const fn file(file: &'static str, says: &'static [&'static str]) -> Wrong {
    Wrong { file, variables: &[], says }
}

const fn variable(variables: &'static [(&'static str, &'static str)], says: &'static [&'static str]) -> Wrong {
    Wrong { file: "", variables, says }
}

/// The canary stands for `#`.
const WRONG: &[Wrong] = &[
    // Values of the wrong form, where a secret is right.
    file("[database]\nurl = 'host=db password=#'", &["tacho.toml: line 2, column 7", "database.url", "postgres://"]),
    file("[database]\nurl = '#'", &["line 2, column 7", "`database.url`"]),
    file("[database]\nurl = 'mysql://u:#@h/db'", &["line 2", "`database.url`"]),
    file("[database]\nurl = 'postgres://u:#@h:port/db'", &["line 2", "`database.url`", "invalid port number"]),
    file("[database]\nurl = 'postgres://u:12/#@h:x/db'", &["line 2", "`database.url`"]),
    file("[database]\nurl = 'postgres://h/db?sslpassword=#'", &["line 2", "unknown parameter sslpassword"]),
    file("[database]\nurl = 'postgres://h/db?sslmode=#'", &["line 2", "parameter sslmode"]),
    file("[database]\nurl = 'postgres://h/db?#'", &["line 2", "unknown parameter"]),
    file("[database]\nurl = 'sqlite:x.db?mode=#'", &["line 2", "`database.url`", "mode, cache"]),
    file("[database]\nurl = ['postgres://u:#@h']", &["line 2", "`database.url`", "expected a string"]),
    file("[database]\nurl = { password = '#' }", &["line 2", "`database.url`", "expected a string"]),
    file("[database]\nurl = \"\"\"\nx: postgres://u:#@h\n\"\"\"", &["line 2", "`database.url`"]),
    file("[limits]\nbackend = 'redis'\nurl = '#'", &["line 3", "`limits.url`", "redis://"]),
    file("[limits]\nbackend = 'redis'\nurl = 'redis://:#@a:1,#'", &["line 3", "`limits.url`"]),
    file("[limits]\nbackend = 'redis'\nurl = 'redis://:#@a:port'", &["line 3", "`limits.url`"]),
    file("[notify]\nalertmanager_urls = ['ftp://u:#@h']", &["line 2", "alertmanager_urls", "https://"]),
    file("[notify]\nalertmanager_urls = ['http://u:#@h:port']", &["line 2", "alertmanager_urls", "port"]),
    file("[notify]\nalertmanager_urls = ['http://h?token=#']", &["line 2", "alertmanager_urls", "path"]),
    file("[notify]\nalertmanager_urls = '#'", &["line 2", "alertmanager_urls", "expected a sequence"]),
    file("[export.elasticsearch]\nurls = ['http://u:#@h']", &["line 2", "export.elasticsearch.urls", "password_file"]),
    file("[export.elasticsearch]\nurls = ['#']", &["line 2", "export.elasticsearch.urls"]),
    file("[export.elasticsearch]\nurls = ['http://h?api_key=#']", &["line 2", "export.elasticsearch.urls"]),
    file("[export.elasticsearch]\nindex = '# '", &["line 2", "export.elasticsearch.index"]),
    // Misspelt keys: they are named, what they were given is not.
    file("[database]\npasword = '#'", &["line 2, column 1", "unknown field `pasword`", "`url`"]),
    file("[database]\nurl = 'postgres://u:#@h'\nurll = 'postgres://u:#@h'", &["line 3", "`urll`"]),
    file("[database]\nurl.password = '#'", &["line 2", "`database.url`"]),
    file("[database]\n'postgres://u:#@h' = 1", &["line 2", "unknown field"]),
    file("[export.elasticsearch]\npassword = '#'", &["line 2", "unknown field `password`", "`password_file`"]),
    file("password = '#'", &["line 1, column 1", "unknown field `password`", "`database`"]),
    file("[secrets]\nx = '#'", &["line 1", "unknown field `secrets`"]),
    file("database = '#'", &["line 1", "`database`"]),
    file("database = ['#']", &["line 1", "`database`"]),
    // No TOML.
    file("[database]\nurl = postgres://u:#@h", &["line 2, column 7"]),
    file("[database]\nurl = 'postgres://u:#@h", &["line 2"]),
    file("[database]\nurl 'postgres://u:#@h'", &["line 2"]),
    file("[database]\nurl: 'postgres://u:#@h'", &["line 2"]),
    file("[database]\nurl = \"postgres://u:\\#@h\"", &["line 2"]),
    file("[database]\nurl = 'postgres://u:#@h' 'x'", &["line 2"]),
    file("[database]\nurl = 'a'\nurl = 'postgres://u:#@h'", &["line 3", "duplicate key"]),
    file("[database]\nurl = \"\"\"\npostgres://u:#@h\nx = 1", &["line "]),
    file("[database\nurl = 'postgres://u:#@h'", &["line 1"]),
    file("postgres://u:#@h\n#", &["line 1"]),
    // Secrets where numbers, words, times and lists belong.
    file("[metrics]\nper_user_top = '#'", &["line 2", "`metrics.per_user_top`", "found string"]),
    file("[assemble]\nquiet = '5#'", &["line 2", "`assemble.quiet`"]),
    file("[journal]\nmax_size = '5 #'", &["line 2", "`journal.max_size`"]),
    file("[limits]\nbackend = '#'", &["line 2", "`limits.backend`", "expected one of `redis`, `database`, `memory`"]),
    file("[telemetry]\nlog_format = '#'", &["line 2", "`telemetry.log_format`", "`json`"]),
    file("[telemetry]\nlog = 'tacho=#'", &["telemetry.log"]),
    file("[plans.x]\ntimezone = '#'", &["line 2", "plans.x", "Europe/Berlin"]),
    file("[export.elasticsearch]\nstart = '#'", &["line 2", "start", "a date"]),
    file(
        "[[limit]]\nname = 'a'\nmeter = 'requests'\nquota = { limit = 1, period = 'day' }\n\n\
         [[limit]]\nname = '#'\nmeter = 'requests'",
        &["line 6", "needs either `rate` or `quota`"],
    ),
    file("[[limit]]\nname = '#'\nmeter = '#'", &["line 3", "`limit.meter`", "`requests`"]),
    file("[ingest]\nmax_body = { x = '#' }", &["line 2", "`ingest.max_body`"]),
    file("[ingest]\nuser_keys = '#'", &["line 2", "`ingest.user_keys`", "expected a sequence"]),
    // The environment.
    variable(&[("TACHO_DATABASE__URL", "host=db password=#")], &["variable TACHO_DATABASE__URL", "postgres://"]),
    variable(&[("TACHO_DATABASE__URL", "#")], &["variable TACHO_DATABASE__URL"]),
    variable(&[("TACHO_DATABASE__URL", "{ password = '#' }")], &["variable TACHO_DATABASE__URL"]),
    variable(&[("TACHO_DATABASE", "postgres://u:#@h")], &["variable TACHO_DATABASE"]),
    variable(&[("TACHO_DATABASE__PASWORD", "#")], &["TACHO_DATABASE__PASWORD", "unknown field `pasword`"]),
    variable(&[("TACHO_PASSWORD", "#")], &["variable TACHO_PASSWORD", "unknown field `password`"]),
    variable(&[("TACHO_LIMITS__URL", "rediss//:#@h")], &["variable TACHO_LIMITS__URL", "redis://"]),
    variable(&[("TACHO_LIMITS__BACKEND", "#")], &["variable TACHO_LIMITS__BACKEND", "`memory`"]),
    variable(&[("TACHO_NOTIFY__RESEND_INTERVAL", "5#")], &["variable TACHO_NOTIFY__RESEND_INTERVAL"]),
    variable(&[("TACHO_NOTIFY__ALERTMANAGER_URLS", "['http://u:#@h:x']")], &["TACHO_NOTIFY__ALERTMANAGER_URLS"]),
    variable(&[("TACHO_LIMIT", "[{ name = '#', meter = 'requests' }]")], &["variable TACHO_LIMIT", "`quota`"]),
    variable(&[("TACHO_LISTEN", "[1, '#']")], &["variable TACHO_LISTEN", "expected a string"]),
];

fn tacho(folder: &Path, verb: &str, variables: &[(&str, String)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tacho"));
    command.args(["--config", "tacho.toml", verb]).current_dir(folder);
    command.envs(variables.iter().map(|(name, value)| (name, value))).output().unwrap()
}

/// Both outputs, after a look for the canary.
fn said(output: &Output) -> String {
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
    assert!(!said.to_lowercase().contains("hunter"), "a secret is told: {said}");
    said
}

#[test]
fn what_is_wrong_is_told_by_line_and_key_and_never_by_value() {
    let mut faults = Vec::new();
    for wrong in WRONG {
        let folder = tempfile::tempdir().unwrap();
        let text = wrong.file.replace('#', CANARY);
        std::fs::write(folder.path().join("tacho.toml"), &text).unwrap();
        let variables: Vec<_> =
            wrong.variables.iter().map(|(name, value)| (*name, value.replace('#', CANARY))).collect();
        for verb in ["check-config", "run", "report"] {
            // The filter of logs is read by those who log.
            if wrong.says == ["telemetry.log"] && verb != "run" {
                continue;
            }
            let output = tacho(folder.path(), verb, &variables);
            let said = said(&output);
            let lacks: Vec<_> = wrong.says.iter().filter(|part| !said.contains(**part)).collect();
            if output.status.code() != Some(2) || !lacks.is_empty() {
                faults.push(format!("{verb}: {text} {variables:?}: {:?}, no {lacks:?} in: {said}", output.status));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_key_repeats_what_it_is_given() {
    let mut keys = 0;
    let mut section = String::new();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let block = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    for line in block.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)) {
        if line.starts_with('[') {
            section = line.split(']').next().unwrap()[1..].to_owned();
            continue;
        }
        let Some((key, _)) = line.split_once(" = ") else { continue };
        keys += 1;
        let head = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        let canary = CANARY;
        let forms = [
            format!("'{canary}'"),
            format!("'1 {canary}'"),
            format!("'1{canary}'"),
            format!("['{canary}', '1{canary}', {{ x = '{canary}' }}]"),
            format!("{{ x = '{canary}', {canary}x = '{canary}' }}"),
            canary.to_owned(),
            format!("[[['{canary}']]]"),
        ];
        for form in forms {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("tacho.toml"), format!("{head}{} = {form}\n", key.trim())).unwrap();
            let output = tacho(folder.path(), "check-config", &[]);
            let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
            // A file that is named is named in the error, and so is a key.
            let shown = text.replace(&format!("{canary}x"), "").replace("unknown field `hunter2canary`", "");
            let is_path = ["override", "ca_file", "cert_file", "key_file", "password_file", "api_key_file"];
            if !is_path.contains(&key.trim()) {
                assert!(!shown.contains("hunter"), "[{section}] {key} = {form}: {text}");
            }
        }
    }
    assert!(keys > 25, "the reading of the README is broken");
}

/// The name of a variable is ours, its value may be anything.
#[test]
fn a_variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStringExt as _;
    let value = std::ffi::OsString::from_vec([CANARY.as_bytes(), b"\xff"].concat());
    let run =
        |name: &str| Command::new(env!("CARGO_BIN_EXE_tacho")).arg("check-config").env(name, &value).output().unwrap();
    let output = run("TACHO_DATABASE__URL");
    let said = said(&output);
    assert!(output.status.code() == Some(2) && said.contains("TACHO_DATABASE__URL: is not valid Unicode"), "{said}");
    assert!(run("OTHER_VARIABLE").status.success());
}
