//! The price list as a whole: against the results of the package it came from, names of providers, overrides.

use super::*;

mod names;

const GOLDEN: &str = include_str!("../../../tests/golden/prices.json");
/// 2026-11-02 12:00 UTC.
const NOON: u64 = 1_793_620_800;

/// Input, output, cached, written, written for an hour, audio, cached audio, reasoning, spoken; seconds, tier, cost.
type GoldenCall = (u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, Option<String>, Option<String>);
type GoldenLine = (Option<String>, String, Option<String>, Vec<GoldenCall>);

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000_000_000)
}

fn call<'a>(provider: &'a str, given: &'a str, asked: &'a str) -> Priced<'a> {
    let tokens = Tokens { input: 1_000_000, ..Tokens::default() };
    Priced {
        provider: Some(provider),
        host: None,
        model_given: Some(given),
        model_asked: Some(asked),
        service_tier: None,
        started_at: at(NOON),
        tokens,
    }
}

/// `provider/model cost version`, or the label of the reason.
fn priced(book: &PriceBook, call: &Priced<'_>) -> String {
    match book.price(call) {
        Ok(charge) => {
            let (list, hash) = charge.price_version.rsplit_once('+').unwrap();
            assert!(hash.len() == 8 && hash.chars().all(|digit| digit.is_ascii_hexdigit()), "{hash}");
            format!("{}/{} {} {list}+#", charge.provider, charge.model, charge.cost.0)
        }
        Err(why) => why.label().to_owned(),
    }
}

fn refused(text: &str) -> String {
    PriceBook::shipped().with_override(text, "own.json").unwrap_err().to_string()
}

#[test]
fn every_golden_call_costs_what_the_package_says() {
    let book = PriceBook::shipped();
    let lines: Vec<GoldenLine> = serde_json::from_str(GOLDEN).unwrap();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (provider, reference, model, calls) in &lines {
        for (input, output, cached, written, kept, heard, both, reasoning, spoken, seconds, tier, cost) in calls {
            let tokens = Tokens {
                input: *input,
                output: *output,
                cached_input: *cached,
                cache_write: *written,
                cache_write_1h: *kept,
                audio_input: *heard,
                cached_audio: *both,
                reasoning: *reasoning,
                audio_output: *spoken,
            };
            let call = Priced {
                provider: provider.as_deref(),
                host: None,
                model_given: Some(reference),
                model_asked: None,
                service_tier: tier.as_deref(),
                started_at: at(*seconds),
                tokens,
            };
            let result = book.price(&call);
            compared += 1;
            if !agrees(&result, model.as_deref(), cost.as_deref()) {
                wrong.push(format!("{call:?}: {result:?} instead of {model:?} {cost:?}"));
            }
            let shouted = tier.as_deref().map(str::to_uppercase);
            let again = book.price(&Priced { service_tier: shouted.as_deref(), ..call });
            assert_eq!(again, result, "{call:?}");
        }
    }
    assert!(compared > 20_000, "only {compared} calls");
    assert!(wrong.is_empty(), "{} of {compared} wrong, such as {:#?}", wrong.len(), &wrong[..wrong.len().min(9)]);
}

fn agrees(result: &Result<Charge<'_>, Unpriced>, model: Option<&str>, cost: Option<&str>) -> bool {
    match (result, cost) {
        (Ok(charge), Some(cost)) => {
            let (slack, digits) = cost.strip_prefix('~').map_or((0, cost), |digits| (1, digits));
            Some(charge.model) == model && charge.cost.0.abs_diff(digits.parse().unwrap()) <= slack
        }
        (Err(Unpriced::NoPrice), None) => model.is_some(),
        (Err(Unpriced::UnknownModel | Unpriced::UnknownProvider), None) => model.is_none(),
        _ => false,
    }
}

#[test]
fn names_that_spans_give_to_providers_resolve() {
    let book = PriceBook::shipped();
    let check = |id: &str, names: &str| {
        for name in names.split(", ") {
            assert!(matches!(book.named(Some(name)), Named::Provider(found) if *found.id == *id), "{name}");
        }
    };
    check("openai", "openai, OpenAI, openai.chat, openai.responses, openai.embedding");
    check("anthropic", "anthropic, Anthropic, anthropic.messages");
    check("azure", "azure, Azure, azure.chat, azure.ai.openai, az.ai.openai, azure.ai.inference");
    check("azure", "az.ai.inference, azure-openai, Azure OpenAI, azure_ai");
    check("aws", "aws, AWS, aws.bedrock, aws_bedrock, bedrock, amazon-bedrock, bedrock_converse");
    check("google", "google, Google, gcp.vertex_ai, vertex_ai, VertexAI, google.generative-ai");
    check("google", "gcp.gemini, gcp.gen_ai, gemini, google.vertex.chat, google-vertex, google_genai");
    check("google", "google-gla, google_vertexai, vertex.anthropic.messages, google-vertex.anthropic");
    check("x-ai", "x-ai, xai, x_ai, xai.chat, grok");
    check("mistral", "mistral, mistral_ai, MistralAI, mistral.chat");
    check("cohere", "cohere, Cohere, cohere.chat");
    check("deepseek", "deepseek, DeepSeek, deepseek.chat");
    check("together", "together, together_ai, TogetherAI, togetherai.chat");
    check("fireworks", "fireworks, fireworks_ai, fireworks.chat");
    check("moonshotai", "moonshot, moonshotai, moonshot_ai.chat");
    for id in book.providers.iter().map(|provider| &provider.id) {
        check(id, &format!("{id}, {}", id.to_uppercase()));
    }
}

#[test]
fn the_model_given_goes_before_the_model_asked() {
    let book = PriceBook::shipped();
    let check = |given: &str, asked: &str, expected: &str| {
        assert_eq!(priced(&book, &call("openai", given, asked)), expected, "{given}, {asked}");
    };
    check("gpt-4o-2024-08-06", "gpt-4o-mini", "openai/gpt-4o 2500000000 genai-prices 0.2.3+#");
    check("my-deployment", "gpt-4o", "openai/gpt-4o 2500000000 genai-prices 0.2.3+#");
    check("", "GPT-4o", "openai/gpt-4o 2500000000 genai-prices 0.2.3+#");
    check("my-deployment", "my-alias", "unknown_model");
    check("whisper-1", "gpt-4o", "no_price");
    check(" ", "", "no_model");
}

#[test]
fn a_call_without_provider_is_its_makers() {
    let book = PriceBook::shipped();
    let check = |given: &str, asked: &str, expected: &str| {
        let nameless = Priced { provider: None, ..call("", given, asked) };
        assert_eq!(priced(&book, &nameless), expected, "{given}, {asked}");
        assert_eq!(priced(&book, &call(" ", given, asked)), expected, "{given}, {asked}");
    };
    check("gpt-4o", "", "openai/gpt-4o 2500000000 genai-prices 0.2.3+#");
    check("deployment", "gpt-4o", "openai/gpt-4o 2500000000 genai-prices 0.2.3+#");
    check("deployment", "", "unknown_provider");
    check("gpt-none-such", "", "unknown_model");
}

#[test]
fn a_dated_price_starts_at_midnight_utc() {
    let own = r#"{"providers":[{"id":"acme","models":[{"id":"m","prices":[
        {"input":1},{"from":"2026-11-02","input":2},{"between":["12:00","13:00"],"input":3}]}]}]}"#;
    let book = PriceBook::default().with_override(own, "own.json").unwrap();
    let midnight = at(NOON - 43_200).0;
    let check = |nanos: u64, cost: i64| {
        let charge = book.price(&Priced { started_at: Timestamp(nanos), ..call("acme", "m", "m") }).unwrap();
        assert_eq!(charge.cost, NanoUsd(cost), "{nanos}");
    };
    check(0, 1);
    check(midnight - 1, 1);
    check(midnight, 2);
    check(at(NOON).0 - 1, 2);
    check(at(NOON).0, 3);
    check(at(NOON + 3_600).0 - 1, 3);
    check(at(NOON + 3_600).0, 2);
    check(u64::MAX, 2);
}

#[test]
fn an_override_adds_and_replaces() {
    let own = r#"{"providers":[
        {"id":"Open AI","models":[{"id":"gpt-4o","prices":[{"input":7}]},
            {"id":"team","match":{"starts_with":"GPT-4o-mini-team"},"prices":[{"input":8}],
             "variants":[{"service_tier":"flex","input":4}]}]},
        {"id":"house","names":["house.llm"],"fallback":["openai"],"models":[{"id":"Own","prices":[{"per_call":5}]}]}]}"#;
    let book = PriceBook::shipped().with_override(own, "own.json").unwrap();
    let check = |provider: &str, model: &str, expected: &str| {
        assert_eq!(priced(&book, &call(provider, model, "")), expected, "{provider} {model}");
    };
    check("openai", "gpt-4o", "openai/gpt-4o 7 override:own.json+#");
    // The shipped matcher stays when the override states none.
    check("openai", "gpt-4o-2024-08-06", "openai/gpt-4o 7 override:own.json+#");
    check("azure", "gpt-4o", "azure/gpt-4o 7 override:own.json+#");
    check("openai", "gpt-4o-mini-team-3", "openai/team 8 override:own.json+#");
    check("openai", "gpt-4o-mini", "openai/gpt-4o-mini 150000000 genai-prices 0.2.3+#");
    check("House.LLM", "own", "house/Own 5 override:own.json+#");
    check("house", "gpt-4o-mini", "house/gpt-4o-mini 150000000 genai-prices 0.2.3+#");
    let flex = Priced { service_tier: Some("flex"), ..call("openai", "gpt-4o-mini-team", "") };
    assert_eq!(priced(&book, &flex), "openai/team 4 override:own.json+#");
    assert_eq!(priced(&book, &Priced { provider: Some("house"), ..flex }), "house/team 8 override:own.json+#");
}

#[test]
fn the_override_in_the_readme_works() {
    let readme = include_str!("../../../prices/README.md");
    let example = readme.split("```").find_map(|part| part.strip_prefix("json\n")).unwrap();
    let book = PriceBook::shipped().with_override(example, "own.json").unwrap();
    assert_eq!(priced(&book, &call("openai", "gpt-4o", "")), "openai/gpt-4o 2000000000 override:own.json+#");
    assert_eq!(priced(&book, &call("vLLM", "llama-4", "")), "house/llama 100000000 override:own.json+#");
}

#[test]
fn a_bad_override_names_place_and_problem() {
    let check = |text: &str, expected: &str| {
        let message = refused(text);
        assert!(message.starts_with(expected), "{message}");
    };
    check(
        "{\"providers\":[\n{\"id\":\"a\",\"model\":[]}]}",
        "own.json, line 2, column 17: unknown field `model`, expected",
    );
    check(
        "{\"providers\":[{\"id\":\"a\",\"models\":[\n\n{\"id\":\"m\"}]}]}",
        "own.json, line 3, column 10: missing field `prices`",
    );
    check("{", "own.json, line 1, column 1: EOF while parsing");
    let line = |price: &str| {
        format!("{{\"providers\":[{{\"id\":\"a\",\"models\":[\n{{\"id\":\"m\",\"prices\":[{price}]}}]}}]}}")
    };
    check(
        &line("{\"input\":0.5}"),
        "own.json, line 2, column 32: invalid type: floating point `0.5`, expected whole nano",
    );
    check(&line("{\"input\":-1}"), "own.json, line 2, column 31: invalid type: integer `-1`, expected whole nano");
    check(&line("{\"per_call\":-1}"), "own.json, line 2, column 34: invalid value: integer `-1`, expected u64");
    check(&line("{\"from\":\"2026-02-30\"}"), "own.json, line 2, column 41: `2026-02-30` is no day");
    check(&line("{\"between\":[\"1:00\",\"02:00\"]}"), "own.json, line 2, column 39: `1:00` is no time of day");
    check(&line("{\"input\":{\"base\":1,\"above\":[]}}"), "own.json, line 2, column 46: unknown field `above`");
    check(&line("{\"service_tier\":\"flex\"}"), "own.json: model `m` of `a`: a service tier belongs in `variants`");
    let provider = r#"{"id":"a","fallback":["nobody"]}"#;
    check(&format!("{{\"providers\":[{provider}]}}"), "own.json: `a` falls back on an unknown provider `nobody`");
    let provider = r#"{"id":"a","hosts":["https://llm.corp/v1"]}"#;
    check(
        &format!("{{\"providers\":[{provider}]}}"),
        "own.json: `https://llm.corp/v1` is no host: it is written without",
    );
    check(r#"{"providers":[{"id":"a"},{"id":"a"}]}"#, "own.json: provider `a` stands there twice");
}

#[test]
fn found_shows_the_rates_of_the_call() {
    let book = PriceBook::shipped();
    let found = book.find(&call("anthropic", "claude-3-haiku", "")).unwrap();
    let rates = Rates {
        input: Some(NanoPerMillion(250_000_000)),
        output: Some(NanoPerMillion(1_250_000_000)),
        cached_input: Some(NanoPerMillion(30_000_000)),
        cache_write: Some(NanoPerMillion(300_000_000)),
        cache_write_1h: Some(NanoPerMillion(500_000_000)),
        ..Rates::default()
    };
    assert_eq!((found.provider, found.model, found.rates), ("anthropic", "claude-3-haiku", rates));
}

#[test]
fn labels_differ() {
    let mut labels = Unpriced::ALL.map(Unpriced::label);
    labels.sort_unstable();
    assert!(labels.windows(2).all(|pair| pair[0] != pair[1]));
}
