//! The pretended world: a virtual clock, instances with clocks of their own, a network that delays, loses, doubles and reorders, a
//! store that goes away and forgets. Requests are driven through it exactly as the async driver does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;
use std::sync::Arc;

use super::super::attempt::Refused;
use super::super::attempt::{Attempt, Standing, Step};
use super::super::node::{Cell, Node};
use super::super::rule::{Action, Kind, Rule, Traits};
use super::super::shared::{Ask, Key, Reporter, Shared, Told, What};
use super::super::subject::Since;
use super::super::{Meter, Usage};
use super::books::{Books, Entry};
use super::dice::Dice;
pub(super) use super::weather::{Fault, Weather};

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;
/// When the world begins: a whole microsecond, and a whole day, so that no period ends within it.
pub(super) const EPOCH: u64 = 1_789_948_800 * SECOND;
const TICK: u64 = 20 * MS;
/// How long a hold counts without being renewed.
const HOLD: u64 = 60 * SECOND;

pub(super) enum Event {
    Arrive(usize, Order),
    AtStore(u64),
    Answer(u64, Vec<Told>, (u64, u64)),
    Timeout(u64),
    Tick(usize, u32),
    Settle(usize, u32, Granted),
    Fault(Fault),
}

/// What a request is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub user: &'static str,
    pub amount: i64,
    /// What it comes to in the end, in thousandths of the amount; `None` for a request that is given back whole.
    pub actual: Option<i64>,
    pub takes: u64,
}

/// What a granted request holds.
pub(super) struct Granted {
    charged: Vec<(Arc<Cell>, usize)>,
    at: u64,
    order: Order,
}

struct Flight<'r> {
    attempt: Attempt<'r>,
    peer: usize,
    order: Order,
    alone: bool,
}

/// A message that waits for its answer.
struct Sent {
    peer: usize,
    life: u32,
    flight: Option<u64>,
    asks: Vec<(usize, Arc<Cell>, Ask)>,
    at: u64,
    open: bool,
}

pub(super) struct Peer {
    pub node: Rc<Node>,
    pub who: Reporter,
    pub life: u32,
    cut_until: u64,
    breaker_until: u64,
    /// How far its idea of the store's time is off, and the round trip that this was learned by.
    error: i64,
    best: u64,
    clock: u64,
    waiting: Vec<u64>,
}

#[derive(Clone, Debug)]
#[expect(dead_code, reason = "a failure shows all of it")]
pub(super) struct Outcome {
    pub peer: usize,
    pub at: u64,
    pub order: Order,
    pub refused: Option<Refused>,
    pub alone: bool,
}

pub(super) struct World<'r> {
    pub now: u64,
    pub dice: Dice,
    pub rules: &'r [Arc<Rule>],
    pub weather: Weather,
    pub store: BTreeMap<Key, Option<Shared>>,
    snapshot: BTreeMap<Key, Option<Shared>>,
    away_until: u64,
    pub peers: Vec<Peer>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    flights: BTreeMap<u64, Flight<'r>>,
    sent: BTreeMap<u64, Sent>,
    next: u64,
    pub books: Books,
    pub outcomes: Vec<Outcome>,
    pub messages: u64,
}

impl<'r> World<'r> {
    pub(super) fn new(seed: u64, rules: &'r [Arc<Rule>], nodes: usize, databases: usize, weather: Weather) -> Self {
        let mut world = Self {
            now: EPOCH,
            dice: Dice::new(seed),
            rules,
            weather,
            store: BTreeMap::new(),
            snapshot: BTreeMap::new(),
            away_until: 0,
            peers: Vec::new(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            flights: BTreeMap::new(),
            sent: BTreeMap::new(),
            next: 0,
            books: Books::new(rules, nodes),
            outcomes: Vec::new(),
            messages: 0,
        };
        for place in 0..nodes {
            let who = Reporter {
                node: format!("node-{place}").into(),
                ledger: format!("ledger-{}", place % databases).into(),
            };
            let node = Rc::new(Node::new(EPOCH / 1_000, 10_000, u32::try_from(nodes).unwrap()));
            let (there, back) = (world.delay(), world.delay());
            world.peers.push(Peer {
                node,
                who,
                life: 0,
                cut_until: 0,
                breaker_until: 0,
                error: (i64::try_from(there).unwrap() - i64::try_from(back).unwrap()) / 2,
                best: there + back,
                clock: 0,
                waiting: Vec::new(),
            });
            let first = world.dice.below(TICK);
            world.plan(first, Event::Tick(place, 0));
        }
        world
    }

    pub(super) fn plan(&mut self, after: u64, event: Event) {
        self.next += 1;
        self.queue.push(Reverse((self.now + after, self.next)));
        self.events.insert(self.next, event);
    }

    /// Lets everything happen until then.
    pub(super) fn run_until(&mut self, end: u64) {
        while let Some(Reverse((at, id))) = self.queue.peek().copied().filter(|Reverse((at, _))| *at <= end) {
            self.queue.pop();
            self.now = at;
            let event = self.events.remove(&id).unwrap();
            self.happen(event);
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(peer, order) => self.arrive(peer, order),
            Event::AtStore(id) => self.at_store(id),
            Event::Answer(id, told, way) => self.answered(id, &told, way),
            Event::Timeout(id) => {
                if let Some(sent) = self.sent.get_mut(&id).filter(|sent| sent.open) {
                    sent.open = false;
                    let peer = sent.peer;
                    if self.peers[peer].life == sent.life {
                        self.peers[peer].breaker_until = self.now + SECOND / 2;
                        self.concluded(id, None);
                    }
                }
            }
            Event::Tick(peer, life) => self.tick(peer, life),
            Event::Settle(peer, life, granted) => self.settle(peer, life, &granted),
            Event::Fault(fault) => self.fault(fault),
        }
    }

    /// The time as this instance knows it: never backwards.
    pub(super) fn clock(&mut self, peer: usize) -> u64 {
        let peer = &mut self.peers[peer];
        peer.clock = peer.clock.max(self.now.saturating_add_signed(peer.error));
        peer.clock
    }

    fn delay(&mut self) -> u64 {
        let (least, most) = self.weather.delay;
        let stalls = self.dice.chance(self.weather.stalled);
        self.dice.between(least, most) + if stalls { 2 * SECOND } else { 0 }
    }

    fn arrive(&mut self, peer: usize, order: Order) {
        let now = self.clock(peer);
        let traits = Traits { tenant: "acme", user: Some(order.user), plan: "free", ..Traits::default() };
        let usage = Usage { requests: 1, input_tokens: order.amount, ..Usage::default() };
        let node = Rc::clone(&self.peers[peer].node);
        let attempt = Attempt::new(&node, self.rules, &traits, &Since::default(), &usage, now);
        self.next += 1;
        let id = self.next;
        self.drive(id, Flight { attempt, peer, order, alone: false });
    }

    fn drive(&mut self, id: u64, mut flight: Flight<'r>) {
        let peer = flight.peer;
        let now = self.clock(peer);
        let node = Rc::clone(&self.peers[peer].node);
        match flight.attempt.step(&node, (now + HOLD) / 1_000, now) {
            Step::Granted => self.decided(flight, None),
            Step::Refused(refused) => self.decided(flight, Some(refused)),
            Step::Wait(_) => {
                self.peers[peer].waiting.push(id);
                self.flights.insert(id, flight);
            }
            Step::Ask(asks) if self.now < self.peers[peer].breaker_until => {
                for (place, ask) in &asks {
                    let cell = flight.attempt.limits[*place].cell.as_ref().expect("it asked");
                    node.heard(cell, ask, None, now);
                }
                self.alone(flight);
            }
            Step::Ask(asks) => {
                let cell = |place: usize| Arc::clone(flight.attempt.limits[place].cell.as_ref().unwrap());
                let mut asks: Vec<_> = asks.into_iter().map(|(place, ask)| (place, cell(place), ask)).collect();
                self.flights.insert(id, flight);
                self.fill_ledgers(peer, &mut asks);
                self.send(peer, Some(id), asks);
            }
        }
    }

    /// As the driver does: a quota of which nothing is known yet is told what the ledger says, whoever settled it.
    fn fill_ledgers(&self, peer: usize, asks: &mut [(usize, Arc<Cell>, Ask)]) {
        let Peer { node, who, .. } = &self.peers[peer];
        for (_, cell, ask) in asks {
            let What::Quota(quota) = &mut ask.what else { continue };
            if quota.ledger.is_none() {
                let ledger = self.books.ledger(cell.key, &who.ledger);
                quota.ledger = Some(ledger);
                node.knows(cell, ledger);
            }
        }
    }

    fn alone(&mut self, mut flight: Flight<'r>) {
        let now = self.clock(flight.peer);
        let node = Rc::clone(&self.peers[flight.peer].node);
        flight.alone = true;
        match flight.attempt.without_store(&node, now) {
            Step::Granted => self.decided(flight, None),
            Step::Refused(refused) => self.decided(flight, Some(refused)),
            Step::Ask(_) | Step::Wait(_) => panic!("who decides without the store decides"),
        }
    }

    fn decided(&mut self, flight: Flight<'r>, refused: Option<Refused>) {
        let Flight { attempt, peer, order, alone } = flight;
        self.outcomes.push(Outcome { peer, at: self.now, order, refused, alone });
        if refused.is_some() {
            assert!(attempt.limits.iter().all(|limit| limit.standing != Standing::Taken), "refused, yet it holds");
            return;
        }
        let life = self.peers[peer].life;
        let mut charged = Vec::new();
        for limit in &attempt.limits {
            let Some(cell) = &limit.cell else { continue };
            let is_taken = limit.standing == Standing::Taken;
            if is_taken || limit.rule.action == Action::Warn {
                let index = self.rules.iter().position(|rule| Arc::ptr_eq(rule, limit.rule)).unwrap();
                let forced = alone || !is_taken;
                let entry = Entry { key: cell.key, rule: index, peer, life, amount: limit.amount };
                self.books.admit(&entry, forced, self.now);
                charged.push((Arc::clone(cell), index));
            }
        }
        let granted = Granted { charged, at: self.now, order };
        self.plan(order.takes, Event::Settle(peer, life, granted));
    }

    /// As the driver settles: rates by the difference, quotas through the ledger.
    fn settle(&mut self, peer: usize, life: u32, granted: &Granted) {
        if self.peers[peer].life != life {
            return;
        }
        let now = self.clock(peer);
        let node = Rc::clone(&self.peers[peer].node);
        let drained = self.now - granted.at;
        for (cell, index) in &granted.charged {
            let rule = &self.rules[*index];
            let (held, actual) = match rule.meter {
                Meter::Requests => (1, i64::from(granted.order.actual.is_some())),
                _ => (granted.order.amount, granted.order.amount * granted.order.actual.unwrap_or(0) / 1_000),
            };
            let entry = Entry { key: cell.key, rule: *index, peer, life, amount: held };
            match &rule.kind {
                Kind::Rate(rate) => {
                    node.replace(cell, held, actual, drained, now);
                    self.books.correct(&entry, rate, actual - held, drained, self.now);
                }
                Kind::Quota(_) => {
                    let ledger = self.peers[peer].who.ledger.clone();
                    let actual = granted.order.actual.map(|_| actual);
                    // First what is used, then what is held no longer: never neither.
                    if let Some(ledger) = self.books.settle(&entry, ledger, actual) {
                        node.settled(cell, ledger);
                    }
                    node.replace(cell, held, 0, drained, now);
                }
            }
        }
    }

    fn tick(&mut self, peer: usize, life: u32) {
        if self.peers[peer].life != life {
            return;
        }
        let now = self.clock(peer);
        if self.now >= self.peers[peer].breaker_until {
            self.report(peer, now, false);
        }
        self.plan(TICK, Event::Tick(peer, life));
    }

    fn report(&mut self, peer: usize, now: u64, all: bool) -> bool {
        let node = Rc::clone(&self.peers[peer].node);
        let asks = node.reports(200, (now + HOLD) / 1_000, now, all);
        // A warning is charged before all is decided.
        if !self.flights.values().any(|flight| flight.peer == peer) {
            self.books.check_node(peer, self.peers[peer].life, &node);
        }
        let some = !asks.is_empty();
        if some {
            self.send(peer, None, asks.into_iter().map(|(cell, ask)| (0, cell, ask)).collect());
        }
        some
    }

    fn send(&mut self, peer: usize, flight: Option<u64>, asks: Vec<(usize, Arc<Cell>, Ask)>) {
        self.next += 1;
        let id = self.next;
        self.messages += 1;
        let Peer { life, cut_until, .. } = self.peers[peer];
        self.sent.insert(id, Sent { peer, life, flight, asks, at: self.now, open: true });
        self.plan(self.weather.timeout, Event::Timeout(id));
        let copies = if self.dice.chance(self.weather.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.delay();
            if self.now >= cut_until && !self.dice.chance(self.weather.lost) {
                self.plan(delay, Event::AtStore(id));
            }
        }
    }

    fn at_store(&mut self, id: u64) {
        if self.now < self.away_until {
            return;
        }
        let Some(sent) = self.sent.get(&id) else { return };
        let (peer, way) = (sent.peer, self.now - sent.at);
        let who = self.peers[peer].who.clone();
        let mut told = Vec::new();
        for (_, cell, ask) in &sent.asks {
            let state = self.store.entry(cell.key).or_default();
            let answer = Shared::take(state, &who, ask, self.now / 1_000);
            self.books.stored(cell.key, peer, ask, (&answer, sent.at), self.now);
            told.push(answer);
        }
        let delay = self.delay();
        if self.now >= self.peers[peer].cut_until && !self.dice.chance(self.weather.lost) {
            self.plan(delay, Event::Answer(id, told, (way, delay)));
        }
    }

    fn answered(&mut self, id: u64, told: &[Told], (there, back): (u64, u64)) {
        let Some(sent) = self.sent.get_mut(&id).filter(|sent| sent.open) else { return };
        let peer = sent.peer;
        if self.peers[peer].life != sent.life || self.now < self.peers[peer].cut_until {
            return;
        }
        sent.open = false;
        let peer = &mut self.peers[peer];
        peer.breaker_until = 0;
        if there + back < peer.best {
            peer.best = there + back;
            peer.error = (i64::try_from(there).unwrap() - i64::try_from(back).unwrap()) / 2;
        }
        self.concluded(id, Some(told));
    }

    /// An ask has its answer, or will have none: who asked goes on, then who waited.
    fn concluded(&mut self, id: u64, told: Option<&[Told]>) {
        let Sent { peer, flight, .. } = self.sent[&id];
        let now = self.clock(peer);
        let node = Rc::clone(&self.peers[peer].node);
        let asks = self.sent[&id].asks.clone();
        for (number, (_, cell, ask)) in asks.iter().enumerate() {
            let answer = told.map(|told| &told[number]);
            node.heard(cell, ask, answer, now);
            if answer.is_some() {
                self.books.heard(cell.key, peer, ask);
            }
        }
        let mine = flight.and_then(|flight| Some((flight, self.flights.remove(&flight)?)));
        match (mine, told) {
            (Some((id, flight)), Some(_)) => self.drive(id, flight),
            (Some((_, flight)), None) => self.alone(flight),
            (None, _) => {}
        }
        for id in std::mem::take(&mut self.peers[peer].waiting) {
            if let Some(flight) = self.flights.remove(&id) {
                self.drive(id, flight);
            }
        }
    }

    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(peer, time) => self.peers[peer].cut_until = self.now + time,
            Fault::Away(time) => self.away_until = self.now + time,
            Fault::Snapshot => self.snapshot = self.store.clone(),
            Fault::Restore => {
                self.books.forgot(&self.store, &self.snapshot, self.now);
                self.store = self.snapshot.clone();
            }
            Fault::Forget => {
                let nothing = BTreeMap::new();
                self.books.forgot(&self.store, &nothing, self.now);
                self.store = nothing;
            }
            Fault::Crash(place) => self.crash(place),
        }
    }

    fn crash(&mut self, place: usize) {
        self.flights.retain(|_, flight| flight.peer != place);
        let nodes = u32::try_from(self.peers.len()).unwrap();
        // It comes back with a later time: a new incarnation.
        let now = self.clock(place) / 1_000;
        let peer = &mut self.peers[place];
        peer.life += 1;
        peer.node = Rc::new(Node::new(now, 10_000, nodes));
        peer.waiting.clear();
        peer.breaker_until = 0;
        let life = peer.life;
        self.books.crashed(place, life - 1);
        self.plan(TICK, Event::Tick(place, life));
    }

    /// The sky clears.
    pub(super) fn calm(&mut self) {
        self.weather = Weather::fair(5);
        self.away_until = 0;
        for peer in &mut self.peers {
            peer.cut_until = 0;
        }
    }

    /// Demand ends, and all have time to say what they know.
    pub(super) fn quiesce(&mut self) {
        self.calm();
        let end = self.now + 30 * SECOND;
        self.run_until(end);
        let mut rounds = 0;
        while (0..self.peers.len()).fold(false, |some, peer| {
            let now = self.clock(peer);
            self.report(peer, now, true) | some
        }) {
            let end = self.now + SECOND;
            self.run_until(end);
            rounds += 1;
            assert!(rounds < 20, "there is no end of news");
        }
        assert!(self.flights.is_empty(), "a request was never decided");
        let lives: Vec<_> = self.peers.iter().map(|peer| (peer.who.node.to_string(), peer.life)).collect();
        let nodes: Vec<_> = self.peers.iter().map(|peer| Rc::clone(&peer.node)).collect();
        self.books.check_store(&self.store, &lives, &nodes);
    }
}
