//! What one instance knows of one limit and subject: what the store last told, and what it has itself charged since. It decides
//! from that, and knows when it must ask.

use super::kernel::{self, Answer};
use super::rule::{Mode, Quota, Rate};
use super::shared::{Ask, Key, Ledger, QuotaAsk, QuotaWish, RateAsk, RateWish, Told, What, joined};

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
    /// What the TAT would be if this node were alone.
    own: u64,
    /// The TAT of this node's share while the store is away; 0 while it answers.
    alone: u64,
    /// Charged in advance and not used yet, in nanoseconds; and since when.
    purse: i64,
    filled_at: u64,
    #[cfg(test)]
    wasted: i64,
    pub talk: Talk,
}

/// A quota of one period as this node sees it, in units of the meter.
#[derive(Clone, Debug)]
pub struct QuotaCell {
    /// What our own ledger says is used; `UNKNOWN` until it says so.
    ledger: Ledger,
    /// What the store knows of it.
    reported: i64,
    /// What the other ledgers say.
    elsewhere: i64,
    /// What the other nodes hold.
    pub others: i64,
    /// What this node holds for requests that are not in the ledger yet.
    pub out: i64,
    /// So much of it, or more, the store knows, whatever becomes of what is on its way.
    published: i64,
    /// To when that counts, in microseconds.
    until: u64,
    pub talk: Talk,
}

/// Where the conversation with the store stands.
#[derive(Clone, Debug)]
pub struct Talk {
    incarnation: u64,
    /// The version of the last ask, and whether it was answered.
    asked: u64,
    answered: bool,
    /// When the store last answered; 0 for never.
    pub at: u64,
    /// An ask is on its way: the next one waits for its answer.
    pub busy: bool,
    /// Somebody looked: what is known must not grow old.
    pub looked_at: bool,
    /// The ledger says what the store has yet to be told.
    ledger_is_news: bool,
    /// What those want who wait for it, in units of the meter. Each takes itself off before it looks again.
    pub waiting: i64,
}

impl Talk {
    fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            asked: 0,
            answered: true,
            at: 0,
            busy: false,
            looked_at: false,
            ledger_is_news: false,
            waiting: 0,
        }
    }

    pub fn known(&self) -> bool {
        self.at > 0
    }

    fn ask(&mut self, key: Key, what: What) -> Ask {
        self.asked += 1;
        (self.answered, self.looked_at) = (false, false);
        Ask { key, incarnation: self.incarnation, version: self.asked, what }
    }

    /// Whether this answers the last ask. An earlier one did not know what was said since, so its answer no longer counts.
    fn hear(&mut self, version: u64, now: u64) -> bool {
        let news = version == self.asked && !self.answered;
        if news {
            (self.answered, self.at) = (true, now.max(1));
        }
        news
    }

    /// No answer will come to this ask any more.
    pub fn done(&mut self, version: u64) {
        if version == self.asked {
            self.busy = false;
        }
    }

    /// The store may have heard something, or granted it, of which this node does not know.
    fn unanswered(&self) -> bool {
        !self.answered && !self.busy
    }

    /// The last answer is so old that no refusal can be built on it.
    fn is_stale(&self, now: u64) -> bool {
        now.saturating_sub(self.at) >= FRESH
    }
}

const MICRO: u64 = 1_000;
/// As far as stores count, in nanoseconds: no bucket is ever so empty that a time overflows.
const FURTHEST: u64 = super::shared::MOST * MICRO;
/// Nanoseconds for which a refusal needs no new answer: others may have given back.
const FRESH: u64 = 1_000_000_000;

impl RateCell {
    pub fn new(incarnation: u64) -> Self {
        Self {
            tat: 0,
            total: 0,
            acked: 0,
            own: 0,
            alone: 0,
            purse: 0,
            filled_at: 0,
            #[cfg(test)]
            wasted: 0,
            talk: Talk::new(incarnation),
        }
    }

    /// Whether `amount` fits now. `slack`: how much more than the store knows this node may have charged.
    pub fn look(&self, rate: &Rate, amount: i64, mode: Mode, slack: i64, now: u64) -> Look {
        if !self.talk.known() && mode != Mode::Local {
            return Look::Unsure;
        }
        let cost = rate.nanos_for(amount);
        if cost > 0 && cost <= self.purse {
            // The store has granted it, but did not know what was charged here meanwhile.
            let over = self.tat.saturating_sub(now.saturating_add(rate.capacity()));
            return if over == 0 { Look::Fits } else { Look::Over(Some(over)) };
        }
        match ask_kernel(rate, self.tat, amount, now) {
            Answer::Wait { nanos } if mode != Mode::Local && nanos >= FRESH && self.talk.is_stale(now) => Look::Unsure,
            Answer::Wait { nanos } => Look::Over(Some(nanos)),
            Answer::TooMany => Look::Over(None),
            Answer::Fits { .. } if mode == Mode::Local => Look::Fits,
            // What was given back and not told yet leaves no room: it may drain before it is told.
            Answer::Fits { .. } if self.unacked().max(0).saturating_add(cost) > rate.nanos_for(slack) => Look::Unsure,
            Answer::Fits { .. } => Look::Fits,
        }
    }

    /// Without the store: takes what fits into this node's share of the bucket.
    pub fn take_alone(&mut self, rate: &Rate, share: &Rate, amount: i64, now: u64) -> Look {
        let (cost, alone) = (rate.nanos_for(amount), self.alone.max(self.tat));
        match ask_kernel(share, alone, amount, now) {
            _ if cost <= self.purse => {}
            Answer::Fits { tat } => self.alone = tat,
            Answer::Wait { nanos } => return Look::Over(Some(nanos)),
            Answer::TooMany => return Look::Over(None),
        }
        self.take(cost, now);
        Look::Fits
    }

    /// Takes what `look` found to fit.
    pub fn take(&mut self, nanos: i64, now: u64) {
        if nanos <= self.purse {
            self.purse -= nanos;
        } else {
            self.charge(nanos, now);
        }
    }

    /// Gives back what was taken in advance; what has drained since is not there to be given.
    pub fn empty_purse(&mut self, now: u64) {
        let held = now.saturating_sub(self.filled_at);
        let left = self.purse.saturating_sub_unsigned(held).max(0);
        #[cfg(test)]
        (self.wasted += self.purse - left);
        self.purse = 0;
        self.charge(-left, now);
    }

    /// Charges, whether it fits or not. An amount below zero gives back.
    pub fn charge(&mut self, nanos: i64, now: u64) {
        self.total = self.total.saturating_add(nanos);
        for tat in [&mut self.tat, &mut self.own] {
            let from = if nanos > 0 { (*tat).max(now) } else { *tat };
            *tat = from.saturating_add_signed(nanos).min(FURTHEST);
        }
    }

    /// What was charged for requests, and what in advance and in vain.
    #[cfg(test)]
    pub fn books(&self) -> (i64, i64) {
        (self.total - self.purse - self.wasted, self.wasted)
    }

    /// What the store does not know yet, in nanoseconds.
    pub fn unacked(&self) -> i64 {
        self.total.saturating_sub(self.acked.saturating_mul(1_000))
    }

    /// `wish`: the least that is wanted and the most that may be taken in advance, in units of the meter. What is left of the last
    /// such is given back.
    pub fn ask(&mut self, key: Key, rate: &Rate, wish: Option<(i64, i64)>, now: u64) -> Ask {
        self.empty_purse(now);
        let cost = |amount| micros_up(rate.nanos_for(amount));
        let wish =
            wish.map(|(least, most)| RateWish { least: cost(least), most: cost(most), capacity: capacity(rate) });
        let total = self.total.div_euclid(1_000);
        // What is given back by this report the store may know to be gone before the answer is here.
        self.acked = self.acked.min(total);
        let floor = self.tat.saturating_add_signed(self.unacked().saturating_neg()) / MICRO;
        let what = RateAsk { total, acked: self.acked, floor, own: self.own / MICRO, cell: rate.cell, wish };
        self.talk.ask(key, What::Rate(what))
    }

    /// True if the wish was granted; what was granted is in the purse.
    pub fn learn(&mut self, ask: &Ask, told: &Told, now: u64) -> bool {
        let (What::Rate(asked), Told::Rate { tat, granted }) = (&ask.what, told) else { return false };
        if !self.talk.hear(ask.version, now) {
            // A later report, which did not know of the grant, has taken it back.
            return false;
        }
        if *granted > 0 {
            for sum in [&mut self.total, &mut self.purse] {
                *sum = sum.saturating_add(granted.saturating_mul(1_000));
            }
            // When the store granted it is not known here, but is in its TAT.
            self.own = self.own.saturating_add_signed(granted.saturating_mul(1_000)).min(FURTHEST);
            self.filled_at = now;
        }
        self.acked = asked.total.saturating_add(*granted);
        // Assigned, not the greater of both: what was given back or reset elsewhere must arrive.
        self.tat = joined(tat * MICRO, self.unacked(), self.own, now);
        self.alone = 0;
        *granted > 0
    }

    /// What is free, in units of the meter, as of the last news.
    pub fn free(&self, rate: &Rate) -> i64 {
        let backlog = i64::try_from(self.tat.saturating_sub(self.talk.at)).unwrap_or(i64::MAX);
        let capacity = i64::try_from(rate.capacity()).unwrap_or(i64::MAX);
        rate.amount_of(capacity.saturating_sub(backlog).max(0))
    }

    pub fn has_news(&self) -> bool {
        self.unacked().unsigned_abs() >= MICRO || self.has_purse() || self.talk.unanswered()
    }

    pub fn has_purse(&self) -> bool {
        self.purse > 0
    }

    /// How long the store may wait for a report: a tenth of the time in which the bucket runs dry at the pace since the last one.
    pub fn interval(&self, rate: &Rate, now: u64) -> u64 {
        let spent = self.unacked().unsigned_abs().max(1);
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
        for tat in [&mut self.tat, &mut self.own, &mut self.alone] {
            let backlog = i64::try_from(tat.saturating_sub(now)).unwrap_or(i64::MAX);
            *tat = if backlog > 0 { now.saturating_add_signed(scaled(backlog)) } else { *tat };
        }
        self.purse = scaled(self.purse);
        self.total = self.acked.saturating_mul(1_000).saturating_add(unacked);
    }

    /// Nothing that the store does not know, and a full bucket.
    pub fn is_clean(&self, now: u64) -> bool {
        self.tat <= now && self.purse == 0 && self.unacked().unsigned_abs() < MICRO && !self.talk.busy
    }
}

/// Rounded up like a cost, so that the greatest cost fits.
fn capacity(rate: &Rate) -> i64 {
    i64::try_from(rate.capacity().div_ceil(MICRO)).unwrap_or(i64::MAX)
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
            ledger: UNKNOWN,
            reported: 0,
            elsewhere: 0,
            others: 0,
            out: 0,
            published: 0,
            until: 0,
            talk: Talk::new(incarnation),
        }
    }

    fn ledger(&self) -> Option<Ledger> {
        (self.ledger != UNKNOWN).then_some(self.ledger)
    }

    /// What all ledgers say is used.
    pub fn used(&self) -> i64 {
        self.elsewhere.saturating_add(self.ledger.used)
    }

    /// What is held by all nodes, this one's as it stands.
    pub fn held(&self) -> i64 {
        self.others.saturating_add(self.out)
    }

    /// `ends`: when the period does.
    pub fn look(&self, quota: &Quota, amount: i64, mode: Mode, slack: i64, ends: Option<u64>, now: u64) -> Look {
        let left = ends.map(|ends| ends.saturating_sub(now));
        if amount > quota.limit.0 {
            return Look::Over(left);
        }
        if !self.talk.known() && mode != Mode::Local {
            return Look::Unsure;
        }
        let used = self.used().saturating_add(amount);
        if used.saturating_add(self.held()) > quota.limit.0 {
            return match mode {
                Mode::Synced | Mode::Lease | Mode::Exact if self.talk.is_stale(now) => Look::Unsure,
                _ if used > quota.limit.0 => Look::Over(left),
                _ => Look::Over(Some(left.map_or(HELD, |left| left.min(HELD)))),
            };
        }
        let ahead = self.unpublished().saturating_add(amount);
        let allowed = match mode {
            Mode::Local => return Look::Fits,
            Mode::Synced => slack,
            Mode::Lease | Mode::Exact => 0,
        };
        if ahead <= allowed { Look::Fits } else { Look::Unsure }
    }

    pub fn hold(&mut self, amount: i64) {
        self.out = self.out.saturating_add(amount);
    }

    /// How much more is held here, or was used since, than the store knows: what is settled is not free for another hold.
    pub fn unpublished(&self) -> i64 {
        let used = self.ledger.used.saturating_sub(self.reported).max(0);
        self.out.saturating_sub(self.published).saturating_add(used)
    }

    /// `wish`: the least that is wanted and the most that may be taken in advance.
    pub fn ask(&mut self, key: Key, terms: Terms, wish: Option<(i64, i64)>) -> Ask {
        let wish = wish.map(|(least, most)| QuotaWish { least, most, limit: terms.limit });
        // If less is held than was, others may have taken the rest before the answer is here.
        self.published = self.published.min(self.out);
        let what = QuotaAsk { out: self.out, until: terms.until, ledger: self.ledger(), wish, ends: terms.ends };
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
        self.published = asked.out.saturating_add(*granted);
        self.until = asked.until;
        self.reported = ledger.map_or(0, |ledger| ledger.used);
        self.elsewhere = spent.saturating_sub(self.reported);
        // Another instance on the same database may have told the store more.
        if let Some(told) = ledger {
            self.settled(*told);
            self.talk.ledger_is_news = self.ledger().is_some_and(|ours| ours.version > told.version);
        }
        *granted > 0
    }

    /// Of a record that was written: what the ledger says now. Older news than what is known are none.
    pub fn settled(&mut self, ledger: Ledger) {
        if self.ledger().is_none_or(|known| ledger.version > known.version) {
            (self.ledger, self.talk.ledger_is_news) = (ledger, true);
        }
    }

    /// Without the store: holds what fits into this node's share of what was free when it was last heard.
    pub fn take_alone(&mut self, quota: &Quota, amount: i64, nodes: u32) -> Look {
        let known = [self.elsewhere, self.reported, self.others, self.published];
        let free = known.iter().fold(quota.limit.0, |free, part| free.saturating_sub(*part)).max(0);
        if self.unpublished().saturating_add(amount) > free / i64::from(nodes) {
            return Look::Over(None);
        }
        self.hold(amount);
        Look::Fits
    }

    /// Whether there is something to report; what is held must be said again in time.
    pub fn has_news(&self) -> bool {
        self.has_changed() || self.out > 0
    }

    pub fn has_changed(&self) -> bool {
        self.out != self.published || self.talk.ledger_is_news || self.talk.unanswered()
    }

    /// Half of the time for which the store believes what is held is over.
    pub fn is_fading(&self, until: u64, now: u64) -> bool {
        until.saturating_sub(self.until) >= until.saturating_sub(now / MICRO) / 2
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

/// No ledger has this version.
const UNKNOWN: Ledger = Ledger { version: u64::MAX, used: 0 };

/// What an ask of a quota says beside the amounts; times in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub limit: i64,
    pub until: u64,
    pub ends: u64,
}

/// What is only held may soon be free: so many nanoseconds are worth waiting.
const HELD: u64 = 5_000_000_000;
