//! What the guard says to requests: its answer in a word.

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::*;
use tacho_core::domain::time::Timestamp;

const NOW: Timestamp = Timestamp(1_790_000_000_000_000_000);

/// A data folder with a token of each role, and one that has expired.
struct Tokens {
    folder: tempfile::TempDir,
    config: AuthConfig,
    shown: Vec<(Role, Token)>,
    expired: Token,
}

impl Tokens {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = AuthConfig::default();
        let file = TokensFile(config.tokens_path(folder.path()));
        let add = |name: &str, role, expires_at| {
            let token = Token::new(role).unwrap();
            let entry = Entry { name: name.into(), role, sha256: token.hash(), created_at: NOW, expires_at };
            file.add(entry).unwrap();
            token
        };
        let roles = [Role::Ingest, Role::Check, Role::Read, Role::Admin];
        let shown = roles.map(|role| (role, add(role.label(), role, None))).into();
        let expired = add("old", Role::Admin, Some(NOW));
        Self { folder, config, shown, expired }
    }

    fn rules(&self) -> Rules {
        Rules::read(&self.config, self.folder.path()).unwrap()
    }

    fn bearer(&self, role: Role) -> String {
        let (_, token) = self.shown.iter().find(|(of, _)| *of == role).unwrap();
        format!("Bearer {}", token.reveal())
    }
}

/// Where a request comes from.
#[derive(Clone, Copy)]
struct Place {
    over_loopback: bool,
    lacks_certificate: bool,
}

/// Who it was or why not.
fn ask(rules: &Rules, need: Need, place: Place, headers: &[(&'static str, &str)]) -> String {
    let headers =
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
    let headers: HeaderMap = headers.collect();
    let Place { over_loopback, lacks_certificate } = place;
    let connection = Connection { listener: "http", over_loopback, lacks_certificate, was_let_in: Default::default() };
    match rules.look(need, &connection, &Uri::from_static("/x"), &headers, NOW) {
        Ok(None) => "free".to_owned(),
        Ok(Some(caller)) => caller.name.to_string(),
        Err(why) => why.label().to_owned(),
    }
}

const NEAR: Place = Place { over_loopback: true, lacks_certificate: false };
const FAR: Place = Place { over_loopback: false, ..NEAR };
const READ: Need = Need::Role(Role::Read);

#[test]
fn what_a_role_needs_depends_on_where_it_is_asked() {
    let tokens = Tokens::new();
    let rules = tokens.rules();
    let needs = [
        Need::Nothing,
        Need::Metrics,
        Need::Role(Role::Ingest),
        Need::Role(Role::Check),
        Need::Role(Role::Read),
        Need::Role(Role::Admin),
    ];
    let row = |connection, headers: &[(&'static str, &str)]| {
        needs.map(|need| ask(&rules, need, connection, headers)).join(" ")
    };
    assert_eq!(row(NEAR, &[]), "free free free free no_token no_token");
    assert_eq!(row(FAR, &[]), "free no_token no_token no_token no_token no_token");
    let with = |role| row(FAR, &[("authorization", &tokens.bearer(role))]);
    assert_eq!(with(Role::Ingest), "free wrong_role ingest wrong_role wrong_role wrong_role");
    assert_eq!(with(Role::Check), "free wrong_role wrong_role check wrong_role wrong_role");
    assert_eq!(with(Role::Read), "free read wrong_role wrong_role read wrong_role");
    assert_eq!(with(Role::Admin), "free admin admin admin admin admin");
    let expired = format!("Bearer {}", tokens.expired.reveal());
    assert_eq!(row(FAR, &[("authorization", &expired)]).matches("expired_token").count(), 5);
    let without = Place { lacks_certificate: true, ..NEAR };
    assert_eq!(row(without, &[]).matches("no_certificate").count(), 5);
}

#[test]
fn a_token_is_shown_as_a_bearer() {
    let tokens = Tokens::new();
    let rules = tokens.rules();
    let token = tokens.bearer(Role::Read);
    let bare = token.strip_prefix("Bearer ").unwrap();
    for (shown, said) in [
        (token.clone(), "read"),
        (format!("bearer  {bare}"), "read"),
        (bare.to_owned(), "no_token"),
        (format!("Basic {bare}"), "no_token"),
        ("Bearer ".to_owned(), "wrong_token"),
        (format!("Bearer {bare}0"), "wrong_token"),
        (format!("Bearer {}", bare.to_uppercase()), "wrong_token"),
        (format!("Bearer {}", String::from(tokens.shown[2].1.hash())), "wrong_token"),
    ] {
        assert_eq!(ask(&rules, READ, NEAR, &[("authorization", &shown)]), said, "{shown}");
    }
    let made = std::fs::read_to_string(tokens.folder.path().join("admin-token")).unwrap();
    assert_eq!(ask(&rules, READ, FAR, &[("authorization", &format!("Bearer {}", made.trim()))]), "admin-token");
}

#[test]
fn a_browser_gets_nothing_even_with_a_token() {
    let tokens = Tokens::new();
    let (rules, token) = (tokens.rules(), tokens.bearer(Role::Admin));
    for (header, said) in [
        (("host", "evil.example"), "host"),
        (("origin", "http://127.0.0.1:9464"), "cross_site"),
        (("origin", "null"), "cross_site"),
        (("sec-fetch-site", "cross-site"), "cross_site"),
        (("sec-fetch-site", "same-site"), "cross_site"),
        (("sec-fetch-site", "none"), "admin"),
        (("sec-fetch-site", "same-origin"), "admin"),
    ] {
        assert_eq!(ask(&rules, READ, NEAR, &[header, ("authorization", &token)]), said, "{header:?}");
    }
}

#[test]
fn a_token_may_ask_only_so_often() {
    let mut tokens = Tokens::new();
    tokens.config.requests_per_second = 3;
    let rules = tokens.rules();
    let (read, admin) = (tokens.bearer(Role::Read), tokens.bearer(Role::Admin));
    let said: Vec<String> = (0..5).map(|_| ask(&rules, READ, NEAR, &[("authorization", &read)])).collect();
    assert_eq!(said, ["read", "read", "read", "too_many", "too_many"]);
    assert_eq!(ask(&rules, READ, NEAR, &[("authorization", &admin)]), "admin");
}

#[test]
fn a_revoked_token_is_refused_and_insecure_takes_every_address_for_loopback() {
    let mut tokens = Tokens::new();
    assert!(tokens.rules().may_leave_loopback());
    let file = TokensFile(tokens.config.tokens_path(tokens.folder.path()));
    let read = tokens.bearer(Role::Read);
    let id = tokens.shown[2].1.hash().id();
    assert_eq!(file.remove(&id).unwrap().len(), 1);
    assert!(file.remove(&id).unwrap().is_empty());
    assert_eq!(ask(&tokens.rules(), READ, FAR, &[("authorization", &read)]), "wrong_token");
    for name in ["ingest", "check", "admin", "old"] {
        assert_eq!(file.remove(name).unwrap().len(), 1);
    }
    assert!(!tokens.rules().may_leave_loopback());
    tokens.config.insecure = true;
    let rules = tokens.rules();
    assert!(rules.may_leave_loopback());
    assert_eq!(ask(&rules, Need::Role(Role::Ingest), FAR, &[]), "free");
    assert_eq!(ask(&rules, READ, FAR, &[]), "no_token");
}

#[test]
fn files_are_private_and_hold_no_token() {
    use std::os::unix::fs::PermissionsExt as _;
    let tokens = Tokens::new();
    drop(tokens.rules());
    for name in ["tokens.toml", "admin-token"] {
        let about = std::fs::metadata(tokens.folder.path().join(name)).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600, "{name}");
    }
    let written = std::fs::read_to_string(tokens.folder.path().join("tokens.toml")).unwrap();
    for (_, token) in &tokens.shown {
        assert!(!written.contains(token.reveal()) && written.contains(&String::from(token.hash())));
    }
    // One that somebody wrote by hand is named by its place alone.
    std::fs::write(tokens.folder.path().join("tokens.toml"), format!("\n[[token]]\nsecret = '{}'\n", written.len()))
        .unwrap();
    let error = Rules::read(&tokens.config, tokens.folder.path()).err().unwrap().to_string();
    assert!(error.contains("tokens.toml, line 3"), "{error}");
}
