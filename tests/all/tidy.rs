//! Keeps the house as its papers describe it: who may use whom, how long a file may be, migrations that match in both databases,
//! metrics that exist once, a README whose configuration is the default one, and no words that do not belong here.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the house has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use tacho::config::Config;

/// What each room may use beside itself, by the head of its file or folder, in both crates. `domain` is everyone's.
const MAY_USE: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    (
        "cli",
        &[
            "api",
            "assemble",
            "app",
            "auth",
            "config",
            "export",
            "limit",
            "metrics",
            "persist",
            "price",
            "remote",
            "rights",
            "telemetry",
        ],
    ),
    ("app", EVERYTHING),
    (
        "config",
        &[
            "assemble", "auth", "export", "ingest", "journal", "limit", "listen", "metrics", "notify", "persist",
            "remote",
        ],
    ),
    ("domain", &[]),
    ("dialect", &[]),
    ("decode", &["dialect"]),
    ("assemble", &["dialect"]),
    ("price", &[]),
    ("auth", &["rights", "telemetry"]),
    ("listen", &["auth", "telemetry"]),
    ("ingest", &["auth", "decode", "telemetry"]),
    ("journal", &["telemetry"]),
    ("limit", &["remote", "telemetry"]),
    ("persist", &["remote", "rights", "telemetry"]),
    // The feed is read from the store that `app` hands it.
    ("export", &["persist", "remote", "rights", "telemetry"]),
    ("metrics", &["telemetry"]),
    ("notify", &["remote", "telemetry"]),
    // Usage is read from the store that `app` hands it.
    ("api", &["assemble", "auth", "limit", "persist", "telemetry"]),
    ("remote", &[]),
    ("rights", &[]),
    // Its section, which `config` declares.
    ("telemetry", &["config", "remote"]),
];
const EVERYTHING: &[&str] = &[
    "api",
    "assemble",
    "auth",
    "config",
    "export",
    "ingest",
    "journal",
    "limit",
    "listen",
    "metrics",
    "notify",
    "persist",
    "price",
    "remote",
    "rights",
    "telemetry",
];

const MOST_LINES: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a folder of the project, by their path within it, without what is made or hidden.
fn files(folder: &str) -> Vec<PathBuf> {
    const MADE: [&str; 9] = [
        "target",
        "tacho-data",
        "node_modules",
        "corpus",
        "artifacts",
        "coverage",
        "__pycache__",
        "venv",
        "proptest-regressions",
    ];
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with('.') || MADE.contains(&name.as_str()) {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The lines of a source file that are not tests: what stands behind `#[cfg(test)]` at the margin is left out to the end of its
/// item.
fn production_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text.lines();
    while let Some(line) = rest.next() {
        if line != "#[cfg(test)]" {
            lines.push(line);
            continue;
        }
        let item = rest.find(|line| !line.starts_with("#["));
        if !item.is_some_and(|line| line.ends_with(';') || line.ends_with('}')) {
            rest.find(|line| *line == "}");
        }
    }
    lines
}

/// Production lines of every source file, by path; a `tests` file or folder is a test as a whole.
fn sources() -> BTreeMap<PathBuf, String> {
    let is_test = |path: &Path| path.with_extension("").components().any(|part| part.as_os_str() == "tests");
    let paths = ["core/src", "src"].into_iter().flat_map(files);
    let paths = paths.filter(|path| path.extension().is_some_and(|end| end == "rs") && !is_test(path));
    paths.map(|path| (path.clone(), production_lines(&read(&path)).join("\n"))).collect()
}

fn assert_none(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
}

#[test]
fn tests_are_cut_out_and_nothing_else() {
    let text = "a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\nmod more {\n    x\n}\nc";
    assert_eq!(production_lines(text), ["a", "b", "c"]);
}

#[test]
fn no_file_is_too_long() {
    let long = sources().into_iter().map(|(path, text)| (path, text.lines().count()));
    let faults: Vec<String> = long
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(path, lines)| format!("{}: {lines} production lines", path.display()))
        .collect();
    assert_none(&faults, "a file has at most 500 production lines");
}

/// The rooms that this text names after `crate::`; empty for a list in braces, which would hide them.
fn rooms_used(text: &str) -> BTreeSet<&str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let named = code.flat_map(|line| line.split("crate::").skip(1));
    named.map(|after| after.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or(after)).collect()
}

#[test]
fn rooms_use_only_what_the_table_allows() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let room = path.strip_prefix("core").unwrap_or(&path).components().nth(1).unwrap().as_os_str();
        let room = room.to_str().unwrap().trim_end_matches(".rs").to_owned();
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else {
            faults.push(format!("{}: the table has no room `{room}`", path.display()));
            continue;
        };
        let text = text.replace("tacho::", "crate::").replace("tacho_core::", "crate::");
        for used in rooms_used(&text) {
            if used != room && used != "domain" && !allowed.contains(&used) {
                faults.push(format!("{}: `{room}` uses `{used}`", path.display()));
            }
        }
    }
    assert_none(&faults, "rooms use only domain and what the table names");
}

/// The names of the migrations of one database, which begin with 0001 and have no gaps.
fn migrations(database: &str) -> Vec<String> {
    let names = files(&format!("migrations/{database}"));
    let names: Vec<String> = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    for (place, name) in names.iter().enumerate() {
        assert!(name.starts_with(&format!("{:04}_", place + 1)), "{database}: {name} is not number {}", place + 1);
    }
    names
}

/// The tables of a database with their columns in order; later migrations may add columns. Types differ by nature.
fn tables(database: &str) -> BTreeMap<String, Vec<String>> {
    const NO_COLUMN: [&str; 5] = ["PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "CONSTRAINT"];
    let mut tables = BTreeMap::<String, Vec<String>>::new();
    for name in migrations(database) {
        let mut open = None;
        for line in read(format!("migrations/{database}/{name}")).lines() {
            let words: Vec<&str> = line.split([' ', '(', ',', ';']).filter(|word| !word.is_empty()).collect();
            match (words.as_slice(), &open) {
                (["CREATE", "TABLE", table, ..], _) => open = Some((*table).to_owned()),
                (["ALTER", "TABLE", table, "ADD", "COLUMN", column, ..], _) => {
                    tables.entry((*table).to_owned()).or_default().push((*column).to_owned());
                }
                // In SQLite a table of one column and one row.
                (["CREATE", "SEQUENCE", sequence, ..], _) => {
                    tables.entry((*sequence).to_owned()).or_default().push("last_value".to_owned());
                }
                _ if line.starts_with(')') => open = None,
                ([column, ..], Some(table)) if !NO_COLUMN.contains(column) && *column != "--" => {
                    tables.entry(table.clone()).or_default().push((*column).to_owned());
                }
                _ => {}
            }
        }
    }
    tables
}

#[test]
fn migrations_match_in_both_databases() {
    assert_eq!(migrations("postgres"), migrations("sqlite"));
    let (postgres, sqlite) = (tables("postgres"), tables("sqlite"));
    assert!(postgres["usage_records"].contains(&"user_id".to_owned()), "the reading of migrations is broken");
    assert_eq!(postgres, sqlite);
}

#[test]
fn no_foreign_words() {
    // Put together here, so that this file passes its own rule.
    let host = |name: &str, end: &str| [name, end].join(".");
    let forbidden = [
        ["..", "shared"].join("/"),
        ["", "work", ""].join("/"),
        ["", "home", ""].join("/"),
        ["helper", "session"].join(" "),
        ["TO", "DO"].join(""),
        ["FIX", "ME"].join(""),
        host("crates", "io"),
        host("pypi", "org"),
        host("npmjs", "org"),
        host("npmjs", "com"),
    ];
    let mut faults = Vec::new();
    for path in files("") {
        // Lock files are written by the package managers, with their registries in them.
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".lock") || name == "package-lock.json" {
            continue;
        }
        let content = fs::read(root().join(&path)).unwrap();
        let text = String::from_utf8_lossy(&content);
        faults.extend(
            forbidden.iter().filter(|word| text.contains(*word)).map(|word| format!("{}: {word}", path.display())),
        );
    }
    assert_none(&faults, "no file names machines, registries or work to be done");
}

/// The first block of TOML in the README.
fn readme_config() -> String {
    let readme = read("README.md");
    let block = readme.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```")).expect("a block of TOML");
    block.0.to_owned()
}

fn load(text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tacho.toml");
    fs::write(&path, text).unwrap();
    Config::load(Some(&path), std::iter::empty()).unwrap_or_else(|error| panic!("{error:?}\n{text}"))
}

#[test]
fn the_readme_shows_the_defaults() {
    assert_eq!(format!("{:#?}", load(&readme_config())), format!("{:#?}", Config::default()));
}

#[test]
fn what_the_readme_has_commented_out_is_valid() {
    let block = readme_config();
    let lines: Vec<&str> =
        block.lines().map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line)).collect();
    assert_ne!(lines.join("\n"), block.trim_end());
    load(&lines.join("\n"));
}

/// `tacho_…` in quotes.
fn metric_names(text: &str) -> Vec<String> {
    let names = text.split('"').filter(|name| name.starts_with("tacho_"));
    let is_name =
        |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    names.filter(is_name).map(str::to_owned).collect()
}

#[test]
fn every_metric_is_named_once_and_well() {
    let sources = sources();
    let mut names: Vec<String> = sources.values().flat_map(|text| metric_names(text)).collect();
    assert!(names.contains(&"tacho_tokens_total".to_owned()), "the reading of metrics is broken");
    names.sort();
    let twice: Vec<String> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect();
    assert_none(&twice, "a metric is named in one place");
    let text = tacho::metrics::Metrics::default().exposition(tacho::metrics::Format::Text);
    let mut faults = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        if !names.iter().any(|known| known == name) {
            faults.push(format!("{name} is not found in the sources"));
        }
        if (kind == "counter") != name.ends_with("_total") {
            faults.push(format!("{name} is a {kind}"));
        }
    }
    assert_none(&faults, "counters, and they alone, end in _total");
}

/// The rows of the glossary, each with what stands between backticks in its columns for SQL, metrics and configuration.
fn glossary() -> Vec<(String, [Vec<String>; 3])> {
    let text = read("docs/glossary.md");
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(2);
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 6, "{row}");
        (cells[0].trim().to_owned(), [3, 4, 5].map(|column: usize| names(cells[column])))
    })
    .collect()
}

/// `name` or `name{label}` or `name{label="value"}`, as docs/metrics.md, which is made from the catalogue, has it.
fn is_metric(documented: &str, metric: &str) -> bool {
    let (name, label) = metric.trim_end_matches('}').split_once('{').unwrap_or((metric, ""));
    let (label, value) = label.split_once('=').unwrap_or((label, ""));
    let family = documented.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
    let has = |line: &str| {
        let values = line.split(&format!("{label}: ")).nth(1).and_then(|rest| rest.split([';', '.']).next());
        let values = values.unwrap_or_default();
        (label.is_empty() || line.contains(&format!("`{label}`")))
            && (value.is_empty() || values.split(", ").any(|known| known == value.trim_matches('"')))
    };
    family.is_some_and(has)
}

/// Whether the configuration has this table, list of tables or key; whatever its value must be.
fn is_key(path: &str) -> bool {
    let mut parts: Vec<&str> = path.split('.').collect();
    let key = if parts.len() > 1 { parts.pop() } else { None };
    let table = match parts.join(".").as_str() {
        "limit" => "[[limit]]".to_owned(),
        table => format!("[{table}]"),
    };
    let text = format!("{table}\n{}", key.map(|key| format!("{key} = [[[]]]\n")).unwrap_or_default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tacho.toml");
    fs::write(&file, text).unwrap();
    match Config::load(Some(&file), std::iter::empty()) {
        Ok(_) => true,
        Err(error) => !format!("{error:?}").contains("unknown field"),
    }
}

#[test]
fn the_glossary_is_short_and_names_what_there_is() {
    let (tables, documented) = (tables("sqlite"), read("docs/metrics.md"));
    let is_stored = |name: &str| match name.split_once('.') {
        None => tables.contains_key(name),
        Some((table, column)) => tables.get(table).is_some_and(|columns| columns.iter().any(|known| known == column)),
    };
    assert!(is_stored("usage_records.user_id") && !is_stored("usage_records.user") && !is_stored("users"));
    assert!(is_metric(&documented, "tacho_tokens_total{type=\"input\"}") && !is_metric(&documented, "tacho_tokens"));
    assert!(!is_metric(&documented, "tacho_tokens_total{type=\"in\"}") && !is_metric(&documented, "tacho_up{type}"));
    assert!(is_key("limits.backend") && !is_key("limits.store") && !is_key("rates") && !is_key("limit.store"));
    let words = glossary();
    assert!((20..=30).contains(&words.len()), "{} words", words.len());
    let mut faults = Vec::new();
    for (word, [sql, metrics, keys]) in &words {
        let names = sql.iter().map(|name| (name, is_stored(name)));
        let names = names.chain(metrics.iter().map(|name| (name, is_metric(&documented, name))));
        let names = names.chain(keys.iter().map(|name| (name, is_key(name))));
        faults.extend(names.filter(|(_, exists)| !exists).map(|(name, _)| format!("{word}: there is no `{name}`")));
    }
    assert_none(&faults, "a name in the glossary exists");
}
