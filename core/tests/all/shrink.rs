//! A body that was made small says what the whole one says, in whatever parts it came.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;
use tacho_core::decode::{self, Batch, NotShrunk, Rules, Shrinker};

use crate::captures::bodies;
use crate::encode::{bytes, fixed64, number, request_of_span, text_attribute};
use crate::generate::request;
use crate::oracle::{Numbers, to_json};
use crate::same::rules;

/// What remains of a body that comes in parts of this length.
fn shrunk(mut shrinker: Shrinker<'_>, body: &[u8], part: usize) -> Result<(Vec<u8>, String), NotShrunk> {
    body.chunks(part).try_for_each(|part| shrinker.push(part))?;
    let (small, unread) = shrinker.finish()?;
    Ok((small, unread.message()))
}

fn of_protobuf(body: &[u8], part: usize) -> Result<(Vec<u8>, String), NotShrunk> {
    shrunk(Shrinker::protobuf(&rules(), usize::MAX), body, part)
}

fn of_json(body: &[u8], part: usize) -> Result<(Vec<u8>, String), NotShrunk> {
    shrunk(Shrinker::json(&rules(), usize::MAX), body, part)
}

fn read_protobuf(body: &[u8]) -> Batch {
    decode::read_protobuf(body, &rules()).unwrap()
}

fn read_json(body: &[u8]) -> Batch {
    decode::read_json(body, &rules()).unwrap()
}

#[test]
fn captured_bodies_say_the_same_when_they_are_small() {
    type Shrink = fn(&[u8], usize) -> Result<(Vec<u8>, String), NotShrunk>;
    type Read = fn(&[u8]) -> Batch;
    let forms: [(&str, Shrink, Read); 2] = [("pb", of_protobuf, read_protobuf), ("json", of_json, read_json)];
    let (mut before, mut after) = (0, 0);
    for (extension, shrink, read) in forms {
        for path in bodies(extension) {
            let whole = std::fs::read(&path).unwrap();
            let (small, unread) = shrink(&whole, 777).unwrap();
            assert_eq!((read(&small), unread.as_str()), (read(&whole), ""), "{}", path.display());
            before += whole.len();
            after += small.len();
        }
    }
    assert!(after * 2 < before, "{after} of {before} bytes remain");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_small_body_says_what_the_whole_one_says(body in request(), part in 1..100_usize) {
        let json = to_json(&ExportTraceServiceRequest::decode(&*body).unwrap(), Numbers::Bare);
        let (small, unread) = of_json(json.as_bytes(), part).unwrap();
        prop_assert_eq!(read_json(&small), read_json(json.as_bytes()));
        prop_assert_eq!(unread, "");
        match of_protobuf(&body, part) {
            Ok((small, unread)) => {
                prop_assert_eq!(read_protobuf(&small), read_protobuf(&body));
                prop_assert_eq!(unread, "");
            }
            // No encoder of spans writes groups, and so they are not looked for where they would have to be kept.
            Err(why) => prop_assert!(why.to_string().starts_with("a group in a large body"), "{}", why),
        }
    }

    #[test]
    fn whatever_comes_is_no_surprise(body in prop::collection::vec(any::<u8>(), 0..200), part in 1..20_usize) {
        drop(of_json(&body, part));
        drop(of_protobuf(&body, part));
    }
}

fn span(more: &[Vec<u8>]) -> Vec<u8> {
    [bytes(1, [1; 16]), bytes(2, [2; 8]), fixed64(7, 5), fixed64(8, 9), more.concat()].concat()
}

/// Of what is not read, nothing is held, however long it is.
#[test]
fn prompts_are_not_held() {
    let prompt = "x".repeat(10 << 20);
    let model = || text_attribute(9, "gen_ai.request.model", "m");
    let of_span = [text_attribute(9, "gen_ai.input.messages", &prompt), model()];
    let event = bytes(11, [bytes(2, "gen_ai.choice"), text_attribute(3, "content", &prompt)].concat());
    for span in [span(&of_span), span(&[event, model()])] {
        let body = request_of_span(span);
        let (rules, mut most) = (rules(), 0);
        let mut shrinker = Shrinker::protobuf(&rules, 1 << 20);
        for part in body.chunks(16 << 10) {
            shrinker.push(part).unwrap();
            most = most.max(shrinker.kept());
        }
        let (small, unread) = shrinker.finish().unwrap();
        assert!(most < 100 << 10 && small.len() < 200, "{most}, {}", small.len());
        assert_eq!(unread.message(), "");
        assert_eq!(read_protobuf(&small), read_protobuf(&body));
    }
    let json = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"attributes":[{{"key":"gen_ai.input.messages","value":{{"stringValue":"{prompt}"}}}}]}}]}}]}}]}}"#
    );
    let (small, _) = shrunk(Shrinker::json(&rules(), 1 << 20), json.as_bytes(), 16 << 10).unwrap();
    assert_eq!(
        String::from_utf8(small).unwrap(),
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[]}]}]}]}"#
    );
}

/// A user of a megabyte is none; that he is missing is said.
#[test]
fn what_is_wanted_and_too_long_is_said() {
    let long = "x".repeat(1 << 20);
    let body = request_of_span(span(&[text_attribute(9, "user.id", &long), bytes(5, &long)]));
    let (small, unread) = of_protobuf(&body, 1000).unwrap();
    assert_eq!(unread, "2 values could not be read, the first of them: user.id");
    assert_eq!(read_protobuf(&small).extract.len(), 1);
    let json = format!(
        r#"{{"attributes":[{{"key":"user.id","value":{{"stringValue":"{long}"}}}},{{"key":"tenant.id","value":{{}}}}]}}"#
    );
    let (small, unread) = of_json(json.as_bytes(), 1000).unwrap();
    assert_eq!(unread, "one value could not be read: user.id");
    assert_eq!(String::from_utf8(small).unwrap(), r#"{"attributes":[{"key":"tenant.id","value":{}}]}"#);
}

#[test]
fn a_body_that_stays_large_or_ends_in_the_middle_is_refused() {
    let rules: Rules = rules();
    let whole = request_of_span(span(&vec![text_attribute(9, "user.id", "ann"); 1000]));
    for shrinker in [Shrinker::protobuf(&rules, 10_000), Shrinker::json(&rules, 10_000)] {
        let why = shrunk(shrinker, &whole, 100).unwrap_err();
        assert_eq!(why.to_string(), "more than 10000 bytes remain of the body without its prompts");
    }
    let why = of_protobuf(&whole[..whole.len() - 1], 100).unwrap_err();
    assert!(why.to_string().starts_with("length beyond the end at byte "), "{why}");
    for (body, fault) in [
        (bytes(1, [&[0x12, 9][..], b"short"].concat()), "length beyond the end at byte 4"),
        (vec![0x0b], "a group in a large body at byte 1"),
        (vec![0x0f], "invalid wire type at byte 1"),
        (vec![0xff; 30], "varint of more than 64 bits at byte 21"),
        (number(1, 1), ""),
    ] {
        let told = of_protobuf(&body, 1).map_or_else(|why| why.to_string(), |(_, unread)| unread);
        assert_eq!(told, fault, "{body:?}");
    }
}

/// So that whoever loses a body can be found.
#[test]
fn the_sender_is_known_before_the_end() {
    let rules = rules();
    let resource = bytes(1, text_attribute(1, "service.name", "bot"));
    let spans = bytes(2, bytes(2, span(&vec![text_attribute(9, "user.id", "ann"); 1000])));
    let body = bytes(1, [resource, spans].concat());
    let sender = |mut shrinker: Shrinker<'_>, length: usize| {
        shrinker.push(&body[..length]).unwrap();
        shrinker.sender().and_then(|origin| origin.service.clone())
    };
    assert_eq!(sender(Shrinker::protobuf(&rules, usize::MAX), body.len() / 2).as_deref(), Some("bot"));
    assert_eq!(sender(Shrinker::protobuf(&rules, usize::MAX), 10), None);
    assert_eq!(sender(Shrinker::json(&rules, usize::MAX), body.len() / 2), None);
}
