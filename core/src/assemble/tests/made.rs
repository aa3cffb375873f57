//! Traces made at random together with their truth: the same work, shown as real instrumentations show it, must come to the same
//! numbers. A wrong number is a failure; unknown is one only where the spans tell.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use super::*;

const TRIED: u64 = 20_000;

/// What a user's records must come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Truth {
    calls: u64,
    input: u64,
    output: u64,
    unknown: u64,
}

/// One call of a model, as it really was.
struct Real {
    tokens: (u64, u64),
    model: &'static str,
    answer: u64,
    time: (u64, u64),
}

struct Maker {
    random: StdRng,
    spans: Vec<Sketch>,
    truth: BTreeMap<&'static str, Truth>,
    next: u64,
}

const MODELS: [&str; 3] = ["gpt-4.1", "claude-sonnet-4-5", "o4-mini"];
const FRAMEWORKS: [&str; 3] = ["framework.one", "framework.two", "pydantic-ai"];
const CLIENTS: [&str; 2] = ["opentelemetry.instrumentation.openai.v1", "com.anthropic.sdk.python"];

impl Maker {
    fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), spans: vec![], truth: BTreeMap::new(), next: 1 }
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn one_of<T: Copy>(&mut self, among: &[T]) -> T {
        *among.choose(&mut self.random).unwrap()
    }

    fn often(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    /// A trace: a request, perhaps one after its end, perhaps a worker's instead.
    fn trace(&mut self) {
        let root = self.id();
        let mut top = if self.often(80) { server(root) } else { span(root).kind(Kind::Consumer).at(0, 1_000) };
        top = top.text(Field::Name, "work").text(Field::User, "ann");
        if self.often(50) {
            top = top.under_remote(9_999);
        }
        let is_server = top.kind == Kind::Server;
        self.spans.push(top);
        self.work(root, "ann", 0);
        if is_server && self.often(30) {
            let later = self.id();
            self.spans.push(server(later).under(root).at(2_000, 3_000).text(Field::User, "zoe"));
            self.work(later, "zoe", 2_000);
        }
    }

    /// Calls below a span, some below further spans, some for another user.
    fn work(&mut self, below: u64, user: &'static str, start: u64) {
        let mut parent = below;
        for _ in 0..self.random.random_range(0..3) {
            let id = self.id();
            self.spans.push(span(id).under(parent).at(start, start + 900));
            parent = id;
        }
        let mut at = start + 10;
        for _ in 0..self.random.random_range(1..4) {
            let (mut parent, mut user) = (parent, user);
            if self.often(20) {
                let id = self.id();
                user = "bob";
                self.spans.push(span(id).under(parent).at(at, at + 50).text(Field::User, user));
                parent = id;
            }
            if self.often(30) {
                self.agent(parent, user, at);
            } else {
                self.call(parent, user, at);
            }
            at += 100;
        }
    }

    /// An agent that repeats the sum of its calls, or says nothing.
    fn agent(&mut self, parent: u64, user: &'static str, at: u64) {
        let id = self.id();
        let known = (0..self.random.random_range(2..4)).map(|n| self.call(id, user, at + n * 20)).collect::<Vec<_>>();
        let known: Vec<(u64, u64)> = known.into_iter().flatten().collect();
        let scope = self.one_of(&FRAMEWORKS);
        let mut agent = span(id).under(parent).scope(scope).at(at, at + 95);
        if known.len() < 2 || self.often(60) {
            let operation = self.one_of(&["invoke_agent", "CHAIN", "workflow"]);
            agent = agent.text(Field::Operation, operation);
        }
        if known.len() > 1 && self.often(60) {
            agent = agent.tokens(known.iter().map(|known| known.0).sum(), known.iter().map(|known| known.1).sum());
        }
        self.spans.push(agent);
    }

    /// One call in one of many shapes; its tokens where they are known.
    fn call(&mut self, parent: u64, user: &'static str, at: u64) -> Option<(u64, u64)> {
        let tokens = (self.random.random_range(1_000..1_000_000_000), self.random.random_range(1_000..1_000_000_000));
        let (model, answer) = (self.one_of(&MODELS), self.random.random());
        let real = Real { tokens, model, answer, time: (at, at + 15) };
        let shape = self.random.random_range(0..12);
        let truth = self.truth.entry(user).or_default();
        truth.calls += 1;
        let known = !matches!(shape, 9 | 10);
        truth.unknown += u64::from(!known);
        if known && shape != 11 {
            (truth.input, truth.output) = (truth.input + tokens.0, truth.output + tokens.1);
        }
        self.show(shape, parent, &real);
        if shape < 4 && self.often(15) {
            self.inner(self.next - 1, user, at);
        }
        known.then_some(if shape == 11 { (0, 0) } else { tokens })
    }

    fn show(&mut self, shape: u32, parent: u64, real: &Real) {
        let (framework, client) = (self.one_of(&FRAMEWORKS), self.one_of(&CLIENTS));
        let (one, two) = (self.id(), self.id());
        let bare = |id: u64, scope: &str| {
            let (start, end) = real.time;
            chat(id).under(parent).scope(scope).at(start, end).text(Field::RequestModel, real.model)
        };
        let told = |id: u64, scope: &str| bare(id, scope).tokens(real.tokens.0, real.tokens.1);
        let (start, end) = real.time;
        let spans = match shape {
            0 => vec![told(one, client).answer(real.answer)],
            // Nested, with and without an id.
            1 => vec![told(one, framework), told(two, client).under(one).answer(real.answer).at(start + 1, end - 1)],
            2 => vec![bare(one, framework), told(two, client).under(one).at(start + 1, end - 1)],
            // Beside each other: two scopes, at once or one after the other.
            3 => vec![told(one, framework), told(two, client).answer(real.answer).at(start + 1, end - 1)],
            4 => vec![told(one, framework), told(two, client).at(end + 1, end + 3)],
            5 => vec![bare(one, framework).at(start, end + 2), told(two, client)],
            // One scope twice.
            6 => vec![
                told(one, client).answer(real.answer),
                told(two, client).answer(real.answer).at(start + 1, end + 1),
            ],
            7 => vec![told(one, client).answer(real.answer), told(two, client).answer(real.answer ^ 1)],
            // A dialect that nobody knows.
            8 => vec![told(one, "new.dialect").text(Field::Operation, "frobnicate")],
            9 => vec![bare(one, "new.dialect").text(Field::Operation, "frobnicate").text(Field::Provider, "openai")],
            // A stream that was cut, seen by two.
            10 => {
                let cut = bare(one, framework).failed().text(Field::ErrorType, "CancelledError");
                vec![cut, bare(two, client).under(one).failed().number(Field::Streaming, 1)]
            }
            _ => vec![bare(one, client).failed().text(Field::ErrorType, "RateLimitError")],
        };
        self.spans.extend(spans);
    }

    /// A tool that runs inside of the open span of a call, and calls a model itself.
    fn inner(&mut self, call: u64, user: &'static str, at: u64) {
        let tool = self.id();
        let tool_span = span(tool).under(call).at(at + 2, at + 12);
        self.spans.push(tool_span.scope("framework.one").text(Field::Operation, "execute_tool"));
        self.call(tool, user, at + 3);
    }
}

fn shown(spans: &[Sketch]) -> BTreeMap<String, Truth> {
    let mut shown: BTreeMap<String, Truth> = BTreeMap::new();
    for request in resolve(spans, true).requests.iter().filter(|request| !request.calls.is_empty()) {
        let truth = shown.entry(request.record.user.as_deref().unwrap_or("-").to_owned()).or_default();
        let totals = &request.record.totals;
        truth.calls += totals.calls;
        truth.input += totals.tokens.input;
        truth.output += totals.tokens.output;
        truth.unknown += totals.unknown_usage_calls;
    }
    shown
}

#[test]
fn what_was_done_is_what_is_recorded() {
    let (mut calls, mut unknown) = (0, 0);
    for seed in 0..TRIED {
        let mut maker = Maker::new(seed);
        maker.trace();
        let truth: BTreeMap<String, Truth> =
            maker.truth.iter().map(|(user, truth)| ((*user).to_owned(), *truth)).collect();
        let shown_at_once = shown(&maker.spans);
        assert_eq!(shown_at_once, truth, "seed {seed}: {:#?}", maker.spans);
        let mut repeated: Vec<Sketch> = maker.spans.iter().chain(maker.spans.iter().step_by(2)).cloned().collect();
        repeated.shuffle(&mut maker.random);
        assert_eq!(shown(&repeated), truth, "seed {seed}, in another order");
        calls += shown_at_once.values().map(|truth| truth.calls).sum::<u64>();
        unknown += shown_at_once.values().map(|truth| truth.unknown).sum::<u64>();
    }
    // As `cargo test` with --nocapture shows.
    #[expect(clippy::print_stdout, reason = "how much was tried is worth reading")]
    {
        println!("{TRIED} traces with {calls} calls; the usage of {unknown} is unknown, as no span tells it");
    }
    assert!(unknown * 4 < calls, "{unknown} of {calls}");
}

/// Whatever span that tells of a model is lost: nothing is counted that was not used, and no user pays for another.
#[test]
fn a_span_that_is_lost_adds_nothing() {
    for seed in 0..TRIED / 4 {
        let mut maker = Maker::new(seed);
        maker.trace();
        let lost = maker.random.random_range(0..maker.spans.len());
        if !maker.spans[lost].facts.contains_key(&Field::RequestModel) {
            continue;
        }
        let named = maker.spans[lost].clone();
        maker.spans.remove(lost);
        for (user, found) in shown(&maker.spans).into_iter().filter(|(user, _)| user != "-") {
            let truth = maker.truth[&*user];
            assert!(
                found.input <= truth.input && found.output <= truth.output,
                "seed {seed} without {named:#?}: {found:?}"
            );
        }
    }
}
