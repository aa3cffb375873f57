//! Which notices hold, and what is said of them when. Pure: what was seen, what a look found and the time are passed in.
//!
//! A sight is only a hint, as it may come from a record of last month or before a reset. So nothing is said before a look: `app`
//! asks the limits how they stand now for the request that was seen. Notices that hold are looked at again every round, one
//! `resend` long, so none changes more than once a round, however often its budget goes up and down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::alert::{Alert, Stand};
use tacho_core::domain::time::Timestamp;

/// A limit and for whom it counts, as people read it: `user ann`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Budget {
    pub limit: Arc<str>,
    pub subject: Box<str>,
}

/// What became of a sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// To be looked at as soon as can be.
    New,
    Known,
    /// There are as many notices as may be.
    Full,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Stands(Stand),
    /// So far as it is known while the store of limits is away: it may be more, but not less.
    AtLeast(Stand),
    /// No such limit for such a request any more.
    Gone,
    /// Nothing is known.
    Unknown,
}

/// Notices at the most.
pub(crate) const MOST: usize = 1_000;
/// An alert lasts so many rounds where nobody says it again.
const LASTS: u32 = 3;
/// How often it is said that a budget is there again: an Alertmanager may be away for a round.
const FAREWELLS: u8 = 3;
/// After so many rounds without another, a refusal says nothing of a budget that has something left.
const REFUSAL_LASTS: u32 = 10;

/// All notices, with what `W` it takes to look at each.
pub(crate) struct Board<W> {
    most: usize,
    resend: Duration,
    notices: BTreeMap<Budget, Notice<W>>,
    /// When all are looked at next.
    round: Timestamp,
    /// Sights since the last round for which there was no room.
    turned_away: u64,
}

struct Notice<W> {
    who: W,
    phase: Phase,
    /// When it was first seen, this time.
    since: Timestamp,
    /// Seen again since it was last looked at.
    again: bool,
    /// The smallest request that was refused, and when one last was.
    refused: Option<(i64, Timestamp)>,
    /// As it last stood.
    stand: Option<Stand>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Seen, not yet looked at.
    Seen,
    /// Full only with what is held, which may be free in a moment: it must stay so for a round.
    Held,
    Told,
    /// Over since then; still to be said so often.
    Over {
        at: Timestamp,
        left: u8,
    },
}

/// What is to be thought of a budget.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    UsedUp,
    Held,
    Room,
    Unknown,
}

impl<W: Clone> Board<W> {
    pub(crate) fn new(resend: Duration, most: usize, now: Timestamp) -> Self {
        Self { most, resend, notices: BTreeMap::new(), round: now.plus(resend), turned_away: 0 }
    }

    /// A request was refused for `refused` of it, or, `None`, a record has used it up.
    pub(crate) fn saw(
        &mut self,
        budget: Budget,
        who: impl FnOnce() -> W,
        refused: Option<i64>,
        now: Timestamp,
    ) -> Seen {
        let full = self.notices.len() >= self.most;
        match self.notices.get_mut(&budget) {
            Some(notice) => {
                let least = |amount: i64| notice.refused.map_or(amount, |(known, _)| amount.min(known));
                notice.refused = refused.map(|amount| (least(amount), now)).or(notice.refused);
                notice.again = true;
                Seen::Known
            }
            None if full => {
                self.turned_away += 1;
                Seen::Full
            }
            None => {
                let refused = refused.map(|amount| (amount, now));
                let (who, phase) = (who(), Phase::Seen);
                self.notices.insert(budget, Notice { who, phase, since: now, again: false, refused, stand: None });
                Seen::New
            }
        }
    }

    /// When everything is to be looked at next.
    pub(crate) fn round(&self) -> Timestamp {
        self.round
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.notices.len()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.notices.is_empty()
    }

    /// Whether something is to be looked at before the round.
    pub(crate) fn has_new(&self) -> bool {
        self.notices.values().any(|notice| notice.phase == Phase::Seen)
    }

    /// Begins a round if it is time. Tells how many sights there was no room for in the one that ended.
    pub(crate) fn begin_round(&mut self, now: Timestamp) -> Option<u64> {
        // Also where the clock was set back.
        let due = now >= self.round || now.plus(self.resend) < self.round;
        due.then(|| {
            self.round = now.plus(self.resend);
            std::mem::take(&mut self.turned_away)
        })
    }

    /// What is to be looked at now: in a round everything, else what is new.
    pub(crate) fn take_due(&mut self, all: bool) -> Vec<(Budget, W)> {
        let wanted = self.notices.iter_mut().filter(|(_, notice)| all || notice.phase == Phase::Seen);
        let taken = |(budget, notice): (&Budget, &mut Notice<W>)| {
            notice.again = false;
            (budget.clone(), notice.who.clone())
        };
        wanted.map(taken).collect()
    }

    /// Hears what a look found. What is to be said now.
    pub(crate) fn found(&mut self, budget: &Budget, found: Found, now: Timestamp) -> Option<Alert> {
        let notice = self.notices.get_mut(budget)?;
        let verdict = notice.judge(found, now, self.resend * REFUSAL_LASTS);
        let Some(phase) = notice.next(verdict, now, self.resend) else {
            self.notices.remove(budget);
            return None;
        };
        match (notice.phase, phase) {
            (Phase::Told, Phase::Over { .. }) => notice.refused = None,
            (Phase::Over { .. }, Phase::Told) => notice.since = now,
            _ => {}
        }
        notice.phase = phase;
        // The clock may have been set back since.
        notice.since = notice.since.min(now);
        let ends = match phase {
            Phase::Seen | Phase::Held => return None,
            Phase::Told => now.plus(self.resend * LASTS),
            Phase::Over { at, .. } => at.min(now).max(notice.since),
        };
        let (budget, stand) = (budget.clone(), notice.stand.clone()?);
        Some(Alert { budget, stand, starts: notice.since, ends })
    }
}

impl<W> Notice<W> {
    fn judge(&mut self, found: Found, now: Timestamp, memory: Duration) -> Verdict {
        let (stand, is_all) = match found {
            Found::Stands(stand) => (stand, true),
            Found::AtLeast(stand) => (stand, false),
            Found::Gone => return Verdict::Room,
            Found::Unknown => return self.unknown(now),
        };
        let recent = self.refused.filter(|(_, at)| now.since(*at) < memory);
        let wanted = recent.map_or(1, |(amount, _)| amount.max(1));
        let left = stand.limit.saturating_sub(stand.used);
        let verdict = if left < wanted {
            Verdict::UsedUp
        } else if left.saturating_sub(stand.held) < wanted {
            Verdict::Held
        } else if is_all {
            return Verdict::Room;
        } else {
            return self.unknown(now);
        };
        // What is said of a notice that is over is how it stood while it held.
        self.stand = Some(stand);
        verdict
    }

    /// What is not known is not over, unless its period is.
    fn unknown(&self, now: Timestamp) -> Verdict {
        let ends = self.stand.as_ref().and_then(|stand| stand.ends);
        if ends.is_some_and(|ends| ends <= now) { Verdict::Room } else { Verdict::Unknown }
    }

    /// `None`: nothing is left to be said.
    fn next(&self, verdict: Verdict, now: Timestamp, resend: Duration) -> Option<Phase> {
        Some(match (self.phase, verdict) {
            (_, Verdict::UsedUp) => Phase::Told,
            (Phase::Seen | Phase::Held, Verdict::Room) if self.again => Phase::Seen,
            (Phase::Seen | Phase::Held, Verdict::Room) => return None,
            (Phase::Seen, Verdict::Held) => Phase::Held,
            (Phase::Held, Verdict::Held) if now.since(self.since) >= resend => Phase::Told,
            (Phase::Told, Verdict::Room) => Phase::Over { at: now, left: FAREWELLS - 1 },
            (Phase::Over { left: 0, .. }, _) => return None,
            (Phase::Over { at, left }, _) => Phase::Over { at, left: left - 1 },
            (phase, _) => phase,
        })
    }
}
