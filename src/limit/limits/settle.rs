//! After a request: what was held goes, what was used is charged.

use super::*;
use tacho_core::domain::record::Request;

impl Limits {
    /// The request did not take place. False if there is no such hold.
    pub fn release(&self, reservation: Reservation) -> bool {
        let hold = self.holds.take(reservation);
        let found = hold.is_some();
        if let Some(hold) = hold {
            hold.release(&self.node, self.now());
        }
        found
    }

    /// The request used so much, says who made it: held from now on, until its spans tell. False if there is no such hold.
    pub fn correct(&self, reservation: Reservation, used: &Usage) -> bool {
        let now = self.now();
        let mut corrections = Vec::new();
        let held_at = self.holds.change(reservation, |part| {
            let meter = part.cell.meter();
            let (held, used) = (part.amount, if meter == Meter::Requests { part.amount } else { used.of(meter) });
            part.amount = used;
            corrections.push((Arc::clone(&part.cell), held, used));
        });
        let Some(at) = held_at else { return false };
        for (cell, held, used) in corrections {
            self.node.correct(&cell, held, used, now.saturating_sub(at), now);
        }
        true
    }

    /// What is held for a request that was recorded, of this limit.
    pub fn held_for(&self, trace: TraceId, span: SpanId, key: Key) -> Option<i64> {
        self.holds.held_for(trace, span, key)
    }

    /// Settles a request whose record was written. `before`: what it was charged by an earlier form of its record.
    pub fn settle(&self, trace: TraceId, span: SpanId, ended: Timestamp, before: &[Charge], after: &[Charge]) {
        let now = self.now();
        let hold = if before.is_empty() { self.holds.take_for(trace, span) } else { None };
        for charge in after.iter().filter(|charge| charge.period.is_none()) {
            let earlier = before.iter().find(|earlier| earlier.key == charge.key).map_or(0, Charge::total);
            let held = hold.as_ref().and_then(|hold| hold.of(charge.key));
            // What is over is over: a bucket has long refilled from a request of yesterday.
            if held.is_none() && now.saturating_sub(ended.0) > self.memory_of(charge) {
                continue;
            }
            let ends = None;
            let Some(cell) = self.node.cell(charge.key, &charge.rule, charge.tier, ends, now) else { continue };
            let drained = hold.as_ref().map_or(0, |hold| now.saturating_sub(hold.at));
            self.node.replace(&cell, held.unwrap_or(earlier), charge.total(), drained, now);
        }
        let Some(hold) = hold else { return };
        for part in &hold.parts {
            // A quota's part goes as the ledger has it now; a rate's only if the record does not match that limit after all.
            let settled = after.iter().any(|charge| charge.key == part.cell.key && charge.period.is_none());
            if !settled {
                self.node.replace(&part.cell, part.amount, 0, now.saturating_sub(hold.at), now);
            }
        }
    }

    fn memory_of(&self, charge: &Charge) -> u64 {
        match charge.rule.tier(charge.tier) {
            Kind::Rate(rate) => rate.capacity().max(nanos(rate.period)).max(60_000_000_000),
            Kind::Quota(_) => u64::MAX,
        }
    }

    /// The ledger says this of the quota that was charged now for such a request; the store hears it, whether or not anybody asks
    /// for this limit here.
    pub fn counted(&self, charge: &Charge, ledger: Ledger, request: &Request) {
        let ends = charge.ends.map(|ends| ends.0);
        match self.node.cell(charge.key, &charge.rule, charge.tier, ends, self.now()) {
            Some(cell) => {
                let used = self.node.settled(&cell, ledger);
                self.saw_counted(charge, used, request);
                self.tell_thresholds(charge, used, request);
            }
            None => {
                self.meters.unreported.inc();
                self.tell_thresholds(charge, ledger.used, request);
            }
        }
    }
}
