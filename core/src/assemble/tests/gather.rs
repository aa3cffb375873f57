//! The gatherer beside a slow model of it, under a clock of our own.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::assemble::{Closed, Gatherer};
use crate::domain::lsn::Lsn;
use crate::domain::span::Received;

const QUIET: Duration = Duration::from_millis(200);

fn config() -> AssembleConfig {
    AssembleConfig { quiet: QUIET, ..AssembleConfig::default() }
}

fn at(millis: u64) -> Timestamp {
    Timestamp(millis * 1_000_000)
}

fn trace(number: u8) -> TraceId {
    TraceId::from_bytes(&[number; 16]).unwrap()
}

fn received(trace_number: u8, id: u64) -> Received {
    let (origin, span) = chat(id).tokens(1, 1).build();
    Received { trace_id: trace(trace_number), origin, span }
}

/// The traces in the order they were handed out, by their number.
fn numbers(closed: &[Closed]) -> Vec<u8> {
    closed.iter().map(|closed| closed.trace_id.as_bytes()[0]).collect()
}

#[test]
fn a_trace_is_handed_out_when_it_is_quiet() {
    let mut gatherer = Gatherer::new(&config());
    gatherer.add(received(1, 1), Lsn(1), at(0));
    gatherer.add(received(1, 2), Lsn(1), at(150));
    assert_eq!(numbers(&gatherer.close_due(at(349), 9)), [0; 0]);
    let closed = gatherer.close_due(at(350), 9);
    assert_eq!((numbers(&closed), closed[0].first_seen), (vec![1], at(0)));
    assert_eq!(closed[0].trace.spans().count(), 2);
    assert!(gatherer.is_empty());
}

/// At the latest three times `quiet` after the first span that is not yet written; and so again and again.
#[test]
fn a_trace_that_is_never_quiet_is_handed_out_all_the_same() {
    let mut gatherer = Gatherer::new(&config());
    let mut handed_out = Vec::new();
    for step in 0..30 {
        gatherer.add(received(1, step + 1), Lsn(1), at(step * 100));
        let closed = gatherer.close_due(at(step * 100), 9);
        handed_out.extend(closed.iter().map(|closed| (step * 100, closed.trace.spans().count())));
    }
    assert_eq!(handed_out, [(600, 7), (1_300, 7), (2_000, 7), (2_700, 7)]);
}

#[test]
fn when_full_the_first_due_goes_and_not_the_one_that_still_grows() {
    let mut gatherer = Gatherer::bounded(&config(), 2, usize::MAX);
    gatherer.add(received(1, 1), Lsn(1), at(0));
    gatherer.add(received(2, 1), Lsn(1), at(50));
    gatherer.add(received(1, 2), Lsn(1), at(100));
    assert_eq!(numbers(&gatherer.close_due(at(100), 9)), [0; 0]);
    gatherer.add(received(3, 1), Lsn(1), at(100));
    assert_eq!(numbers(&gatherer.close_due(at(100), 9)), [2]);
}

#[test]
fn bytes_are_bounded_too_and_freed_when_handed_out() {
    let mut gatherer = Gatherer::bounded(&config(), usize::MAX, 2_000);
    let mut most = 0;
    for number in 1..=100 {
        gatherer.add(received(number, 1), Lsn(1), at(0));
        gatherer.close_due(at(0), 9);
        most = most.max(gatherer.len());
    }
    assert!((2..=10).contains(&most), "{most} traces in 2000 bytes");
    assert!(gatherer.len() > most / 2, "what was handed out made room, and no more than a part");
}

#[test]
fn one_trace_beyond_the_bound_is_handed_out_in_parts() {
    let mut gatherer = Gatherer::bounded(&config(), usize::MAX, 2_000);
    let mut handed_out = 0;
    for id in 1..=100 {
        gatherer.add(received(1, id), Lsn(1), at(0));
        handed_out += gatherer.close_due(at(0), 9).iter().map(|closed| closed.trace.spans().count()).sum::<usize>();
    }
    handed_out += gatherer.close_all(9).iter().map(|closed| closed.trace.spans().count()).sum::<usize>();
    assert_eq!((handed_out, gatherer.len()), (100, 0));
}

#[test]
fn all_is_handed_out_in_steps() {
    let mut gatherer = Gatherer::new(&config());
    for number in 1..=5 {
        gatherer.add(received(number, 1), Lsn(number.into()), at(u64::from(number)));
    }
    let steps: Vec<Vec<u8>> = std::iter::repeat_with(|| numbers(&gatherer.close_all(2))).take(4).collect();
    assert_eq!(steps, [vec![1, 2], vec![3, 4], vec![5], vec![]]);
}

/// The journal is needed from there on.
#[test]
fn the_oldest_frame_of_an_open_trace_is_known() {
    let mut gatherer = Gatherer::new(&config());
    assert_eq!(gatherer.oldest(), None);
    gatherer.add(received(1, 1), Lsn(3), at(0));
    gatherer.add(received(2, 1), Lsn(3), at(0));
    gatherer.add(received(3, 1), Lsn(5), at(100));
    // A later frame of a trace that is open already.
    gatherer.add(received(1, 2), Lsn(7), at(150));
    assert_eq!(gatherer.oldest(), Some(Lsn(3)));
    assert_eq!(gatherer.close_due(at(200), 9)[0].since, Lsn(3));
    assert_eq!(gatherer.oldest(), Some(Lsn(3)));
    assert_eq!(numbers(&gatherer.close_due(at(350), 9)), [3, 1]);
    assert_eq!(gatherer.oldest(), None);
}

#[test]
fn a_clock_that_goes_back_loses_nothing() {
    let mut gatherer = Gatherer::new(&config());
    gatherer.add(received(1, 1), Lsn(1), at(5_000));
    gatherer.add(received(1, 2), Lsn(1), at(10));
    assert_eq!(gatherer.close_due(at(20), 9).len(), 0);
    assert_eq!(gatherer.close_due(at(5_200), 9)[0].trace.spans().count(), 2);
}

/// What should be open: when each trace began and last grew, and the spans it holds.
#[derive(Default)]
struct Model {
    open: BTreeMap<TraceId, (Timestamp, Timestamp, Vec<SpanId>)>,
    most_traces: usize,
    /// As many as there may be now: some less while room is made.
    bound: usize,
}

impl Model {
    /// A round of closing begins.
    fn begin(&mut self) {
        let full = self.open.len() > self.most_traces;
        self.bound = if full { self.most_traces - self.most_traces / 4 } else { self.most_traces };
    }

    fn add(&mut self, received: &Received, now: Timestamp) {
        let (_, last, spans) = self.open.entry(received.trace_id).or_insert((now, now, Vec::new()));
        *last = now;
        spans.push(received.span.id);
    }

    fn due(&self, trace_id: &TraceId) -> Timestamp {
        let (first, last, _) = &self.open[trace_id];
        last.plus(QUIET).min(first.plus(QUIET * 3))
    }

    fn first_due(&self) -> Option<Timestamp> {
        self.open.keys().map(|trace_id| self.due(trace_id)).min()
    }

    fn must_close(&self, now: Timestamp) -> bool {
        self.open.len() > self.bound || self.first_due().is_some_and(|due| due <= now)
    }

    /// The trace had to go, before all others, and with all its spans.
    fn close(&mut self, closed: &Closed, now: Timestamp) {
        assert!(self.must_close(now));
        assert_eq!(Some(self.due(&closed.trace_id)), self.first_due());
        let (first, _, expected) = self.open.remove(&closed.trace_id).unwrap();
        let spans: Vec<SpanId> = closed.trace.spans().map(|(_, span)| span.id).collect();
        assert_eq!((closed.first_seen, spans), (first, expected));
    }
}

fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let most_traces = random.random_range(1..12);
    let mut gatherer = Gatherer::bounded(&config(), most_traces, usize::MAX);
    let mut model = Model { most_traces, ..Model::default() };
    let (mut now, mut next_id) = (0, 1);
    for _ in 0..2_000 {
        now += random.random_range(0..40) * random.random_range(0..3);
        for _ in 0..random.random_range(0..3) {
            let span = received(random.random_range(1..20), next_id);
            next_id += 1;
            model.add(&span, at(now));
            gatherer.add(span, Lsn(1), at(now));
        }
        let most = random.random_range(1..6);
        model.begin();
        let closed = gatherer.close_due(at(now), most);
        closed.iter().for_each(|closed| model.close(closed, at(now)));
        assert!(closed.len() == most || !model.must_close(at(now)));
        assert_eq!(gatherer.len(), model.open.len());
    }
    model.begin();
    let rest = gatherer.close_all(usize::MAX);
    rest.iter().for_each(|closed| model.close(closed, Timestamp::LATEST));
    assert!(gatherer.is_empty() && model.open.is_empty());
}

#[test]
fn every_span_is_handed_out_once_in_time_and_within_the_bounds() {
    for seed in 0..50 {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
