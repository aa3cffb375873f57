//! The sections `[limits]` and `[[limit]]`: read, checked, made into rules. A limit that cannot be held to is refused here.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use governor::Quota as Bucket;
use serde::Deserialize;
use serde::de::Error;

use super::amount::{Amount, Decimal, Dollars, Meter};
use super::redis;
use super::rule::{
    Action, Dimension, Kind, Match, Mode, OnStoreError, Overshoot, Quota, QuotaAnchor, Rate, Rule, Window, rule_id,
};
use super::store::StoreError;
use crate::remote::{Address, CertificateFiles, Target};
use tacho_core::domain::period::{Cycle, Zone};
use tacho_core::domain::time::Timestamp;

/// The section `[limits]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Where instances meet. Memory is for one instance alone and forgets rates at a restart.
    pub backend: Backend,
    /// Of Redis; several of a cluster are parted by commas.
    #[serde(deserialize_with = "redis_url")]
    pub url: Address,
    /// Of a private certificate authority, PEM: Redis must show a certificate of it for its name.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, for a Redis that asks for one.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// How long a decision waits for the store before it goes on without. Unset: 50 ms of Redis, a second of a database.
    #[serde(with = "humantime_serde")]
    pub timeout: Option<Duration>,
    /// How long a hold waits for the spans of its request.
    #[serde(with = "humantime_serde")]
    pub hold_ttl: Duration,
    /// How many instances there will be at least: a bound holds also while they are joining.
    pub expected_instances: u32,
    /// Most limit states kept in memory.
    pub max_subjects: usize,
    /// What is reckoned for a request that says nothing, until requests like it were seen.
    pub estimate: EstimateConfig,
    /// The form of a refusal where the client does not ask for one.
    pub refusal_format: RefusalForm,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            backend: Backend::Database,
            url: "redis://127.0.0.1:6379".into(),
            ca_file: None,
            cert_file: None,
            key_file: None,
            timeout: None,
            // As long as calls wait for their request.
            hold_ttl: Duration::from_secs(600),
            expected_instances: 1,
            max_subjects: 1_000_000,
            estimate: EstimateConfig::default(),
            refusal_format: RefusalForm::Problem,
        }
    }
}

/// Refused where it stands in the file, if it is none.
fn redis_url<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    let address = Address::deserialize(deserializer)?;
    redis::addresses(&address).map_err(D::Error::custom)?;
    Ok(address)
}

impl LimitsConfig {
    /// The Redis that is configured.
    pub fn redis(&self) -> Target {
        let (ca_file, cert_file, key_file) = (self.ca_file.clone(), self.cert_file.clone(), self.key_file.clone());
        let files = CertificateFiles { section: "limits", ca_file, cert_file, key_file };
        Target { address: self.url.clone(), files }
    }

    /// All that can be said of the store without a connection.
    pub fn check_store(&self) -> Result<(), StoreError> {
        match self.backend {
            Backend::Redis => redis::RedisStore::check(&self.redis()),
            Backend::Database | Backend::Memory => Ok(()),
        }
    }

    pub fn patience(&self) -> Duration {
        self.timeout.unwrap_or(match self.backend {
            // Far over a round trip in one network, far under what a user notices.
            Backend::Redis => Duration::from_millis(50),
            // The writing of records holds up others for some hundred milliseconds.
            Backend::Database | Backend::Memory => Duration::from_secs(1),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    Redis,
    Database,
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefusalForm {
    /// RFC 9457.
    Problem,
    Openai,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EstimateConfig {
    pub input_tokens: u32,
    pub output_tokens: u32,
    /// US dollars for a request whose model has no price.
    pub cost: Dollars,
}

impl Default for EstimateConfig {
    fn default() -> Self {
        // A middling request; a cent, as an unknown model must not be free.
        Self { input_tokens: 1_000, output_tokens: 500, cost: Dollars(Amount(10_000_000)) }
    }
}

/// `[[limit]]`, in the order of the file; no two of a name.
#[derive(Clone, Debug, Default)]
pub struct Rules(pub Vec<Rule>);

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Rules;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("limits, each begun by [[limit]]")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Rules, A::Error> {
                let (mut rules, mut names) = (Vec::new(), BTreeSet::new());
                // The seed knows the names before it, so that a second one is complained of on its own line.
                while let Some(rule) = seq.next_element_seed(NewRule(&names))? {
                    names.insert(rule.name.to_string());
                    rules.push(rule);
                }
                Ok(Rules(rules))
            }
        }
        deserializer.deserialize_seq(Visitor)
    }
}

struct NewRule<'n>(&'n BTreeSet<String>);

impl<'de> serde::de::DeserializeSeed<'de> for NewRule<'_> {
    type Value = Rule;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Rule, D::Error> {
        struct Visitor<'n>(&'n BTreeSet<String>);
        impl<'de> serde::de::Visitor<'de> for Visitor<'_> {
            type Value = Rule;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a limit")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Rule, A::Error> {
                let raw = RawRule::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                if self.0.contains(&raw.name) {
                    return Err(A::Error::custom("a second limit of the same name"));
                }
                raw.compile().map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(Visitor(self.0))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: String,
    #[serde(default, rename = "match")]
    matches: Match,
    #[serde(default)]
    per: Vec<Dimension>,
    meter: Meter,
    rate: Option<RawRate>,
    quota: Option<RawQuota>,
    #[serde(default)]
    action: Action,
    mode: Option<Mode>,
    on_store_error: Option<OnStoreError>,
    #[serde(default)]
    warn_at: Vec<Decimal>,
    max_overshoot: Option<RawOvershoot>,
    #[serde(default, rename = "override")]
    overrides: Vec<RawOverride>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRate {
    limit: Decimal,
    #[serde(with = "humantime_serde")]
    period: Duration,
    burst: Option<Decimal>,
    #[serde(default)]
    window: Window,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQuota {
    limit: Decimal,
    period: Cycle,
    #[serde(default)]
    anchor: RawAnchor,
    timezone: Option<Zone>,
}

/// `calendar`, `anniversary`, `rolling` or a date.
#[derive(Clone, Default, Deserialize)]
#[serde(try_from = "String")]
enum RawAnchor {
    #[default]
    Calendar,
    Anniversary,
    Rolling,
    At(Timestamp),
}

impl TryFrom<String> for RawAnchor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "calendar" => Ok(Self::Calendar),
            "anniversary" => Ok(Self::Anniversary),
            "rolling" => Ok(Self::Rolling),
            date => Timestamp::parse(date)
                .map(Self::At)
                .ok_or_else(|| "expected calendar, anniversary, rolling or a date".to_owned()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOverride {
    #[serde(rename = "match")]
    matches: Match,
    limit: Decimal,
    burst: Option<Decimal>,
}

/// `"5%"` of the burst or quota, or an amount.
struct RawOvershoot(Result<u16, Decimal>);

impl<'de> Deserialize<'de> for RawOvershoot {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Number(u32),
        }
        let fault = || D::Error::custom("an overshoot is a share such as \"5%\" or an amount");
        match Form::deserialize(deserializer)? {
            Form::Number(amount) => Ok(Self(Err(Decimal(i128::from(amount) * 1_000_000_000)))),
            Form::Text(text) => match text.strip_suffix('%') {
                Some(share) => {
                    let share = Decimal::parse(share.trim()).ok_or_else(fault)?;
                    let share = Decimal(share.0 / 100).per_mille().filter(|_| share.0 % 100 == 0);
                    Ok(Self(Ok(share.ok_or_else(fault)?)))
                }
                None => Ok(Self(Err(Decimal::parse(&text).ok_or_else(fault)?))),
            },
        }
    }
}

/// Less than this is noise that saves most decisions a round trip.
const OVERSHOOT: Overshoot = Overshoot::PerMille(50);
/// Of a strict window, what the bucket holds: the rest of the limit refills.
const STRICT_SHARE: i64 = 4;
/// Governor counts cells in 32 bits; one bit less, so that sums do not overflow.
const MOST_CELLS: i128 = 2_147_483_647;
/// A cell takes at least so long: rounding it to whole nanoseconds then changes the rate by less than a thousandth.
const SHORTEST_CELL: i128 = 1_000;
const LONGEST_FILL: Duration = Duration::from_secs(100 * 365 * 86_400);

impl RawRule {
    fn compile(self) -> Result<Rule, String> {
        let kind = match (&self.rate, &self.quota) {
            (Some(rate), None) => Kind::Rate(rate.compile(self.meter)?),
            (None, Some(quota)) => quota.compile(self.meter, &self.per)?,
            _ => return Err("needs either `rate` or `quota`".to_owned()),
        };
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(is_name_byte) {
            return Err("a name has 1 to 64 letters, digits, `-`, `_` and `.`".to_owned());
        }
        let mut per = self.per.clone();
        per.sort_unstable();
        per.dedup();
        let is_quota = matches!(kind, Kind::Quota(_));
        let overrides = self.overrides.iter().map(|other| Ok((other.matches.clone(), self.overridden(other)?)));
        let overrides = overrides.collect::<Result<_, String>>()?;
        let mode = self.mode.unwrap_or(if is_quota { Mode::Lease } else { Mode::Synced });
        let schedule = match &kind {
            Kind::Rate(_) => String::new(),
            Kind::Quota(quota) => format!("{} {} {:?}", quota.cycle, quota.zone, quota.anchor),
        };
        Ok(Rule {
            id: rule_id(&self.name, &self.matches, &per, self.meter, &schedule),
            name: self.name.as_str().into(),
            matches: self.matches,
            per: per.into_iter().collect(),
            meter: self.meter,
            action: self.action,
            mode,
            // A short overshoot of a rate harms less than a dead bot; money that is gone is gone.
            on_store_error: self.on_store_error.unwrap_or(match (self.action, is_quota) {
                (Action::Shadow, _) => OnStoreError::Open,
                (_, true) => OnStoreError::Closed,
                (_, false) => OnStoreError::Local,
            }),
            warn_at: warnings(&self.warn_at)?,
            overshoot: overshoot(self.max_overshoot, self.meter)?,
            kind,
            overrides,
            is_news: true,
        })
    }

    fn overridden(&self, other: &RawOverride) -> Result<Kind, String> {
        match (&self.rate, &self.quota) {
            (Some(rate), _) => {
                let rate = RawRate { limit: other.limit, burst: other.burst, ..rate.clone() };
                Ok(Kind::Rate(rate.compile(self.meter)?))
            }
            (None, Some(_)) if other.burst.is_some() => Err("a quota has no `burst`".to_owned()),
            (None, Some(quota)) => RawQuota { limit: other.limit, ..quota.clone() }.compile(self.meter, &self.per),
            (None, None) => Err("needs either `rate` or `quota`".to_owned()),
        }
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn warnings(shares: &[Decimal]) -> Result<Vec<u16>, String> {
    let shares = shares.iter().map(|share| share.per_mille().filter(|share| *share > 0));
    let shares: Option<BTreeSet<u16>> = shares.collect();
    Ok(shares.ok_or("`warn_at` are shares over 0 and up to 1, in thousandths at the finest")?.into_iter().collect())
}

fn overshoot(raw: Option<RawOvershoot>, meter: Meter) -> Result<Overshoot, String> {
    match raw {
        None => Ok(OVERSHOOT),
        Some(RawOvershoot(Ok(share))) => Ok(Overshoot::PerMille(share)),
        Some(RawOvershoot(Err(decimal))) => amount(decimal, meter, "max_overshoot").map(Overshoot::Amount),
    }
}

fn amount(decimal: Decimal, meter: Meter, key: &str) -> Result<Amount, String> {
    decimal.amount(meter).ok_or_else(|| format!("`{key}` is no amount of {} that can be counted", meter.label()))
}

impl RawRate {
    fn compile(&self, meter: Meter) -> Result<Rate, String> {
        let limit = amount(self.limit, meter, "limit")?;
        if limit.0 == 0 {
            return Err("a rate needs a `limit` over 0; a quota may be 0".to_owned());
        }
        let usual = match self.window {
            Window::Smooth => limit,
            Window::Strict => Amount((limit.0 / STRICT_SHARE).max(1)),
        };
        let burst = self.burst.map_or(Ok(usual), |burst| amount(burst, meter, "burst"))?;
        if burst.0 == 0 {
            return Err("`burst` must be over 0".to_owned());
        }
        let refill = match self.window {
            Window::Smooth => limit.0,
            Window::Strict if burst.0 < limit.0 => limit.0 - burst.0,
            Window::Strict => return Err("the `burst` of a strict window must be less than its `limit`".to_owned()),
        };
        let period = i128::try_from(self.period.as_nanos()).map_err(|_| "`period` is too long")?;
        if period == 0 {
            return Err("`period` must be over 0".to_owned());
        }
        let (scale, cell) = cells(i128::from(burst.0), i128::from(refill), period)?;
        let cells = u32::try_from(i128::from(burst.0) / scale).ok().and_then(NonZeroU32::new).ok_or(TOO_FINE)?;
        let cell = u64::try_from(cell).map_err(|_| "`period` is too long for so small a `limit`")?;
        let bucket = Bucket::with_period(Duration::from_nanos(cell)).ok_or(TOO_FINE)?.allow_burst(cells);
        let scale = i64::try_from(scale).map_err(|_| TOO_FINE)?;
        Ok(Rate { limit, period: self.period, burst, window: self.window, bucket, scale, cell, cells })
    }
}

const TOO_FINE: &str = "the `burst` is too small beside the rate: rounding would change it by over 0.1 %";

/// How much of the meter a cell is, and the nanoseconds in which one comes back. The smallest that governor can count and whose
/// rounding does not matter.
fn cells(burst: i128, refill: i128, period: i128) -> Result<(i128, i128), String> {
    let for_count = (burst + MOST_CELLS - 1) / MOST_CELLS;
    let for_time = (SHORTEST_CELL * refill + period - 1) / period;
    let scale = for_count.max(for_time).max(1);
    if burst < scale || burst % scale * 1_000 > burst {
        return Err(TOO_FINE.to_owned());
    }
    let cell = period * scale / refill;
    // Exact is period·scale / refill; rounded down it is at most a nanosecond less.
    if (period * scale - cell * refill) * 1_000 > period * scale {
        return Err("rounding would change the rate by over 0.1 %".to_owned());
    }
    if cell * (burst / scale) > i128::try_from(LONGEST_FILL.as_nanos()).unwrap_or(i128::MAX) {
        return Err("the `burst` is too large: it would take over a hundred years to come back".to_owned());
    }
    Ok((scale, cell))
}

impl RawQuota {
    fn compile(&self, meter: Meter, per: &[Dimension]) -> Result<Kind, String> {
        let limit = amount(self.limit, meter, "limit")?;
        let anchor = match self.anchor {
            RawAnchor::Calendar => QuotaAnchor::Calendar,
            RawAnchor::At(time) => QuotaAnchor::At(time),
            RawAnchor::Anniversary if per.contains(&Dimension::User) => QuotaAnchor::Account,
            RawAnchor::Anniversary => {
                return Err("`anniversary` is of the user's account: needs `user` in `per`".into());
            }
            RawAnchor::Rolling => return self.rolling(meter),
        };
        let zone = self.timezone.clone().unwrap_or(Zone::UTC);
        Ok(Kind::Quota(Quota { limit, cycle: self.period, zone, anchor }))
    }

    /// A bucket that holds the whole limit and takes the period to fill.
    fn rolling(&self, meter: Meter) -> Result<Kind, String> {
        let days = match self.period {
            Cycle::Hour => return self.bucket(meter, Duration::from_secs(3_600)),
            Cycle::Day => 1,
            Cycle::Week => 7,
            Cycle::Month => 30,
            Cycle::Year => 365,
            Cycle::Lifetime => return Err("a lifetime does not roll".to_owned()),
        };
        self.bucket(meter, Duration::from_secs(days * 86_400))
    }

    fn bucket(&self, meter: Meter, period: Duration) -> Result<Kind, String> {
        if self.timezone.is_some() {
            return Err("a rolling quota has no `timezone`".to_owned());
        }
        let rate = RawRate { limit: self.limit, period, burst: None, window: Window::Smooth };
        rate.compile(meter).map(Kind::Rate)
    }
}

/// What a plan that denies more than its free requests comes to: a quota for the life of each account on it.
pub fn plan_rule(plan: &str, free_requests: u32) -> Rule {
    let name = format!("plan-{plan}-free-requests");
    let matches = Match::of_plan(plan);
    let per = [Dimension::Tenant, Dimension::User];
    let quota = Quota {
        limit: Amount(free_requests.into()),
        cycle: Cycle::Lifetime,
        zone: Zone::UTC,
        anchor: QuotaAnchor::Calendar,
    };
    Rule {
        id: rule_id(&name, &matches, &per, Meter::Requests, "lifetime"),
        name: name.into(),
        matches,
        per: per.into_iter().collect(),
        meter: Meter::Requests,
        action: Action::Deny,
        mode: Mode::Lease,
        on_store_error: OnStoreError::Closed,
        warn_at: Vec::new(),
        overshoot: OVERSHOOT,
        kind: Kind::Quota(quota),
        overrides: Vec::new(),
        is_news: false,
    }
}

#[cfg(test)]
mod tests;
