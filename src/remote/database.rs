//! What a database is opened with: of its URL, and of the certificates that go with it.

use std::borrow::Cow;
use std::str::FromStr as _;

use reqwest::Url;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::sqlite::SqliteConnectOptions;

use super::{Misconfigured, Target};

pub enum DatabaseOptions {
    Sqlite(Box<SqliteConnectOptions>),
    Postgres(Box<PgConnectOptions>),
}

/// What the driver knows. It would log any other with its value, and go on without.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

impl Target {
    pub fn is_sqlite(&self) -> bool {
        self.address.expose().starts_with("sqlite:")
    }

    /// What the URL says, without a look at files. Errors never repeat any part of it but the names of parameters.
    pub fn database(&self) -> Result<DatabaseOptions, Misconfigured> {
        let text = self.address.expose();
        if self.is_sqlite() {
            let options = SqliteConnectOptions::from_str(text);
            let help = "a database of SQLite is sqlite:PATH, with no parameters but mode, cache, immutable and vfs";
            return Ok(DatabaseOptions::Sqlite(Box::new(options.map_err(|_| self.problem("url", help))?)));
        }
        if !text.starts_with("postgres:") && !text.starts_with("postgresql:") {
            return Err(self.problem("url", "a database's URL begins with sqlite: or postgres://"));
        }
        let url = Url::parse(text).map_err(|error| self.problem("url", format!("is no URL: {error}")))?;
        if url.path().contains('@') {
            return Err(self.problem("url", "has an @ in its path; in a password / is written %2F, ? is %3F, # is %23"));
        }
        for (name, value) in url.query_pairs() {
            self.check_parameter(&name, &value)?;
        }
        let options = PgConnectOptions::from_str(text).map_err(|_| self.problem("url", "is no URL of Postgres"))?;
        Ok(DatabaseOptions::Postgres(Box::new(self.verified(options))))
    }

    fn check_parameter(&self, name: &str, value: &str) -> Result<(), Misconfigured> {
        if !PARAMETERS.contains(&name) && !name.starts_with("options[") {
            let is_name =
                name.len() < 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            let name = if is_name { name } else { "…" };
            return Err(self.problem("url", format!("unknown parameter {name}")));
        }
        let is_mode = ["sslmode", "ssl-mode"].contains(&name);
        if is_mode && self.files.ca_file().is_some() && value != "verify-full" {
            return Err(self.problem("ca_file", "goes only with sslmode=verify-full in the URL, or with none"));
        }
        // By itself, as the driver's error would not say which.
        let mut alone = Url::parse("postgres://host").expect("this is a URL");
        alone.query_pairs_mut().append_pair(name, value);
        let is_right = PgConnectOptions::from_str(alone.as_str()).is_ok();
        if is_right { Ok(()) } else { Err(self.problem("url", format!("parameter {name} cannot have this value"))) }
    }

    /// The driver reads the files with every connection, so that they can be replaced while it runs.
    fn verified(&self, mut options: PgConnectOptions) -> PgConnectOptions {
        if let Some(authority) = self.files.ca_file() {
            options = options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(authority);
        }
        if let Some((certificate, key)) = self.files.own_files() {
            options = options.ssl_client_cert(certificate).ssl_client_key(key);
        }
        options
    }

    /// All that can be said of it without a connection: its URL, its files.
    pub fn check_database(&self) -> Result<(), Misconfigured> {
        let options = self.database()?;
        self.files.read()?;
        if self.files.is_empty() || matches!(options, DatabaseOptions::Postgres(_)) {
            return Ok(());
        }
        Err(self.problem("ca_file", "is for Postgres: SQLite needs no certificates"))
    }

    fn problem(&self, key: &'static str, problem: impl Into<Cow<'static, str>>) -> Misconfigured {
        self.files.problem(key, problem.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(url: &str) -> String {
        let files = super::super::CertificateFiles { section: "database", ..Default::default() };
        Target { address: url.into(), files }
            .check_database()
            .map_or_else(|error| error.to_string(), |()| "-".to_owned())
    }

    #[test]
    fn a_url_is_refused_without_being_repeated() {
        let check = |url: &str, said: &str| assert_eq!(problem(url), said, "{url}");
        check("postgres://u:hunter-two@h/db?sslmode=require&application_name=x&options[a]=b", "-");
        check("sqlite:/x/tacho.db?mode=ro", "-");
        let begin = "database.url: a database's URL begins with sqlite: or postgres://";
        check("host=h password=hunter-two", begin);
        check("hunter-two", begin);
        check("mysql://u:hunter-two@h", begin);
        check("postgres://u:hunter-two@h:port", "database.url: is no URL: invalid port number");
        check("postgres://h?pasword=hunter-two", "database.url: unknown parameter pasword");
        check("postgres://h?hunter%20two=1", "database.url: unknown parameter …");
        check("postgres://h?sslmode=hunter-two", "database.url: parameter sslmode cannot have this value");
        check("postgres://h?port=hunter-two", "database.url: parameter port cannot have this value");
        let sqlite =
            "database.url: a database of SQLite is sqlite:PATH, with no parameters but mode, cache, immutable and vfs";
        check("sqlite:/x?mode=hunter-two", sqlite);
    }
}
