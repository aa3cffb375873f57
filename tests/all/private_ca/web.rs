//! Alertmanager and Elasticsearch, and files that hold no certificates.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Certificates, LIMIT};
use crate::support::alertmanager::Alertmanager;
use crate::support::client::call;
use crate::support::fake_search::{FakeSearch, Product};
use crate::support::load::Shape;
use crate::support::tacho_process::Tacho;
use crate::support::tls_front::TlsFront;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn alertmanagers_are_known_by_their_certificates() {
    let certificates = Certificates::new();
    let good = Alertmanager::tls(&certificates.good(), &certificates.trusted);
    let refused: Vec<_> = certificates
        .refused()
        .map(|(_, issued, reason)| (Alertmanager::tls(&issued, &certificates.trusted), reason))
        .into_iter()
        .collect();
    let plain = Alertmanager::start();
    let mut urls: Vec<String> = refused.iter().map(|(manager, _)| manager.url()).collect();
    urls.extend([good.url(), plain.url().replace("http:", "https:")]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tacho.toml"), LIMIT).unwrap();
    let ca = certificates.ca_file().display().to_string();
    let tacho = Tacho::start(
        folder.path(),
        &format!("sqlite:{}", folder.path().join("tacho.db").display()),
        &[
            ("TACHO_ASSEMBLE__QUIET", "200ms"),
            ("TACHO_NOTIFY__RESEND_INTERVAL", "1s"),
            ("TACHO_NOTIFY__ALERTMANAGER_URLS", &json!(urls).to_string()),
            ("TACHO_NOTIFY__CA_FILE", &ca),
        ],
    );
    let shape = Shape { seed: 3, traces: 1, calls: 1, users: 1, split: false, began: tacho::app::now().0 };
    assert_eq!(call(&shape.unit(1).bodies[0]).send(tacho.grpc).await, "Ok");
    let begun = Instant::now();
    let says = |url: &str, reason: &str| {
        let place = url.split("//").nth(1).unwrap();
        tacho
            .log()
            .lines()
            .any(|line| line.contains("do not get through") && line.contains(place) && line.contains(reason))
    };
    while good.alerts(&[]).is_empty()
        || !refused.iter().all(|(manager, reason)| says(&manager.url(), reason))
        || !says(&plain.url(), "does not speak TLS")
    {
        assert!(begun.elapsed() < PATIENCE, "{:?} {}", good.alerts(&[]), tacho.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tacho.stop();
}

fn tacho(folder: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tacho"));
    command.args(arguments).current_dir(folder).envs(settings.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn elasticsearch_is_known_by_its_certificate() {
    let certificates = Certificates::new();
    let fake = FakeSearch::start(Product::Elasticsearch9).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = certificates.ca_file().display().to_string();
    let set_up = |url: &str| {
        let urls = json!([url]).to_string();
        let settings = [("TACHO_EXPORT__ELASTICSEARCH__URLS", &*urls), ("TACHO_EXPORT__ELASTICSEARCH__CA_FILE", &ca)];
        let output = tacho(folder.path(), &["setup", "elasticsearch"], &settings);
        (output.status.code(), said(&output))
    };
    for (which, issued, reason) in certificates.refused() {
        let front = TlsFront::before(fake.address(), issued.server_config(None)).await;
        let (code, said) = set_up(&front.url("localhost"));
        assert!(code == Some(1) && said.contains(reason), "{which}: {code:?} {said}");
    }
    let (code, said) = set_up(&fake.url().replace("http:", "https:"));
    assert!(code == Some(1) && said.contains("does not speak TLS"), "{code:?} {said}");
    // Plain text goes not with a ca_file.
    let (code, said) = set_up(&fake.url());
    assert!(code == Some(1) && said.contains("export.elasticsearch.ca_file"), "{code:?} {said}");
    assert!(fake.templates().is_empty());
    let front = TlsFront::before(fake.address(), certificates.good().server_config(None)).await;
    for name in ["localhost", "127.0.0.1"] {
        let (code, said) = set_up(&front.url(name));
        assert!(code == Some(0), "{said}");
    }
    assert!(!fake.templates().is_empty());
}

/// Settings, and what the error says.
type Case<'a> = (Vec<(&'a str, &'a str)>, [&'a str; 2]);

/// A file that is missing or wrong stops the start, with its key and its name.
#[test]
fn files_that_hold_no_certificates_stop_the_start() {
    let certificates = Certificates::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let own = certificates.trusted.client("tacho");
    let files = own.write(folder.path(), "own");
    let [certificate, key] = [files.certificate, files.key].map(|path| path.display().to_string());
    let other = certificates.trusted.client("tacho").write(folder.path(), "other").key.display().to_string();
    std::fs::write(path("empty.pem"), "").unwrap();
    let broken = own.certificate.replacen("MII", "MIX", 1);
    std::fs::write(path("broken.pem"), &broken).unwrap();
    let ca = certificates.ca_file().display().to_string();
    let redis = [("TACHO_LIMITS__BACKEND", "redis"), ("TACHO_LIMITS__URL", "rediss://localhost:1")];
    let postgres = ("TACHO_DATABASE__URL", "postgres://tacho@localhost:1/x");
    let wide = ("TACHO_DATABASE__URL", "postgres://tacho@localhost:1/x?sslmode=prefer");
    let manager = ("TACHO_NOTIFY__ALERTMANAGER_URLS", "['https://localhost:1']");
    let plain = ("TACHO_NOTIFY__ALERTMANAGER_URLS", "['http://localhost:1']");
    let search = ("TACHO_EXPORT__ELASTICSEARCH__URLS", "['https://localhost:1']");
    let (missing, empty, broken) = (path("missing.pem"), path("empty.pem"), path("broken.pem"));
    let cases: Vec<Case<'_>> = vec![
        (vec![postgres, ("TACHO_DATABASE__CA_FILE", &missing)], ["database.ca_file", &missing]),
        (vec![postgres, ("TACHO_DATABASE__CA_FILE", &empty)], ["database.ca_file", &empty]),
        (vec![postgres, ("TACHO_DATABASE__CA_FILE", &broken)], ["database.ca_file", &broken]),
        (vec![postgres, ("TACHO_DATABASE__CA_FILE", &key)], ["database.ca_file", "holds no certificate"]),
        (vec![postgres, ("TACHO_DATABASE__CERT_FILE", &certificate)], ["database.cert_file", "key_file"]),
        (vec![postgres, ("TACHO_DATABASE__KEY_FILE", &key)], ["database.key_file", "cert_file"]),
        (
            vec![postgres, ("TACHO_DATABASE__CERT_FILE", &certificate), ("TACHO_DATABASE__KEY_FILE", &other)],
            ["database.key_file", "does not go with cert_file"],
        ),
        (vec![wide, ("TACHO_DATABASE__CA_FILE", &ca)], ["database.ca_file", "sslmode"]),
        (vec![("TACHO_DATABASE__CA_FILE", &ca)], ["database.ca_file", "SQLite"]),
        (vec![redis[0], redis[1], ("TACHO_LIMITS__CA_FILE", &missing)], ["limits.ca_file", &missing]),
        (vec![redis[0], ("TACHO_LIMITS__CA_FILE", &ca)], ["limits.ca_file", "rediss://"]),
        (vec![manager, ("TACHO_NOTIFY__CA_FILE", &empty)], ["notify.ca_file", &empty]),
        (vec![plain, ("TACHO_NOTIFY__CA_FILE", &ca)], ["notify.ca_file", "https://"]),
        (vec![search, ("TACHO_EXPORT__ELASTICSEARCH__CA_FILE", &missing)], ["export.elasticsearch.ca_file", &missing]),
    ];
    for (settings, expected) in cases {
        for verb in ["check-config", "run"] {
            let output = tacho(folder.path(), &[verb], &settings);
            let said = said(&output);
            assert!(!output.status.success(), "{verb} {settings:?}: {said}");
            assert!(expected.iter().all(|part| said.contains(part)), "{verb} {settings:?}: {said}");
        }
    }
    let right = [postgres, ("TACHO_DATABASE__CA_FILE", &ca), ("TACHO_DATABASE__CERT_FILE", &certificate)];
    let right = [&right[..], &[("TACHO_DATABASE__KEY_FILE", &key), redis[0], redis[1], ("TACHO_LIMITS__CA_FILE", &ca)]]
        .concat();
    let output = tacho(folder.path(), &["check-config"], &right);
    assert!(output.status.success(), "{}", said(&output));
}
