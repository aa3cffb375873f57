//! The walk over the bytes, a full decoder and the JSON reader tell the same facts of the same request.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;
use tacho_core::decode::{self, OwnKeys, Rules};

use crate::encode::{bytes, fixed32, fixed64, group, number, request_of_span, text_attribute};
use crate::generate::{damage, request};
use crate::oracle::{self, Numbers};

/// Messages of failed spans are kept, so that they are compared too.
pub fn rules() -> Rules {
    Rules::new(OwnKeys::default(), true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_well_formed_request_is_read_as_a_decoder_reads_it(body in request()) {
        prop_assert!(oracle::check(&body, &rules()), "generated requests are well-formed");
    }

    #[test]
    fn a_damaged_request_is_refused_where_a_decoder_refuses_it(
        body in request(),
        damages in proptest::collection::vec(damage(), 1..4),
    ) {
        let mut body = body;
        damages.iter().for_each(|damage| damage.apply(&mut body));
        oracle::check(&body, &rules());
    }

    #[test]
    fn json_says_what_protobuf_says(body in request()) {
        let walked = decode::read_protobuf(&body, &rules()).unwrap();
        let decoded = ExportTraceServiceRequest::decode(&*body).unwrap();
        for numbers in [Numbers::Text, Numbers::Bare] {
            let json = oracle::to_json(&decoded, numbers);
            prop_assert_eq!(&decode::read_json(json.as_bytes(), &rules()).unwrap(), &walked, "{:?}: {}", numbers, json);
        }
    }
}

/// Every cut of a body, so that each kind of field is cut in each of its bytes.
#[test]
fn a_request_cut_anywhere_is_refused_where_a_decoder_refuses_it() {
    let rules = rules();
    let status = bytes(15, [bytes(2, "no"), number(3, 2)].concat());
    let event = bytes(11, [bytes(2, "exception"), text_attribute(3, "exception.type", "E")].concat());
    let span = [
        bytes(1, [1; 16]),
        bytes(2, [2; 8]),
        fixed64(7, 5),
        fixed64(8, 9),
        bytes(9, [bytes(1, "gen_ai.usage.input_tokens"), bytes(2, number(3, 300))].concat()),
        bytes(9, [bytes(1, "http.method"), bytes(2, bytes(5, bytes(1, bytes(1, "GET"))))].concat()),
        status,
        event,
        group(99, group(98, number(1, 1))),
    ];
    let whole = request_of_span(span.concat());
    let accepted = (0..=whole.len()).filter(|end| oracle::check(&whole[..*end], &rules)).count();
    // The length at the front covers everything, so only nothing and all of it are requests.
    assert_eq!(accepted, 2);
}

/// What may stand innermost, just above, at and below the deepest level that is allowed.
#[test]
fn nesting_is_refused_at_the_depth_where_a_decoder_refuses_it() {
    let rules = rules();
    let innermost = [
        ("nothing", vec![]),
        ("a field", number(3, 1)),
        ("an unknown field", number(99, 1)),
        ("unknown bytes", bytes(99, "x")),
        ("an empty group", group(99, [])),
        ("a group with a field", group(99, number(1, 1))),
        ("groups", group(99, group(98, group(97, number(1, 1))))),
    ];
    for (name, innermost) in innermost {
        for (kind, request) in [("arrays", arrays as Nest), ("lists", lists), ("both", both), ("groups", groups)] {
            let accepted: Vec<usize> =
                (1..=130).filter(|depth| oracle::check(&request(*depth, innermost.clone()), &rules)).collect();
            let deepest = accepted.last().copied().unwrap_or_default();
            assert!(accepted.len() == deepest && (25..130).contains(&deepest), "{kind} around {name}: {accepted:?}");
        }
    }
}

type Nest = fn(usize, Vec<u8>) -> Vec<u8>;

fn attribute_of(value: Vec<u8>) -> Vec<u8> {
    request_of_span(bytes(9, [bytes(1, "http.method"), bytes(2, value)].concat()))
}

/// Arrays within arrays. An odd depth ends in an array, an even one in a value.
fn arrays(depth: usize, innermost: Vec<u8>) -> Vec<u8> {
    attribute_of((0..depth).rev().fold(innermost, |inner, level| bytes(if level % 2 == 0 { 5 } else { 1 }, inner)))
}

/// Lists within lists: each has a list, an attribute and its value.
fn lists(depth: usize, innermost: Vec<u8>) -> Vec<u8> {
    attribute_of((0..depth).rev().fold(innermost, |inner, level| bytes([6, 1, 2][level % 3], inner)))
}

/// Arrays outside of what nobody wants: an event's attribute that is not listed.
fn both(depth: usize, innermost: Vec<u8>) -> Vec<u8> {
    let value = (0..depth).rev().fold(innermost, |inner, level| bytes([5, 1, 6, 1, 2][level % 5], inner));
    request_of_span(bytes(11, bytes(3, [bytes(1, "other"), bytes(2, value)].concat())))
}

/// Groups within groups, in the request itself and not in a span.
fn groups(depth: usize, innermost: Vec<u8>) -> Vec<u8> {
    (0..depth).fold(innermost, |inner, level| group(90 + (level % 5) as u32, inner))
}

/// Every field number in every message, each with every wire type: the table of types is the decoder's.
#[test]
fn every_field_takes_the_type_that_a_decoder_takes() {
    let rules = rules();
    let within = |path: &[u32], content: Vec<u8>| path.iter().rev().fold(content, |inner, tag| bytes(*tag, inner));
    let contents: [fn(u32) -> Vec<u8>; 8] = [
        |tag| number(tag, 2),
        |tag| fixed64(tag, 2),
        |tag| fixed32(tag, 2),
        |tag| bytes(tag, ""),
        |tag| bytes(tag, "text"),
        |tag| bytes(tag, [0xff]),
        |tag| bytes(tag, number(99, 1)),
        |tag| group(tag, []),
    ];
    // From the request down to each kind of message, by field number.
    let paths: [&[u32]; 14] = [
        &[],
        &[1],
        &[1, 1],
        &[1, 1, 3],
        &[1, 2],
        &[1, 2, 1],
        &[1, 2, 2],
        &[1, 2, 2, 11],
        &[1, 2, 2, 13],
        &[1, 2, 2, 15],
        &[1, 2, 2, 9],
        &[1, 2, 2, 9, 2],
        &[1, 2, 2, 9, 2, 5],
        &[1, 2, 2, 9, 2, 6],
    ];
    let mut accepted = 0;
    for path in paths {
        for (tag, content) in (1..20).flat_map(|tag| contents.map(|content| (tag, content))) {
            accepted += usize::from(oracle::check(&within(path, content(tag)), &rules));
        }
    }
    // Unknown fields are taken with every wire type, known ones with theirs only.
    assert!((1_000..14 * 19 * 8).contains(&accepted), "{accepted}");
}

/// What random requests hardly ever hit.
#[test]
fn rare_encodings_are_read_as_a_decoder_reads_them() {
    let rules = rules();
    let ids = [bytes(1, [1; 16]), bytes(2, [2; 8]), fixed64(7, 5), fixed64(8, 9)].concat();
    let array = |text: &str| bytes(5, bytes(1, bytes(1, text)));
    let empty = || bytes(5, []);
    let values = |parts: &[Vec<u8>]| parts.iter().map(|part| bytes(2, part)).collect::<Vec<_>>().concat();
    let whole = |values: Vec<u8>| [&ids[..], &bytes(9, [bytes(1, "http.method"), values].concat())].concat();
    let last_byte = |last: u8| [&[6 << 3][..], &[0xff; 9], &[last]].concat();
    for (name, span, is_request) in [
        ("an array in two parts", whole(values(&[array("A"), array("B")])), true),
        ("an array whose first part is empty", whole(values(&[empty(), array("B")])), true),
        ("an array whose last part is empty", whole(values(&[array("A"), empty()])), true),
        ("two arrays with a number between", whole(values(&[array("A"), number(3, 1), array("B")])), true),
        ("two arrays with a list between", whole(values(&[array("A"), bytes(6, []), empty()])), true),
        ("an array after a text", whole(values(&[bytes(1, "A"), array("B")])), true),
        ("two arrays in one value", whole(bytes(2, [array("A"), array("B")].concat())), true),
        ("a varint of 64 bits", [&ids[..], &last_byte(1)].concat(), true),
        ("a varint of 65 bits", [&ids[..], &last_byte(2)].concat(), false),
        ("a varint that does not end", [&ids[..], &last_byte(0x81)].concat(), false),
    ] {
        assert_eq!(oracle::check(&request_of_span(span), &rules), is_request, "{name}");
    }
}
