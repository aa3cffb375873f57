//! One request and all limits that match it: looked at together, charged all or none. Who drives it does the asking: an async
//! handler over the network, a simulator over a pretended one.

use std::sync::Arc;

use smallvec::SmallVec;

use super::amount::Usage;
use super::cell::Look;
use super::node::{Cell, Count, Node, State};
use super::rule::{Action, Kind, Mode, OnStoreError, Rule, Tier, Traits};
use super::shared::{Ask, Key};
use super::subject::{self, Since, Subjects};
use tacho_core::domain::period::Period;
use tacho_core::domain::time::Timestamp;

/// A request on its way through its limits.
pub struct Attempt<'r> {
    pub limits: SmallVec<[Matched<'r>; 4]>,
    /// The store was away for at least one decision.
    pub degraded: bool,
}

/// A limit that is for this request.
pub struct Matched<'r> {
    pub rule: &'r Arc<Rule>,
    pub tier: Tier,
    /// What it wants of the limit.
    pub amount: i64,
    /// Of a quota: from when to when it counts now.
    pub period: Option<Period>,
    /// `None` where the memory for limits is full.
    pub cell: Option<Arc<Cell>>,
    pub standing: Standing,
    /// Whether the cell counts it among those who wait.
    waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Open,
    Taken,
    /// Over the limit; it does not stop the request and is not charged.
    Passed,
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    Granted,
    Refused(Refused),
    /// To be asked of the store, each for the limit at this place; then tell the node what came of it.
    Ask(Vec<(usize, Ask)>),
    /// Somebody else is asking for the same cell: look again when there is an answer for it.
    Wait(Key),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The place of the limit that refuses for longest.
    pub place: usize,
    pub reason: Reason,
    /// After so many nanoseconds it may be granted; `None` when waiting does not help.
    pub wait: Option<u64>,
}

/// Why a limit said no. The words are label, log field and answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    OverLimit,
    /// More than the limit ever has.
    TooLarge,
    StoreUnavailable,
    /// The memory for limits is full of subjects that cannot be forgotten.
    TooManySubjects,
}

impl Reason {
    pub const ALL: [Self; 4] = [Self::OverLimit, Self::TooLarge, Self::StoreUnavailable, Self::TooManySubjects];

    pub fn label(self) -> &'static str {
        match self {
            Self::OverLimit => "over_limit",
            Self::TooLarge => "too_large",
            Self::StoreUnavailable => "store_unavailable",
            Self::TooManySubjects => "too_many_subjects",
        }
    }
}

impl<'r> Attempt<'r> {
    pub fn new(
        node: &Node,
        rules: &'r [Arc<Rule>],
        traits: &Traits<'_>,
        since: &Since,
        usage: &Usage,
        now: u64,
    ) -> Self {
        let mut subjects = Subjects::default();
        let matching = rules.iter().filter(|rule| rule.matches.matches(traits));
        let limits = matching.map(|rule| {
            let tier = rule.tier_for(traits);
            let subject = subjects.id(&rule.per, traits);
            let (key, period) = subject::key(rule, rule.tier(tier), subject, since, Timestamp(now));
            let ends = period.and_then(|period| period.end).map(|end| end.0);
            let cell = node.cell(key, rule, tier, ends, now);
            Matched { rule, tier, amount: usage.of(rule.meter), period, cell, standing: Standing::Open, waits: false }
        });
        Self { limits: limits.collect(), degraded: false }
    }

    /// Looks at all that is open: takes all of it, or says what stands in the way. `until`: microseconds to which a hold counts.
    pub fn step(&mut self, node: &Node, until: u64, now: u64) -> Step {
        loop {
            let mut worst: Option<Refused> = None;
            let mut unsure: SmallVec<[usize; 4]> = SmallVec::new();
            for (place, limit) in self.limits.iter_mut().enumerate() {
                limit.wait_no_more();
                if limit.standing != Standing::Open {
                    continue;
                }
                match limit.look(node, now) {
                    Look::Fits => {}
                    Look::Unsure => unsure.push(place),
                    Look::Over(wait) if limit.rule.action == Action::Deny => {
                        worst = worse(worst, Refused { place, reason: limit.reason(wait), wait });
                    }
                    Look::Over(_) => limit.pass(node, now),
                }
            }
            if let Some(refused) = worst {
                self.give_back(node, now);
                self.refresh(node);
                return Step::Refused(refused);
            }
            if !unsure.is_empty() {
                return self.ask(node, &unsure, until, now);
            }
            if self.take(node, now) {
                return Step::Granted;
            }
            // Somebody came between the look and the taking: once more.
        }
    }

    /// Decides what is open by each limit's own policy.
    pub fn without_store(&mut self, node: &Node, now: u64) -> Step {
        self.degraded = true;
        let mut worst = None;
        for (place, limit) in self.limits.iter_mut().enumerate() {
            if limit.standing != Standing::Open {
                continue;
            }
            match limit.take_alone(node, now) {
                Look::Fits | Look::Unsure => limit.taken(node),
                Look::Over(wait) if limit.rule.action == Action::Deny => {
                    worst = worse(worst, Refused { place, reason: Reason::StoreUnavailable, wait });
                }
                Look::Over(_) => limit.pass(node, now),
            }
        }
        match worst {
            Some(refused) => {
                self.give_back(node, now);
                Step::Refused(refused)
            }
            None => Step::Granted,
        }
    }

    /// Whether the limit at this place lets all through while the store is away.
    pub fn opens_alone(&self, place: usize) -> bool {
        self.limits[place].rule.on_store_error == OnStoreError::Open
    }

    /// Asks for all that is unsure at once: a grant must not wait for another and be given back meanwhile.
    fn ask(&mut self, node: &Node, unsure: &[usize], until: u64, now: u64) -> Step {
        let busy = |place: &&usize| self.limits[**place].cell.as_ref().is_some_and(|cell| cell.lock().talk().busy);
        let busy: SmallVec<[usize; 4]> = unsure.iter().filter(busy).copied().collect();
        let unsure = if busy.is_empty() { unsure } else { &busy };
        let (mut asks, mut waited) = (Vec::new(), Key(0));
        for place in unsure {
            let limit = &mut self.limits[*place];
            let Some(cell) = &limit.cell else { continue };
            let mut state = cell.lock();
            if state.talk().busy {
                state.talk_mut().waiting += limit.amount;
                limit.waits = true;
                waited = cell.key;
                continue;
            }
            state.talk_mut().busy = true;
            // Of a cell never heard of, news come first: most are far from their limit.
            let amount = (state.talk().known() || limit.rule.mode == Mode::Exact).then_some(limit.amount);
            asks.push((*place, state.wish(cell.key, amount.filter(|amount| *amount > 0), node.nodes(), until, now)));
        }
        if asks.is_empty() { Step::Wait(waited) } else { Step::Ask(asks) }
    }

    /// Takes all that is open, or nothing.
    fn take(&mut self, node: &Node, now: u64) -> bool {
        for place in 0..self.limits.len() {
            let limit = &mut self.limits[place];
            if limit.standing == Standing::Open && !limit.take(node, now) {
                for earlier in &mut self.limits[..place] {
                    earlier.undo(node, now);
                }
                return false;
            }
        }
        true
    }

    /// What is looked at must not grow old: others may have given back what stood in the way.
    pub fn refresh(&self, node: &Node) {
        self.limits.iter().filter_map(|limit| limit.cell.as_ref()).for_each(|cell| node.refresh(cell));
    }

    /// Undoes what was taken: a refused request charges nothing.
    pub fn give_back(&mut self, node: &Node, now: u64) {
        for limit in &mut self.limits {
            limit.undo(node, now);
        }
    }
}

/// The one that lasts longest; never beats any time.
fn worse(known: Option<Refused>, other: Refused) -> Option<Refused> {
    let length = |refused: &Refused| refused.wait.unwrap_or(u64::MAX);
    Some(known.filter(|known| length(known) >= length(&other)).unwrap_or(other))
}

/// A client may be gone while its request waits.
impl Drop for Matched<'_> {
    fn drop(&mut self) {
        self.wait_no_more();
    }
}

impl Matched<'_> {
    fn kind(&self) -> &Kind {
        self.rule.tier(self.tier)
    }

    fn slack(&self, node: &Node) -> i64 {
        node.slack(self.rule, self.kind())
    }

    fn look(&self, node: &Node, now: u64) -> Look {
        let Some(cell) = &self.cell else { return Look::Over(Some(1_000_000_000)) };
        let mut state = cell.lock();
        state.follow(self.rule, self.tier, now);
        let look = state.look(self.amount, self.slack(node), now);
        if !matches!(look, Look::Over(_)) || !state.empty_purse(now) {
            return look;
        }
        // What is too little for this request drains while it waits for a smaller one.
        let look = state.look(self.amount, self.slack(node), now);
        drop(state);
        node.announce(cell);
        look
    }

    fn take_alone(&self, node: &Node, now: u64) -> Look {
        let Some(cell) = &self.cell else { return Look::Over(Some(1_000_000_000)) };
        cell.lock().take_alone(self.amount, node.nodes(), now)
    }

    fn reason(&self, wait: Option<u64>) -> Reason {
        if self.cell.is_none() {
            Reason::TooManySubjects
        } else if wait.is_none() && self.amount > self.kind().ceiling().0 {
            Reason::TooLarge
        } else {
            Reason::OverLimit
        }
    }

    fn take(&mut self, node: &Node, now: u64) -> bool {
        let (slack, amount) = (self.slack(node), self.amount);
        let fits = |state: &mut State| {
            let fits = state.look(amount, slack, now) == Look::Fits;
            if fits {
                state.take(amount, now);
            }
            fits
        };
        let taken = self.cell.as_ref().is_none_or(|cell| fits(&mut cell.lock()));
        if taken {
            self.taken(node);
        }
        taken
    }

    /// Charges whether it fits or not.
    fn force(&mut self, node: &Node, now: u64) {
        if let Some(cell) = &self.cell {
            cell.lock().take(self.amount, now);
        }
        self.taken(node);
    }

    fn wait_no_more(&mut self) {
        if let Some(cell) = self.cell.as_ref().filter(|_| std::mem::take(&mut self.waits)) {
            cell.lock().talk_mut().waiting -= self.amount;
        }
    }

    fn taken(&mut self, node: &Node) {
        self.standing = Standing::Taken;
        if let Some(cell) = self.cell.as_ref().filter(|_| self.rule.mode != Mode::Local) {
            node.announce(cell);
        }
    }

    /// Over a limit that stops nobody: a warning is charged as the request goes on, a shadow is as if it had refused.
    fn pass(&mut self, node: &Node, now: u64) {
        if self.rule.action == Action::Warn {
            self.force(node, now);
        }
        self.standing = Standing::Passed;
    }

    fn undo(&mut self, node: &Node, now: u64) {
        let charged = match self.standing {
            Standing::Taken => true,
            Standing::Passed => self.rule.action == Action::Warn,
            Standing::Open => false,
        };
        if let Some(cell) = self.cell.as_ref().filter(|_| charged) {
            cell.lock().undo(self.amount, now);
            node.announce(cell);
        }
        self.standing = Standing::Open;
    }

    /// Whether the amount was charged or held.
    pub fn is_charged(&self) -> bool {
        self.cell.is_some() && (self.standing == Standing::Taken || self.rule.action == Action::Warn)
    }

    /// How the limit stands now.
    pub fn now(&self, now: u64) -> Stand {
        let limit = self.kind().limit().0;
        let Some(cell) = &self.cell else { return Stand { limit, ..Stand::default() } };
        let state = cell.lock();
        match (self.kind(), &state.count) {
            (Kind::Rate(rate), Count::Rate(cell)) => {
                let backlog = cell.tat.saturating_sub(now);
                // Part of a cell that has come back is not there yet.
                let free = i64::try_from(rate.capacity().saturating_sub(backlog)).unwrap_or(i64::MAX);
                let over = i64::try_from(backlog.saturating_sub(rate.capacity())).unwrap_or(i64::MAX);
                let remaining = rate.amount_of(free).min(rate.burst.0);
                let used = (rate.burst.0 - remaining).saturating_add(rate.amount_of(over));
                Stand { limit, used, held: 0, remaining, reset: Some(backlog) }
            }
            (Kind::Quota(quota), Count::Quota { cell, ends }) => {
                let (used, held) = (cell.used(), cell.held());
                let remaining = quota.limit.0.saturating_sub(used).saturating_sub(held).max(0);
                Stand { limit, used, held, remaining, reset: ends.map(|ends| ends.get().saturating_sub(now)) }
            }
            _ => Stand { limit, ..Stand::default() },
        }
    }
}

/// How a limit stands for one subject, in units of its meter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stand {
    pub limit: i64,
    pub used: i64,
    pub held: i64,
    pub remaining: i64,
    /// Nanoseconds until all of it is there again; `None` for never.
    pub reset: Option<u64>,
}
