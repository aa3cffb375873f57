//! The rules as the operator writes them, made typed: `[[limit]]`. What is wrong with one stops the start.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::Quota as Bucket;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use super::amount::{Amount, Meter};
use super::attempt::Stand;
use tacho_core::domain::pattern::Pattern;
use tacho_core::domain::period::{Anchor, Cycle, Schedule, Zone};
use tacho_core::domain::time::Timestamp;

/// What a limit can count for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    Tenant,
    User,
    Agent,
    Model,
    Endpoint,
}

impl Dimension {
    pub fn label(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::User => "user",
            Self::Agent => "agent",
            Self::Model => "model",
            Self::Endpoint => "endpoint",
        }
    }
}

/// What happens to a request over the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    #[default]
    Deny,
    /// Lets it pass and counts what would have been refused.
    Shadow,
    /// Lets it pass, charges it, and says so in the answer.
    Warn,
}

impl Action {
    pub fn label(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Shadow => "shadow",
            Self::Warn => "warn",
        }
    }
}

/// What a limit answers while its store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStoreError {
    /// Each instance goes on with its share of the limit.
    Local,
    Open,
    Closed,
}

/// How instances agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Decides at once, tells the others soon, and asks before it is further ahead of them than the overshoot allows.
    Synced,
    /// Takes amounts in advance and decides within them.
    Lease,
    /// Asks the store each time.
    Exact,
    /// Every instance for itself.
    Local,
}

impl Mode {
    pub fn label(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Lease => "lease",
            Self::Exact => "exact",
            Self::Local => "local",
        }
    }
}

/// Whether the amount may be used up twice in a window that straddles a quiet time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// The bucket holds `burst` and refills at the rate: up to burst + limit in one period.
    #[default]
    Smooth,
    /// Burst and refill together never exceed the limit in any period.
    Strict,
}

/// One limit, ready to decide.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: Arc<str>,
    /// Stands for what is counted: name, match, per, meter, schedule. A changed amount keeps it, so that usage stays.
    pub id: u64,
    pub matches: Match,
    pub per: SmallVec<[Dimension; 5]>,
    pub meter: Meter,
    pub action: Action,
    pub mode: Mode,
    pub on_store_error: OnStoreError,
    /// Shares of the limit at which to warn, in thousandths, in order.
    pub warn_at: Vec<u16>,
    /// How far all instances together may be over the limit, in thousandths of it or as an amount.
    pub overshoot: Overshoot,
    pub kind: Kind,
    /// Other amounts for some; the first that matches counts.
    pub overrides: Vec<(Match, Kind)>,
    /// Whether it is news that it is used up. The free requests of a plan are there to be used up.
    pub is_news: bool,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Rate(Rate),
    Quota(Quota),
}

/// A bucket that refills.
#[derive(Clone, Debug)]
pub struct Rate {
    pub limit: Amount,
    pub period: Duration,
    pub burst: Amount,
    pub window: Window,
    /// The same for governor, in cells.
    pub bucket: Bucket,
    /// How much of the meter one cell is.
    pub scale: i64,
    /// Nanoseconds in which one cell comes back.
    pub cell: u64,
    /// How many cells the bucket holds.
    pub cells: NonZeroU32,
}

/// An amount for each period.
#[derive(Clone, Debug)]
pub struct Quota {
    pub limit: Amount,
    pub cycle: Cycle,
    pub zone: Zone,
    pub anchor: QuotaAnchor,
}

/// When the periods of a quota begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaAnchor {
    Calendar,
    /// With the account of the user.
    Account,
    /// At this time.
    At(Timestamp),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overshoot {
    PerMille(u16),
    Amount(Amount),
}

/// Which requests a limit is for. What is not given matches all; what is given matches no request that lacks it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    tenant: Option<Glob>,
    user: Option<Glob>,
    agent: Option<Glob>,
    model: Option<Glob>,
    endpoint: Option<Glob>,
    plan: Option<Glob>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "String")]
struct Glob(Pattern);

impl From<String> for Glob {
    fn from(text: String) -> Self {
        Self(Pattern::new(&text))
    }
}

/// Who asks, or who used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traits<'a> {
    pub tenant: &'a str,
    pub user: Option<&'a str>,
    pub agent: Option<&'a str>,
    pub model: Option<&'a str>,
    pub endpoint: Option<&'a str>,
    pub plan: &'a str,
}

impl<'a> Traits<'a> {
    pub fn get(&self, dimension: Dimension) -> Option<&'a str> {
        match dimension {
            Dimension::Tenant => Some(self.tenant),
            Dimension::User => self.user,
            Dimension::Agent => self.agent,
            Dimension::Model => self.model,
            Dimension::Endpoint => self.endpoint,
        }
    }
}

impl Match {
    pub fn matches(&self, traits: &Traits<'_>) -> bool {
        let is = |glob: &Option<Glob>, value: Option<&str>| {
            glob.as_ref().is_none_or(|glob| value.is_some_and(|value| glob.0.matches(value)))
        };
        is(&self.tenant, Some(traits.tenant))
            && is(&self.user, traits.user)
            && is(&self.agent, traits.agent)
            && is(&self.model, traits.model)
            && is(&self.endpoint, traits.endpoint)
            && is(&self.plan, Some(traits.plan))
    }

    /// For requests of this plan alone.
    pub fn of_plan(name: &str) -> Self {
        Self { plan: Some(Glob(Pattern::new(name))), ..Self::default() }
    }

    fn names_model(&self) -> bool {
        self.model.is_some()
    }

    fn parts(&self) -> [(&'static str, &Option<Glob>); 6] {
        [
            ("tenant", &self.tenant),
            ("user", &self.user),
            ("agent", &self.agent),
            ("model", &self.model),
            ("endpoint", &self.endpoint),
            ("plan", &self.plan),
        ]
    }
}

/// Which of a rule's amounts: 0 its own, then its overrides. Small, as every subject has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tier(u32);

/// `user ann, plan free`; empty for all.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = self.parts().into_iter().filter_map(|(name, glob)| Some(format!("{name} {}", glob.as_ref()?.0)));
        f.write_str(&given.collect::<Vec<_>>().join(", "))
    }
}

impl Rule {
    /// Which amounts are for this one: those of the first override that matches, else its own.
    pub fn tier_for(&self, traits: &Traits<'_>) -> Tier {
        let tier = (1..).zip(&self.overrides).find(|(_, (matches, _))| matches.matches(traits));
        Tier(tier.map_or(0, |(tier, _)| tier))
    }

    /// The amounts of a tier. Its own where there are fewer.
    pub fn tier(&self, Tier(tier): Tier) -> &Kind {
        let place = usize::try_from(tier).ok().and_then(|tier| tier.checked_sub(1));
        place.and_then(|place| self.overrides.get(place)).map_or(&self.kind, |(_, kind)| kind)
    }

    /// Whether usage must be told apart by model, as one request may call several.
    pub fn by_model(&self) -> bool {
        self.matches.names_model() || self.per.contains(&Dimension::Model)
    }

    /// Whether it counts for each user, whose account then has a say in its periods.
    pub fn by_user(&self) -> bool {
        self.per.contains(&Dimension::User)
    }

    /// Whether the account of the user has a say: by its plan, or by when it began and was reset.
    pub fn asks_account(&self) -> bool {
        let by_plan = |matches: &Match| matches.plan.is_some();
        let has_periods = matches!(self.kind, Kind::Quota(_)) && self.by_user();
        has_periods || by_plan(&self.matches) || self.overrides.iter().any(|(matches, _)| by_plan(matches))
    }

    /// What so many instances together may be over the limit while their store is there, in units of the meter.
    pub fn overshoot(&self, nodes: u32) -> i64 {
        let others = i64::from(nodes.max(1)) - 1;
        match self.mode {
            Mode::Synced => (self.slack(&self.kind) / others.max(1)).saturating_mul(others),
            Mode::Lease | Mode::Exact | Mode::Local => 0,
        }
    }

    /// The highest threshold of `warn_at` that is reached, in thousandths.
    pub fn warning(&self, kind: &Kind, stand: &Stand) -> Option<u16> {
        let used = i128::from(stand.used) + i128::from(stand.held);
        let ceiling = i128::from(kind.ceiling().0);
        self.warn_at.iter().copied().rfind(|share| used * 1_000 >= ceiling * i128::from(*share))
    }

    /// How much of the limit all instances together may be ahead, in units of the meter.
    pub fn slack(&self, kind: &Kind) -> i64 {
        match (self.mode, self.overshoot) {
            (Mode::Exact | Mode::Lease, _) => 0,
            (_, Overshoot::Amount(amount)) => amount.0,
            (_, Overshoot::PerMille(share)) => {
                let whole = i128::from(kind.ceiling().0) * i128::from(share) / 1_000;
                i64::try_from(whole).unwrap_or(i64::MAX)
            }
        }
    }
}

impl Kind {
    /// The most that is ever free at once.
    pub fn ceiling(&self) -> Amount {
        match self {
            Self::Rate(rate) => rate.burst,
            Self::Quota(quota) => quota.limit,
        }
    }

    pub fn limit(&self) -> Amount {
        match self {
            Self::Rate(rate) => rate.limit,
            Self::Quota(quota) => quota.limit,
        }
    }
}

impl Rate {
    /// Cells for this amount, rounded up: part of a cell is charged as a whole one. `None` when no bucket is so big.
    pub fn cells_for(&self, amount: i64) -> Option<u64> {
        u64::try_from(amount).ok()?.div_ceil(u64::try_from(self.scale).ok()?).into()
    }

    /// Nanoseconds that this amount moves the bucket by. Saturates at 290 years.
    pub fn nanos_for(&self, amount: i64) -> i64 {
        let cells = amount.unsigned_abs().div_ceil(self.scale.unsigned_abs());
        let nanos = i64::try_from(u128::from(cells) * u128::from(self.cell)).unwrap_or(i64::MAX);
        if amount < 0 { -nanos } else { nanos }
    }

    /// How much of the meter so many nanoseconds are.
    pub fn amount_of(&self, nanos: i64) -> i64 {
        let cells = i128::from(nanos) / i128::from(self.cell);
        i64::try_from(cells * i128::from(self.scale)).unwrap_or(i64::MAX)
    }

    /// Nanoseconds in which an empty bucket fills.
    pub fn capacity(&self) -> u64 {
        self.cell.saturating_mul(u64::from(self.cells.get()))
    }
}

impl Quota {
    /// The schedule for an account that began at `account`.
    pub fn schedule(&self, account: Timestamp) -> Schedule {
        let anchor = match self.anchor {
            QuotaAnchor::Calendar => Anchor::Calendar,
            QuotaAnchor::Account => Anchor::Anniversary(account),
            QuotaAnchor::At(time) => Anchor::Anniversary(time),
        };
        Schedule { cycle: self.cycle, anchor, zone: self.zone.clone() }
    }
}

/// Eight bytes of a hash of what is counted.
pub(super) fn rule_id(name: &str, matches: &Match, per: &[Dimension], meter: Meter, schedule: &str) -> u64 {
    let per: Vec<&str> = per.iter().map(|dimension| dimension.label()).collect();
    let text = format!("{name}\n{matches}\n{}\n{}\n{schedule}", per.join(","), meter.label());
    let hash = Sha256::digest(text.as_bytes());
    u64::from_be_bytes(hash[..8].try_into().expect("a hash has 32 bytes"))
}
