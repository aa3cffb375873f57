//! Strategies for requests as bytes: well-formed, but written in every way that the wire format allows.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::encode::{bytes, fixed32, fixed64, group, number, padded_number};

type Bytes = BoxedStrategy<Vec<u8>>;

/// Keys of every unit and of the resource, some that are not on the list, and one of an event.
const KEYS: &[&str] = &[
    "http.request.method",
    "http.method",
    "http.route",
    "url.path",
    "http.target",
    "http.url",
    "http.response.status_code",
    "http.status_code",
    "enduser.id",
    "user.id",
    "gen_ai.agent.id",
    "gen_ai.operation.name",
    "openinference.span.kind",
    "ai.operationId",
    "gen_ai.system",
    "gen_ai.request.model",
    "gen_ai.response.id",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.cost",
    "operation.cost",
    "gen_ai.request.stream",
    "llm.is_streaming",
    "gen_ai.server.time_to_first_token",
    "ai.response.msToFirstChunk",
    "error.type",
    "exception.type",
    "exception.message",
    "gen_ai.input.messages",
    "url.query",
    "service.name",
    "service.namespace",
    "service.instance.id",
    "host.name",
    "k8s.pod.name",
];

const TEXTS: &[&str] = &[
    "",
    "chat",
    "LLM",
    "ai.streamText.doStream",
    "true",
    "7",
    "-1",
    "99999999999999999999",
    "0.0125",
    "1e400",
    "NaN",
    "GET",
    "/a/b?token=x#y",
    "https://host?q=1",
    "Rate limit reached for user",
    "openai.RateLimitError",
    "nul\0 tab\t del\u{7f} nel\u{85}",
    "grüße \u{1f600}",
];

/// A whole request.
pub fn request() -> Bytes {
    message(vec![field(1, resource_spans()), unknown()], 0..4)
}

fn resource_spans() -> Bytes {
    message(
        vec![field(2, scope_spans()), field(2, scope_spans()), field(1, resource()), field(3, text()), unknown()],
        0..6,
    )
}

fn resource() -> Bytes {
    let entity = message(vec![field(1, text()), field(3, text()), field(4, text()), unknown()], 0..3);
    message(vec![field(1, attribute()), field(1, attribute()), any_number(2), field(3, entity), unknown()], 0..5)
}

fn scope_spans() -> Bytes {
    let scope =
        message(vec![field(1, text()), field(2, text()), field(3, attribute()), any_number(4), unknown()], 0..4);
    let parts =
        vec![field(2, span()), field(2, span()), field(2, span()), field(1, scope), field(3, text()), unknown()];
    message(parts, 0..6)
}

/// Mostly a good span, its fields in any order; now and then an id, a time or a field too many.
pub fn span() -> Bytes {
    let head = vec![id(1, 16), id(2, 8), time(7, 1_790_000_000_000_000_000), time(8, 1_790_000_001_000_000_000)];
    let event = message(vec![fixed(1), field(2, text()), field(3, attribute()), any_number(4), unknown()], 0..4);
    let link = message(
        vec![id(1, 16), id(2, 8), field(3, text()), field(4, attribute()), any_number(5), fixed32_field(6), unknown()],
        0..4,
    );
    let status = message(vec![field(2, text()), small_number(3), unknown()], 0..4);
    let rest = vec![
        field(9, attribute()),
        field(9, attribute()),
        field(9, attribute()),
        field(9, attribute()),
        id(4, 8),
        field(3, text()),
        field(5, text()),
        small_number(6),
        any_number(10),
        field(11, event),
        any_number(12),
        field(13, link),
        any_number(14),
        field(15, status),
        fixed32_field(16),
        unknown(),
        id(1, 16),
        time(8, 1_790_000_002_000_000_000),
    ];
    let rest = vec(proptest::strategy::Union::new(rest), 0..12);
    (head, rest)
        .prop_flat_map(|(head, rest)| Just(head.into_iter().chain(rest).collect::<Vec<_>>()).prop_shuffle())
        .prop_map(|fields| fields.concat())
        .boxed()
}

/// Mostly one key and one value; now and then none, or one that comes in two parts.
fn attribute() -> Bytes {
    let usual = (key(), value(2)).prop_map(|(key, value)| [bytes(1, key), bytes(2, value)].concat());
    let odd = message(vec![field(1, key()), field(2, value(2)), field(2, value(2)), any_number(3), unknown()], 0..5);
    prop_oneof![6 => usual, 1 => odd].boxed()
}

/// An `AnyValue`: none, one or several of its alternatives.
fn value(depth: u32) -> Bytes {
    let double = prop_oneof![
        any::<u64>(),
        select(vec![0.0, 1.0, 42.0, -1.0, 0.1, 1e18, 1e-9, f64::NAN, f64::INFINITY]).prop_map(f64::to_bits),
    ];
    let mut parts = vec![
        field(1, text()),
        field(1, text()),
        small_number(2),
        any_number(3),
        small_number(3),
        double.prop_map(|bits| fixed64(4, bits)).boxed(),
        field(7, vec(any::<u8>(), 0..4)),
        any_number(8),
        unknown(),
    ];
    if depth > 0 {
        let inner = (key(), value(depth - 1)).prop_map(|(key, value)| [bytes(1, key), bytes(2, value)].concat());
        parts.push(field(5, message(vec![field(1, value(depth - 1)), unknown()], 0..3)));
        parts.push(field(6, message(vec![field(1, inner), unknown()], 0..3)));
    }
    prop_oneof![5 => message(parts.clone(), 1..2), 1 => message(parts, 0..4)].boxed()
}

fn key() -> Bytes {
    prop_oneof![6 => select(KEYS).prop_map(String::from), 1 => any::<String>()].prop_map(String::into_bytes).boxed()
}

fn text() -> Bytes {
    let long = (0..600_usize).prop_map(|length| "lang-ä".chars().cycle().take(length).collect());
    prop_oneof![6 => select(TEXTS).prop_map(String::from), 1 => any::<String>(), 1 => long]
        .prop_map(String::into_bytes)
        .boxed()
}

fn id(tag: u32, length: usize) -> Bytes {
    let odd = prop_oneof![Just(vec![0; length]), vec(any::<u8>(), 0..20)];
    prop_oneof![12 => vec(any::<u8>(), length..=length), 1 => odd].prop_map(move |id| bytes(tag, id)).boxed()
}

fn time(tag: u32, usual: u64) -> Bytes {
    prop_oneof![12 => Just(usual), 1 => any::<u64>(), 1 => Just(0)].prop_map(move |time| fixed64(tag, time)).boxed()
}

fn fixed(tag: u32) -> Bytes {
    any::<u64>().prop_map(move |value| fixed64(tag, value)).boxed()
}

fn fixed32_field(tag: u32) -> Bytes {
    any::<u32>().prop_map(move |value| fixed32(tag, value)).boxed()
}

fn any_number(tag: u32) -> Bytes {
    (any::<u64>(), 1..=10_usize).prop_map(move |(value, length)| padded_number(tag, value, length)).boxed()
}

/// Small ones, and those that are small once they are cut to 32 bits.
fn small_number(tag: u32) -> Bytes {
    let value = prop_oneof![8 => 0..7_u64, 1 => (0..7_u64).prop_map(|low| 1 << 32 | low), 1 => Just(u64::MAX)];
    (value, 1..=10_usize).prop_map(move |(value, length)| padded_number(tag, value, length)).boxed()
}

/// A field that no OTLP message has.
fn unknown() -> Bytes {
    let tag = select(vec![17_u32, 100, 20_000, (1 << 29) - 1]);
    let leaf =
        (tag.clone(), any::<u64>(), vec(any::<u8>(), 0..5), 0..4).prop_map(|(tag, value, content, kind)| match kind {
            0 => number(tag, value),
            1 => fixed64(tag, value),
            2 => fixed32(tag, value as u32),
            _ => bytes(tag, content),
        });
    leaf.prop_recursive(4, 12, 3, move |inner| {
        (tag.clone(), vec(inner, 0..3)).prop_map(|(tag, fields)| group(tag, fields.concat()))
    })
    .boxed()
}

fn field(tag: u32, content: impl Strategy<Value = Vec<u8>> + 'static) -> Bytes {
    content.prop_map(move |content| bytes(tag, content)).boxed()
}

fn message(parts: Vec<Bytes>, count: std::ops::Range<usize>) -> Bytes {
    vec(proptest::strategy::Union::new(parts), count).prop_map(|fields| fields.concat()).boxed()
}

/// One way to damage a body.
#[derive(Clone, Debug)]
pub enum Damage {
    Flip(Index, u8),
    Replace(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Repeat(Index, Index),
    Cut(Index),
}

pub fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        3 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        // Lengths, keys and varint ends are small or have the top bit.
        3 => (any::<Index>(), select(vec![0, 1, 2, 8, 10, 18, 0x7f, 0x80, 0xff])).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        1 => any::<Index>().prop_map(Damage::Remove),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
        1 => any::<Index>().prop_map(Damage::Cut),
    ]
}

impl Damage {
    pub fn apply(&self, body: &mut Vec<u8>) {
        if body.is_empty() {
            return;
        }
        let length = body.len();
        match self {
            Self::Flip(at, bit) => body[at.index(length)] ^= 1 << bit,
            Self::Replace(at, byte) => body[at.index(length)] = *byte,
            Self::Insert(at, byte) => body.insert(at.index(length), *byte),
            Self::Remove(at) => drop(body.remove(at.index(length))),
            Self::Repeat(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                body.extend_from_within(from.min(to)..from.max(to));
            }
            Self::Cut(at) => body.truncate(at.index(length)),
        }
    }
}
