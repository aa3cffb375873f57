//! The guard itself: what it knows, and what it says to one request.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, Uri, header};
use prometheus::IntCounterVec;

use super::file::{BadTokens, Entry, TokensFile, admin_token};
use super::{AuthConfig, Refused, Role, TokenHash, hosts};
use tacho_core::domain::time::Timestamp;

/// What a request must bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing, whatever the address: it tells nothing but that Tacho is there.
    Nothing,
    /// Nothing on a loopback address, elsewhere the role `read`.
    Metrics,
    Role(Role),
}

/// How a request reached us; an extension of each.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Name of the listener; metric label.
    pub listener: &'static str,
    /// It came to a loopback address, so from this machine.
    pub over_loopback: bool,
    /// A certificate is wanted, and its client has shown none.
    pub lacks_certificate: bool,
    /// Whether a role was granted to a request of it. A stranger's connection makes room for others first.
    pub was_let_in: Arc<AtomicBool>,
}

/// Whose token a request came with; an extension of those that needed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// As it stands in the tokens file.
    pub name: Arc<str>,
    /// Names the token; tokens may share a name.
    pub token: Arc<str>,
}

/// Looks at every request on every listener.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    rules: RwLock<Arc<Rules>>,
    /// By listener and reason.
    refused: IntCounterVec,
    now: fn() -> Timestamp,
}

/// What is in force.
pub struct Rules {
    config: AuthConfig,
    free: Vec<Role>,
    known: Vec<Arc<Known>>,
    /// How many tokens are in the file.
    handed_out: usize,
}

struct Known {
    hash: TokenHash,
    role: Role,
    expires_at: Option<Timestamp>,
    caller: Caller,
    rate: DefaultDirectRateLimiter,
}

impl Rules {
    /// Reads the tokens; the first time it makes the one that each data folder has.
    pub fn read(config: &AuthConfig, data_dir: &Path) -> Result<Self, BadTokens> {
        let admin = admin_token(data_dir)?;
        let entries = TokensFile(config.tokens_path(data_dir)).read()?;
        let made = Known::new("admin-token".into(), Role::Admin, admin.hash(), None, config);
        let handed_out = entries.len();
        let known = entries.into_iter().map(|entry| Known::of(entry, config)).chain([made]).map(Arc::new).collect();
        let free = config.loopback.iter().map(|free| free.role()).collect();
        Ok(Self { config: config.clone(), free, known, handed_out })
    }

    /// Whether a listener beyond loopback may be served.
    pub fn may_leave_loopback(&self) -> bool {
        self.config.insecure || self.handed_out > 0
    }

    pub fn is_insecure(&self) -> bool {
        self.config.insecure
    }

    /// Compares with all of them, so that the time it takes tells nothing.
    fn find(&self, shown: &[u8]) -> Option<&Arc<Known>> {
        let hash = TokenHash::of(shown);
        self.known.iter().fold(None, |found, known| if known.hash == hash { Some(known) } else { found })
    }
}

impl Known {
    fn of(entry: Entry, config: &AuthConfig) -> Self {
        Self::new(entry.name, entry.role, entry.sha256, entry.expires_at, config)
    }

    fn new(name: String, role: Role, hash: TokenHash, expires_at: Option<Timestamp>, config: &AuthConfig) -> Self {
        let quota = Quota::per_second(NonZeroU32::new(config.requests_per_second).unwrap_or(NonZeroU32::MIN));
        let caller = Caller { name: name.into(), token: hash.id().into() };
        Self { hash, role, expires_at, caller, rate: RateLimiter::direct(quota) }
    }
}

impl Guard {
    /// `refused`: by listener and reason.
    pub fn new(rules: Rules, refused: IntCounterVec, now: fn() -> Timestamp) -> Self {
        Self(Arc::new(Inner { rules: RwLock::new(Arc::new(rules)), refused, now }))
    }

    pub fn replace(&self, rules: Rules) {
        *self.0.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.0.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whose request it is, if that had to be known. A refusal is counted and said.
    pub(super) fn look(
        &self,
        need: Need,
        connection: &Connection,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Option<Caller>, Refused> {
        let looked = self.rules().look(need, connection, uri, headers, (self.0.now)());
        if looked.is_ok() && need.role().is_some() {
            connection.was_let_in.store(true, Ordering::Relaxed);
        }
        if let Err(why) = looked {
            self.0.refused.with_label_values(&[connection.listener, why.label()]).inc();
            tracing::debug!(listener = connection.listener, reason = why.label(), "request refused");
        }
        looked
    }
}

impl Rules {
    pub(super) fn look(
        &self,
        need: Need,
        connection: &Connection,
        uri: &Uri,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Option<Caller>, Refused> {
        if !hosts::is_ours(uri, headers, &self.config.hosts) {
            return Err(Refused::Host);
        }
        if is_cross_site(headers) {
            return Err(Refused::CrossSite);
        }
        let Some(role) = need.role() else { return Ok(None) };
        if connection.lacks_certificate {
            return Err(Refused::Certificate);
        }
        let is_near = connection.over_loopback || self.config.insecure;
        if is_near && (need == Need::Metrics || self.free.contains(&role)) {
            return Ok(None);
        }
        let known = self.find(bearer(headers).ok_or(Refused::NoToken(role))?).ok_or(Refused::WrongToken)?;
        if known.expires_at.is_some_and(|end| end <= now) {
            return Err(Refused::ExpiredToken);
        }
        if !known.role.includes(role) {
            return Err(Refused::WrongRole { has: known.role, needs: role });
        }
        known.rate.check().map_err(|_| Refused::TooMany)?;
        Ok(Some(known.caller.clone()))
    }
}

/// A browser says so of what a page does. Who types the address says `none`.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let is_other = |site: &[u8]| !(site.eq_ignore_ascii_case(b"none") || site.eq_ignore_ascii_case(b"same-origin"));
    headers.contains_key(header::ORIGIN) || headers.get("sec-fetch-site").is_some_and(|site| is_other(site.as_bytes()))
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}
