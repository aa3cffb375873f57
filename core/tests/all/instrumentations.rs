//! `docs/instrumentations.md`, made of the tables of the dialects and of what the captures show.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use expect_test::expect_file;
use tacho_core::dialect::{ADVICE, JSON_KEYS, SPAN_KEYS, advice};
use tacho_core::domain::call::Usage;
use tacho_core::domain::facts::Field;
use tacho_core::domain::record::Request;

use crate::truth::{bodies, captures, resolve};

const FIELDS: &[(Field, &str)] = &[
    (Field::User, "user"),
    (Field::Tenant, "tenant"),
    (Field::Agent, "agent"),
    (Field::Session, "session"),
    (Field::Operation, "operation, kind of span"),
    (Field::Provider, "provider"),
    (Field::Host, "host"),
    (Field::RequestModel, "model asked"),
    (Field::ResponseModel, "model that answered"),
    (Field::ServiceTier, "service tier served"),
    (Field::InputTokens, "input tokens"),
    (Field::OutputTokens, "output tokens"),
    (Field::CachedInputTokens, "of the input, read from a cache"),
    (Field::CacheWriteTokens, "of the input, written to a cache"),
    (Field::CacheWrite1hTokens, "of these, for an hour"),
    (Field::ReasoningTokens, "of the output, reasoning"),
    (Field::AudioInputTokens, "of the input, audio"),
    (Field::CachedAudioTokens, "of the audio, read from a cache"),
    (Field::AudioOutputTokens, "of the output, audio"),
    (Field::ReportedCost, "cost as the instrumentation reckons it"),
    (Field::AnsweredFromCache, "answered by a response cache"),
];

/// How many of the calls of a scope tell what.
#[derive(Default)]
struct Told {
    calls: usize,
    known: usize,
    cached: usize,
    written: usize,
    reasoning: usize,
    streams: usize,
}

impl Told {
    fn add(&mut self, requests: &[Request], scope: &str) {
        for call in requests.iter().flat_map(|request| &request.calls).filter(|call| &*call.dialect == scope) {
            self.calls += 1;
            let tokens = call.usage.tokens();
            self.known += usize::from(matches!(call.usage, Usage::Reported(_)));
            self.cached += usize::from(tokens.cached_input > 0);
            self.written += usize::from(tokens.cache_write > 0);
            self.reasoning += usize::from(tokens.reasoning > 0);
            self.streams += usize::from(call.streaming);
        }
    }
}

#[test]
fn the_page_of_instrumentations_is_what_tables_and_captures_say() {
    let mut scopes: BTreeMap<String, Told> = BTreeMap::new();
    for capture in captures() {
        let requests = resolve(bodies(&capture));
        let calls = requests.iter().flat_map(|request| &request.calls);
        let mut of_capture: BTreeSet<String> = calls.map(|call| call.dialect.to_string()).collect();
        // LiteLLM writes onto the spans of whichever server runs it.
        of_capture.retain(|scope| scope != "opentelemetry.instrumentation.fastapi");
        of_capture.iter().for_each(|scope| scopes.entry(scope.clone()).or_default().add(&requests, scope));
    }
    let mut text = String::from(
        "# Instrumentations\n\nMade from `core/src/dialect` and the captures in `tests/golden/captures` by `make golden`; a test keeps it true.\n\n\
         Tacho reads the spans of any instrumentation that follows the conventions of OpenTelemetry, and of those below. A span that names a\n\
         model and is in no table is a call of unknown usage, never nothing. `tacho explain TRACE_ID` tells what each span was taken for.\n\n\
         ## What each library shows\n\nOf the calls in our captures, whose numbers come from this instrumentation:\n\n\
         | instrumentation | calls | usage known | with cache reads | with cache writes | with reasoning | known to stream |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (scope, told) in &scopes {
        let Told { calls, known, cached, written, reasoning, streams } = told;
        writeln!(text, "| `{scope}` | {calls} | {known} | {cached} | {written} | {reasoning} | {streams} |").unwrap();
        assert!(advice(scope).is_some(), "nothing is said of {scope}");
    }
    text += "\n## How to set it\n\n| library | what to know |\n| --- | --- |\n";
    for (_, library, told) in ADVICE {
        writeln!(text, "| {library} | {told} |").unwrap();
    }
    text += "\n## Which attributes are read\n\nOf several the first that is there counts; they are never added up. `a › b` is a value inside a text of JSON.\n\n\
             | what | attributes, in this order |\n| --- | --- |\n";
    for (field, name) in FIELDS {
        let plain = SPAN_KEYS.iter().filter(|(of, _, _)| of == field).flat_map(|(_, _, keys)| keys.iter());
        let plain = plain.map(|key| format!("`{key}`"));
        let in_json = JSON_KEYS.iter().flat_map(|(key, rows)| {
            let rows = rows.iter().filter(|row| row.field == *field && !row.path.is_empty());
            rows.map(move |row| format!("`{key} › {}`", row.path.join(" › ")))
        });
        writeln!(text, "| {name} | {} |", plain.chain(in_json).collect::<Vec<_>>().join(", ")).unwrap();
    }
    expect_file!["../../../docs/instrumentations.md"].assert_eq(&text);
}
