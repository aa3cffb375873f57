//! Before a request: may it begin, and what is held for it.

use std::borrow::Cow;

use super::*;

impl Limits {
    /// Decides on a request and holds what it will probably use.
    pub async fn check(&self, asked: &Asked) -> Decision {
        let started = (self.outside.now)();
        let asked = &*self.named(asked);
        let rules = self.rules();
        let tenant = asked.tenant();
        let (plan, since) = self.account(&rules, &tenant, asked).await;
        let traits = asked.traits(&tenant, &plan);
        let usage = self.expected(asked);
        let mut attempt = Attempt::new(&self.node, &rules, &traits, &since, &usage, self.now());
        let refused = self.decide(&mut attempt).await;
        let mut limits = self.states(&attempt, &traits);
        self.count(&attempt, refused.as_ref(), &mut limits);
        if refused.is_some() || attempt.limits.iter().any(|limit| limit.standing == Standing::Passed) {
            self.saw_over(asked, &attempt, refused.as_ref(), &limits);
            self.tell_refusals(asked, &attempt, refused.as_ref(), &limits, &since);
        }
        self.meters.check_duration.observe((self.outside.now)().since(started).as_secs_f64());
        match refused {
            None => {
                let reservation = self.hold(&attempt, asked.origin);
                Decision::Admit(Admission { reservation, degraded: attempt.degraded, limits })
            }
            Some(Refused { place, reason, wait }) => Decision::Refuse(Refusal {
                place,
                reason,
                retry_after: wait.map(Duration::from_nanos),
                degraded: attempt.degraded,
                limits,
            }),
        }
    }

    /// With the model by the name under which it will be charged.
    pub(super) fn named<'a>(&self, asked: &'a Asked) -> Cow<'a, Asked> {
        match asked.model.as_deref().and_then(|model| (self.outside.name)(model)) {
            Some(name) => Cow::Owned(Asked { model: Some(name), ..asked.clone() }),
            None => Cow::Borrowed(asked),
        }
    }

    fn expected(&self, asked: &Asked) -> Usage {
        let (model, agent) = (asked.model.as_deref(), asked.agent.as_deref());
        let tokens = self.estimates.tokens(model, agent, asked.input_tokens, asked.max_output_tokens);
        let price = model.and_then(|model| (self.outside.price)(model, tokens));
        // An unknown price is not nothing.
        Usage::new(1, &tokens, Some(price.unwrap_or(NanoUsd(self.config.estimate.cost.0.0))))
    }

    /// `None` if it is granted; then all of it is taken.
    pub(super) async fn decide(&self, attempt: &mut Attempt<'_>) -> Option<Refused> {
        for _ in 0..MOST_ROUNDS {
            let now = self.now();
            match attempt.step(&self.node, self.until(now), now) {
                Step::Granted => return None,
                // What this instance knows of the limit does not count without the store.
                Step::Refused(refused) if self.breaker.is_open() && attempt.opens_alone(refused.place) => break,
                Step::Refused(refused) => return Some(refused),
                Step::Wait(key) => {
                    if !self.wait_for(key, attempt).await {
                        break;
                    }
                }
                Step::Ask(asks) => {
                    if !self.learn(attempt, asks).await {
                        break;
                    }
                }
            }
        }
        match attempt.without_store(&self.node, self.now()) {
            Step::Refused(refused) => Some(refused),
            _ => None,
        }
    }

    /// Asks, and learns what is told. False if nothing is.
    async fn learn(&self, attempt: &Attempt<'_>, asks: Vec<(usize, Ask)>) -> bool {
        let with_cell = |(place, ask): (usize, Ask)| Some((Arc::clone(attempt.limits[place].cell.as_ref()?), ask));
        let mut asking = Asking::new(self, asks.into_iter().filter_map(with_cell).collect());
        self.fill_ledgers(&mut asking.asks).await;
        asking.ask().await;
        // What nobody answers for is decided without.
        asking.answers.as_ref().is_some_and(|answers| !answers.told.contains(&None))
    }

    /// Waits for the answer to somebody else's question. False if none came in time.
    async fn wait_for(&self, key: Key, attempt: &Attempt<'_>) -> bool {
        if self.breaker.is_open() {
            return false;
        }
        let answer = self.answered(key).notified();
        tokio::pin!(answer);
        answer.as_mut().enable();
        // It may have come between the look and here.
        if attempt.limits.iter().filter_map(|limit| limit.cell.as_ref()).any(|cell| cell.key == key && !cell.is_busy())
        {
            return true;
        }
        tokio::time::timeout(self.config.patience(), answer).await.is_ok()
    }

    pub(super) fn answered(&self, key: Key) -> &Notify {
        &self.answered[usize::try_from(key.0 % 64).unwrap_or(0)]
    }

    /// A quota of which nothing is known yet is told what the ledger says, so that a store that has lost it knows too.
    async fn fill_ledgers(&self, asks: &mut [(Arc<Cell>, Ask)]) {
        let unknown = |ask: &Ask| matches!(&ask.what, What::Quota(quota) if quota.ledger.is_none());
        let keys: Vec<Key> = asks.iter().filter(|(_, ask)| unknown(ask)).map(|(_, ask)| ask.key).collect();
        if keys.is_empty() {
            return;
        }
        let read = tokio::time::timeout(self.config.patience(), (self.outside.ledger)(keys)).await;
        let Ok(Some(ledgers)) = read else { return };
        for ((cell, ask), ledger) in asks.iter_mut().filter(|(_, ask)| unknown(ask)).zip(ledgers) {
            let What::Quota(quota) = &mut ask.what else { continue };
            quota.ledger = Some(ledger);
            self.node.knows(cell, ledger);
        }
    }

    /// Asks the store; `None` if it is away, and at once if that is known.
    pub(super) async fn ask(&self, asks: &[Ask]) -> Option<Answers> {
        let who = self.who.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.ask_as(&who, asks).await
    }

    pub(super) async fn ask_as(&self, who: &Reporter, asks: &[Ask]) -> Option<Answers> {
        let store = self.store.get().filter(|_| !self.breaker.is_open())?;
        let sent = (self.outside.now)();
        let answers = tokio::time::timeout(self.config.patience(), store.ask(who, asks, sent.0 / 1_000)).await;
        let received = (self.outside.now)();
        match answers {
            Ok(Ok(answers)) => {
                self.keep_time(sent, received, answers.now);
                Some(answers)
            }
            Ok(Err(error)) => {
                self.trip(&chain(&error));
                None
            }
            Err(_) => {
                self.trip("no answer in time");
                None
            }
        }
    }

    pub(super) fn trip(&self, error: &str) {
        if self.breaker.trip() {
            self.meters.store_up.set(0);
            tracing::warn!(error, "limit store away: each limit follows its on_store_error");
        }
    }

    /// Follows the store's clock: a quick answer tells it best, and a jump back is not followed at once.
    fn keep_time(&self, sent: Timestamp, received: Timestamp, store: u64) {
        let middle = sent.0 / 2 + received.0 / 2;
        let Ok(sample) = i64::try_from(i128::from(store) * 1_000 - i128::from(middle)) else { return };
        let known = self.offset.load(Ordering::Relaxed);
        // Half of the way there and back is what a sample can be wrong by.
        let error = i64::try_from(received.0.saturating_sub(sent.0) / 2).unwrap_or(i64::MAX);
        if (sample - known).abs() > error {
            let step = (sample - known) / 8;
            let next = if known == 0 || step == 0 { sample } else { known + step };
            self.offset.store(next, Ordering::Relaxed);
        }
    }

    fn hold(&self, attempt: &Attempt<'_>, origin: Origin) -> Reservation {
        let at = self.now();
        let charged = attempt.limits.iter().filter(|limit| limit.is_charged());
        let parts =
            charged.filter_map(|limit| Some(Part { cell: Arc::clone(limit.cell.as_ref()?), amount: limit.amount }));
        let hold = Hold { origin, at, parts: parts.collect() };
        let (reservation, pushed_out) = self.holds.add(hold, at.saturating_add(nanos(self.config.hold_ttl)));
        if let Some(old) = pushed_out {
            self.meters.holds_expired.inc();
            old.release(&self.node, at);
        }
        reservation
    }
}
