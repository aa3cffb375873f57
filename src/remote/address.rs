//! Where a server is. Its text may hold a password, so it is shown as scheme, host and port alone.

use std::fmt;

use reqwest::Url;
use serde::Deserialize;

use super::{CertificateFiles, hide};

/// One URL, or several of a cluster parted by commas.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Address(String);

/// A server with what is needed to call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: Address,
    pub files: CertificateFiles,
}

/// What may follow the `?` of a URL and hold a secret.
const SECRET_PARAMETERS: [&str; 2] = ["password", "sslpassword"];

impl Address {
    /// The whole text, for the library that connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').map(str::trim)
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        hide_secrets(&text);
        // A comma may as well stand in a password.
        text.split(',').map(str::trim).filter(|part| *part != text).for_each(hide_secrets);
        Self(text)
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl<T: Into<Address>> From<T> for Target {
    /// With the certificates that the system trusts.
    fn from(address: T) -> Self {
        Self { address: address.into(), files: CertificateFiles::default() }
    }
}

impl From<&String> for Address {
    fn from(text: &String) -> Self {
        Self::from(text.clone())
    }
}

fn hide_secrets(part: &str) {
    let Ok(url) = Url::parse(part) else {
        // Keywords and values.
        return part.split_whitespace().filter_map(|word| word.strip_prefix("password=")).for_each(hide);
    };
    // What is shown anyway is no secret, and hiding it would make logs unreadable: `tacho:tacho@…`.
    let is_open = |password: &str| {
        [url.username(), url.host_str().unwrap_or_default(), url.path().trim_matches('/')].contains(&password)
    };
    if let Some(password) = url.password().filter(|password| !password.is_empty() && !is_open(password)) {
        hide(password);
        // Behind the second `:` and before the last `@`: as it was written, before the parser has encoded it.
        let written = part.rsplit_once('@').and_then(|(before, _)| before.splitn(3, ':').nth(2));
        written.into_iter().for_each(hide);
    }
    let secrets = url.query_pairs().filter(|(key, value)| SECRET_PARAMETERS.contains(&&**key) && !is_open(value));
    secrets.for_each(|(_, value)| hide(&value));
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Option<Vec<String>> = self.parts().map(shown).collect();
        f.write_str(parts.map(|parts| parts.join(",")).as_deref().unwrap_or("***"))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `None` where it is not sure what is what.
fn shown(part: &str) -> Option<String> {
    let url = Url::parse(part).ok()?;
    if url.scheme() == "sqlite" {
        return Some(part.split('?').next().unwrap_or_default().to_owned());
    }
    // A password with a `/` in it ends up as port and path.
    let host = url.host_str().filter(|_| !url.path().contains('@'))?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{host}{port}", url.scheme()))
}

#[cfg(test)]
mod tests {
    use super::super::redact;
    use super::*;

    #[test]
    fn a_password_is_hidden_and_what_is_no_secret_stays() {
        let check = |url: &str, text: &str, shown: &str| {
            drop(Address::from(url));
            assert_eq!(redact(text), shown, "{url}");
        };
        check("postgres://u:one,comma@h/db", "<one,comma>", "<***>");
        check("redis://:first-one@a,redis://:second-one@b", "first-one second-one", "*** ***");
        check("postgres://h/db?user=u&password=in%20query", "<in query> <in%20query>", "<***> <***>");
        check("host=h password=in-keywords", "<in-keywords>", "<***>");
        check("postgres://tacho:tacho@tacho/tacho?password=tacho", "tacho::app", "tacho::app");
    }

    #[test]
    fn an_address_is_shown_without_what_may_be_a_secret() {
        let check = |text: &str, shown: &str| assert_eq!(Address::from(text).to_string(), shown, "{text}");
        check("redis://127.0.0.1:6379", "redis://127.0.0.1:6379");
        check("redis://:hunter-two@a:1/0, rediss://u:hunter-two@b", "redis://a:1,rediss://b");
        check("postgres://u:hunter-two@h/db?password=hunter-two", "postgres://h");
        check("postgres://u:12/hunter-two@h/db", "***");
        check("redis://:hunter,two@h", "***");
        check("host=h password=hunter-two", "***");
        check("hunter-two", "***");
        check("sqlite:/var/lib/tacho.db?mode=ro", "sqlite:/var/lib/tacho.db");
    }
}
