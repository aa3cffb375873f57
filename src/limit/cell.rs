//! What one instance knows of one limit and subject: what the store last told, and what it has itself charged since. It decides
//! from that, and knows when it must ask.

use super::kernel::{self, Answer};
use super::rule::{Mode, Quota, Rate};
use super::shared::{Ask, Key, Ledger, QuotaAsk, QuotaWish, RateAsk, RateWish, Told, What};

/// What a cell says to a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Fits,
    /// Only the store can tell.
    Unsure,
    /// It is over the limit for so many nanoseconds; `None` when waiting does not help.
    Over(Option<u64>),
}

/// A bucket as this node sees it. Times are nanoseconds since 1970.
#[derive(Clone, Debug)]
pub struct RateCell {
    pub tat: u64,
    /// All that this node has charged, in nanoseconds of the bucket.
    total: i64,
    /// So much of it the store has told to know, in microseconds.
    acked: i64,
    /// Charged in advance and not used yet, in nanoseconds; and since when.
    purse: i64,
    filled_at: u64,
    pub talk: Talk,
}

/// A quota of one period as this node sees it, in units of the meter.
#[derive(Clone, Debug)]
pub struct QuotaCell {
    /// What our own ledger says is used, and whether the store has yet to be told.
    pub ledger: Option<Ledger>,
    ledger_is_news: bool,
    /// What the other ledgers say.
    elsewhere: i64,
    /// What the other nodes hold.
    pub others: i64,
    /// What this node holds for requests that are not in the ledger yet.
    pub out: i64,
    /// So much of it, or more, the store has told to know.
    published: i64,
    pub talk: Talk,
}

/// Where the conversation with the store stands.
#[derive(Clone, Debug)]
pub struct Talk {
    incarnation: u64,
    asked: u64,
    told: u64,
    /// When the store last answered; 0 for never.
    pub at: u64,
    /// An ask is on its way: the next one waits for its answer.
    pub busy: bool,
    /// What those want who wait for it, in units of the meter.
    pub waiting: i64,
}

impl Talk {
    fn new(incarnation: u64) -> Self {
        Self { incarnation, asked: 0, told: 0, at: 0, busy: false, waiting: 0 }
    }

    pub fn known(&self) -> bool {
        self.at > 0
    }

    fn ask(&mut self, key: Key, what: What) -> Ask {
        self.asked += 1;
        Ask { key, incarnation: self.incarnation, version: self.asked, what }
    }

    /// Whether the answer is newer than what is known.
    fn hear(&mut self, version: u64, now: u64) -> bool {
        let news = version > self.told;
        if news {
            (self.told, self.at) = (version, now.max(1));
        }
        news
    }
}

const MICRO: u64 = 1_000;

impl RateCell {
    pub fn new(incarnation: u64) -> Self {
        Self { tat: 0, total: 0, acked: 0, purse: 0, filled_at: 0, talk: Talk::new(incarnation) }
    }

    /// Whether `amount` fits now. `slack`: how much more than the store knows this node may have charged.
    pub fn look(&self, rate: &Rate, amount: i64, mode: Mode, slack: i64, now: u64) -> Look {
        if !self.talk.known() && mode != Mode::Local {
            return Look::Unsure;
        }
        let cost = rate.nanos_for(amount);
        if cost > 0 && cost <= self.purse {
            return Look::Fits;
        }
        match ask_kernel(rate, self.tat, amount, now) {
            Answer::Wait { nanos } => Look::Over(Some(nanos)),
            Answer::TooMany => Look::Over(None),
            Answer::Fits { .. } if mode == Mode::Local => Look::Fits,
            Answer::Fits { .. } if self.unacked() + cost > rate.nanos_for(slack) => Look::Unsure,
            Answer::Fits { .. } => Look::Fits,
        }
    }

    /// Takes what `look` found to fit.
    pub fn take(&mut self, nanos: i64, now: u64) {
        if nanos <= self.purse {
            self.purse -= nanos;
        } else {
            self.charge(nanos, now);
        }
    }

    /// Gives back what was taken in advance at least so long ago; what has drained since is not there to be given.
    pub fn empty_purse(&mut self, age: u64, now: u64) {
        let held = now.saturating_sub(self.filled_at);
        if self.purse > 0 && held >= age {
            let left = self.purse.saturating_sub_unsigned(held).max(0);
            self.purse = 0;
            self.charge(-left, now);
        }
    }

    /// Charges, whether it fits or not. An amount below zero gives back.
    pub fn charge(&mut self, nanos: i64, now: u64) {
        self.total += nanos;
        self.tat = if nanos < 0 {
            self.tat.saturating_sub(nanos.unsigned_abs())
        } else {
            self.tat.max(now).saturating_add(nanos.unsigned_abs())
        };
    }

    /// What the store does not know yet, in nanoseconds.
    pub fn unacked(&self) -> i64 {
        self.total - self.acked * 1_000
    }

    /// `wish`: the least that is wanted and the most that may be taken in advance, in units of the meter.
    pub fn ask(&mut self, key: Key, rate: &Rate, wish: Option<(i64, i64)>) -> Ask {
        let cost = |amount| micros_up(rate.nanos_for(amount));
        let wish =
            wish.map(|(least, most)| RateWish { least: cost(least), most: cost(most), capacity: capacity(rate) });
        let what = RateAsk {
            total: self.total.div_euclid(1_000),
            acked: self.acked,
            floor: self.tat.saturating_sub(self.unacked().max(0).unsigned_abs()) / MICRO,
            cell: rate.cell,
            wish,
        };
        self.talk.ask(key, What::Rate(what))
    }

    /// True if the wish was granted; what was granted is in the purse.
    pub fn learn(&mut self, ask: &Ask, told: &Told, now: u64) -> bool {
        let (What::Rate(asked), Told::Rate { tat, granted }) = (&ask.what, told) else { return false };
        if !self.talk.hear(ask.version, now) {
            // A later report, which did not know of the grant, has taken it back.
            return false;
        }
        self.total += granted * 1_000;
        self.acked = asked.total + granted;
        // Assigned, not the greater of both: what was given back or reset elsewhere must arrive.
        self.tat = (tat * MICRO).saturating_add_signed(self.unacked());
        if *granted > 0 {
            self.purse += granted * 1_000;
            self.filled_at = now;
        }
        *granted > 0
    }

    /// What is free, in units of the meter, as of the last news.
    pub fn free(&self, rate: &Rate) -> i64 {
        let backlog = i64::try_from(self.tat.saturating_sub(self.talk.at)).unwrap_or(i64::MAX);
        let capacity = i64::try_from(rate.capacity()).unwrap_or(i64::MAX);
        rate.amount_of(capacity.saturating_sub(backlog).max(0))
    }

    pub fn has_news(&self) -> bool {
        self.unacked().unsigned_abs() >= MICRO || self.purse > 0
    }

    /// How long the store may wait for a report: a tenth of the time in which the bucket runs dry at the pace since the last one.
    pub fn interval(&self, rate: &Rate, now: u64) -> u64 {
        let spent = self.unacked().max(1).unsigned_abs();
        let silence = now.saturating_sub(self.talk.at).max(1);
        let free = rate.capacity().saturating_sub(self.tat.saturating_sub(now));
        u64::try_from(u128::from(free) * u128::from(silence) / u128::from(spent) / 10).unwrap_or(u64::MAX)
    }

    /// The limit has changed: the backlog is so many cells, not so long a time.
    pub fn rescale(&mut self, old: &Rate, new: &Rate, now: u64) {
        if old.cell == new.cell && old.scale == new.scale {
            return;
        }
        let scaled = |nanos: i64| {
            let nanos = i128::from(nanos) * i128::from(new.cell) / i128::from(old.cell.max(1));
            i64::try_from(nanos).unwrap_or(i64::MAX)
        };
        let unacked = scaled(self.unacked());
        let backlog = scaled(i64::try_from(self.tat.saturating_sub(now)).unwrap_or(i64::MAX));
        self.tat = if self.tat > now { now.saturating_add_signed(backlog) } else { self.tat };
        self.purse = scaled(self.purse);
        self.total = self.acked * 1_000 + unacked;
    }

    /// Nothing that the store does not know, and a full bucket.
    pub fn is_clean(&self, now: u64) -> bool {
        self.tat <= now && self.purse == 0 && self.unacked().unsigned_abs() < MICRO && !self.talk.busy
    }
}

fn capacity(rate: &Rate) -> i64 {
    i64::try_from(rate.capacity() / MICRO).unwrap_or(i64::MAX)
}

fn micros_up(nanos: i64) -> i64 {
    nanos.div_euclid(1_000) + i64::from(nanos.rem_euclid(1_000) > 0)
}

fn ask_kernel(rate: &Rate, tat: u64, amount: i64, now: u64) -> Answer {
    let cells = rate.cells_for(amount).and_then(|cells| u32::try_from(cells).ok());
    match cells.map(std::num::NonZeroU32::new) {
        None => Answer::TooMany,
        // Nothing always fits.
        Some(None) => Answer::Fits { tat },
        Some(Some(cells)) => kernel::ask(rate.bucket, tat, now, cells),
    }
}

impl QuotaCell {
    pub fn new(incarnation: u64) -> Self {
        Self {
            ledger: None,
            ledger_is_news: false,
            elsewhere: 0,
            others: 0,
            out: 0,
            published: 0,
            talk: Talk::new(incarnation),
        }
    }

    /// What all ledgers say is used.
    pub fn used(&self) -> i64 {
        self.elsewhere.saturating_add(self.ledger.map_or(0, |ledger| ledger.used))
    }

    /// What is held by all nodes, this one's as it stands.
    pub fn held(&self) -> i64 {
        self.others.saturating_add(self.out)
    }

    /// `ends`: nanoseconds until the period does.
    pub fn look(&self, quota: &Quota, amount: i64, mode: Mode, slack: i64, ends: Option<u64>) -> Look {
        if !self.talk.known() && mode != Mode::Local {
            return Look::Unsure;
        }
        if self.used().saturating_add(amount) > quota.limit.0 {
            return Look::Over(ends);
        }
        if self.used().saturating_add(self.held()).saturating_add(amount) > quota.limit.0 {
            return Look::Over(Some(ends.map_or(HELD, |ends| ends.min(HELD))));
        }
        let ahead = self.out + amount - self.published;
        let allowed = match mode {
            Mode::Local => return Look::Fits,
            Mode::Synced => slack,
            Mode::Lease | Mode::Exact => 0,
        };
        if ahead <= allowed { Look::Fits } else { Look::Unsure }
    }

    pub fn hold(&mut self, amount: i64) {
        self.out += amount;
    }

    /// Whether the store must be told something.
    pub fn unpublished(&self) -> i64 {
        self.out - self.published
    }

    /// `wish`: the least that is wanted and the most that may be taken in advance.
    pub fn ask(&mut self, key: Key, terms: Terms, wish: Option<(i64, i64)>) -> Ask {
        let wish = wish.map(|(least, most)| QuotaWish { least, most, limit: terms.limit });
        let what = QuotaAsk { out: self.out, until: terms.until, ledger: self.ledger, wish, ends: terms.ends };
        self.talk.ask(key, What::Quota(what))
    }

    /// True if the wish was granted: what was granted is published and can be held.
    pub fn learn(&mut self, ask: &Ask, told: &Told, now: u64) -> bool {
        let (What::Quota(asked), Told::Quota { spent, ledger, others, granted }) = (&ask.what, told) else {
            return false;
        };
        if !self.talk.hear(ask.version, now) {
            return false;
        }
        self.others = *others;
        self.published = asked.out + granted;
        self.elsewhere = spent - ledger.map_or(0, |ledger| ledger.used);
        // Another instance on the same database may have told the store more.
        if let Some(told) = ledger {
            self.settled(*told);
            self.ledger_is_news = self.ledger.is_some_and(|ours| ours.version > told.version);
        }
        *granted > 0
    }

    /// Of a record that was written: what the ledger says now. Older news than what is known are none.
    pub fn settled(&mut self, ledger: Ledger) {
        if self.ledger.is_none_or(|known| ledger.version > known.version) {
            (self.ledger, self.ledger_is_news) = (Some(ledger), true);
        }
    }

    /// Without the store: a share of what was free when it was last heard.
    pub fn look_alone(&self, quota: &Quota, amount: i64, nodes: u32, ends: Option<u64>) -> Look {
        let free = quota.limit.0.saturating_sub(self.used()).saturating_sub(self.others).max(0);
        if self.out.saturating_add(amount) <= free / i64::from(nodes) { Look::Fits } else { Look::Over(ends) }
    }

    pub fn has_news(&self) -> bool {
        self.out != self.published || self.out > 0 || self.ledger_is_news
    }

    /// A fifth or less is left, so that what others spend matters soon.
    pub fn is_low(&self, quota: &Quota) -> bool {
        let left = quota.limit.0.saturating_sub(self.used()).saturating_sub(self.held());
        left <= quota.limit.0 / 5
    }

    pub fn is_clean(&self) -> bool {
        self.out == 0 && self.published == 0 && !self.talk.busy
    }
}

/// What an ask of a quota says beside the amounts; times in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub limit: i64,
    pub until: u64,
    pub ends: u64,
}

/// What is only held may soon be free: so many nanoseconds are worth waiting.
const HELD: u64 = 5_000_000_000;
