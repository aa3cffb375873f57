//! `tacho prices`: which price a call would get, or why it has none. It asks the price book as the pipeline does.

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use crate::app::{self, AppError};
use crate::config::Config;
use tacho_core::domain::call::Tokens;
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::time::Timestamp;
use tacho_core::price::{Charge, Found, NanoPerMillion, PriceBook, Priced, Unpriced};

#[derive(Args)]
pub(super) struct PricesArguments {
    /// The model, as a span names the one that answered.
    model: String,
    /// The provider, as a span names it.
    #[arg(long)]
    provider: Option<String>,
    /// The server that is called, without the port.
    #[arg(long)]
    host: Option<String>,
    /// The service tier that is served, such as `priority` or `flex`.
    #[arg(long)]
    tier: Option<String>,
    /// When the call starts, as a date or a time; now if it is left out.
    #[arg(long)]
    at: Option<String>,
    /// Input tokens, with all that is a part of them. Some prices depend on how many there are.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    input: u64,
    /// Of the input: read from a cache.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    cached_input: u64,
    /// Of the input: written to a cache.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    cache_write: u64,
    /// Of these: written to a cache that lasts for an hour.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    cache_write_1h: u64,
    /// Of the input: audio.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    audio_input: u64,
    /// Of these: read from a cache, and so a part of the cached input too.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    cached_audio: u64,
    /// Output tokens, with all that is a part of them.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    output: u64,
    /// Of the output: reasoning.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    reasoning: u64,
    /// Of the output: audio.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    audio_output: u64,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PricesError {
    #[error("`{0}` is no date such as 2026-05-01 and no time such as 2026-05-01T12:00:00Z")]
    Time(String),
    #[error(transparent)]
    Prices(#[from] AppError),
    #[error("the price could not be written")]
    Json(#[from] serde_json::Error),
}

/// What was found as text, and whether the call would have a price.
pub(super) struct Shown {
    pub text: String,
    pub is_priced: bool,
}

pub(super) fn prices(config: &Config, arguments: &PricesArguments, now: Timestamp) -> Result<Shown, PricesError> {
    let time = |text: &String| Timestamp::parse(text).ok_or_else(|| PricesError::Time(text.clone()));
    let started_at = arguments.at.as_ref().map_or(Ok(now), time)?;
    Ok(shown(&app::price_book(config)?, arguments, started_at)?)
}

fn shown(book: &PriceBook, arguments: &PricesArguments, started_at: Timestamp) -> Result<Shown, serde_json::Error> {
    let call = arguments.call(started_at);
    let priced = book.find(&call).and_then(|found| book.price(&call).map(|charge| (found, charge)));
    let at_host = arguments.host.as_deref().and_then(|host| book.provider_at(host));
    let text = match (&priced, arguments.json) {
        (Ok((found, charge)), true) => serde_json::to_string_pretty(&as_json(found, charge, &call))?,
        (Ok((found, charge)), false) => as_text(found, charge, &call),
        (Err(unpriced), true) => {
            let why = json!({"reason": unpriced.label(), "why": unpriced.to_string(), "provider_at_host": at_host});
            serde_json::to_string_pretty(&json!({"priced": false, "unpriced": why}))?
        }
        (Err(unpriced), false) => without_price(*unpriced, at_host),
    };
    Ok(Shown { text, is_priced: priced.is_ok() })
}

impl PricesArguments {
    fn call(&self, started_at: Timestamp) -> Priced<'_> {
        Priced {
            provider: self.provider.as_deref(),
            host: self.host.as_deref(),
            model_given: Some(&self.model),
            model_asked: None,
            service_tier: self.tier.as_deref(),
            started_at,
            tokens: Tokens {
                input: self.input,
                output: self.output,
                cached_input: self.cached_input,
                cache_write: self.cache_write,
                cache_write_1h: self.cache_write_1h,
                audio_input: self.audio_input,
                cached_audio: self.cached_audio,
                reasoning: self.reasoning,
                audio_output: self.audio_output,
            },
        }
    }
}

/// Each kind of token, by the name of its count, with its rate and how many there are.
fn kinds(found: &Found<'_>, tokens: &Tokens) -> [(&'static str, Option<NanoPerMillion>, u64); 9] {
    let rates = &found.rates;
    [
        ("input_tokens", rates.input, tokens.input),
        ("cached_input_tokens", rates.cached_input, tokens.cached_input),
        ("cache_write_tokens", rates.cache_write, tokens.cache_write),
        ("cache_write_1h_tokens", rates.cache_write_1h, tokens.cache_write_1h),
        ("audio_input_tokens", rates.audio_input, tokens.audio_input),
        ("cached_audio_tokens", rates.cached_audio, tokens.cached_audio),
        ("output_tokens", rates.output, tokens.output),
        ("reasoning_tokens", rates.reasoning, tokens.reasoning),
        ("audio_output_tokens", rates.audio_output, tokens.audio_output),
    ]
}

/// A rate as dollars.
fn dollars(rate: NanoPerMillion) -> String {
    NanoUsd(i64::try_from(rate.0).unwrap_or(i64::MAX)).to_string()
}

fn as_json(found: &Found<'_>, charge: &Charge<'_>, call: &Priced<'_>) -> Value {
    let rates: Map<String, Value> = kinds(found, &call.tokens)
        .into_iter()
        .map(|(kind, rate, _)| (kind.to_owned(), json!(rate.map(dollars))))
        .collect();
    json!({
        "priced": true,
        "provider": found.provider,
        "model": found.model,
        "price_version": &**found.price_version,
        "started_at": call.started_at.to_string(),
        "usd_per_million": rates,
        "usd_per_call": found.rates.per_call.map(|fee| fee.to_string()),
        "cost_nanousd": charge.cost.0,
        "cost_usd": charge.cost.to_string(),
        "partly_priced": !charge.whole,
    })
}

fn as_text(found: &Found<'_>, charge: &Charge<'_>, call: &Priced<'_>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["of a call", "tokens", "USD per million"]);
    for (kind, rate, tokens) in kinds(found, &call.tokens) {
        let rate = match rate {
            Some(rate) => dollars(rate),
            None if tokens > 0 => "as what it is part of".to_owned(),
            None => continue,
        };
        let kind = kind.trim_end_matches("_tokens").replace('_', " ");
        table.add_row([kind, tokens.to_string(), rate]);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let mut text = format!(
        "{} of {}, by {}, at {}\n\n{}\n",
        found.model,
        found.provider,
        found.price_version,
        call.started_at,
        table.trim_fmt()
    );
    if let Some(fee) = found.rates.per_call {
        text += &format!("and for the call itself {fee} USD\n");
    }
    text += &format!("\ncost: {} USD", charge.cost);
    if !charge.whole {
        text += "\nnot fully priced: some of its tokens have no price of their own, or how many of the audio tokens were \
                 cached is not told";
    }
    text
}

fn without_price(unpriced: Unpriced, at_host: Option<&str>) -> String {
    let host = at_host.map(|provider| format!("\nthe host is that of {provider}, which decides")).unwrap_or_default();
    format!("no price ({}): {unpriced}{host}", unpriced.label())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use expect_test::{Expect, expect};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: PricesArguments,
    }

    fn check(line: &str, is_priced: bool, expected: Expect) {
        let own = r#"{"providers":[{"id":"house","hosts":["*.corp"],"models":[{"id":"m","prices":[
            {"input":{"base":2000000000,"over":[[100,3000000000]]},"output":8000000000,"cached_input":500000000,"per_call":7}
        ],"variants":[{"service_tier":"flex","input":1}]}]}]}"#;
        let book = PriceBook::shipped().with_override(own, "own.json").unwrap();
        let words = std::iter::once("prices").chain(line.split(' '));
        let arguments = Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).arguments;
        let shown = shown(&book, &arguments, Timestamp::parse("2026-05-01").unwrap()).unwrap();
        assert_eq!(shown.is_priced, is_priced, "{}", shown.text);
        expected.assert_eq(&(shown.text + "\n"));
    }

    #[test]
    fn the_price_of_a_call_is_shown() {
        check(
            "m --provider house --input 1000 --cached-input 200 --reasoning 5 --output 10",
            true,
            expect![[r#"
                m of house, by override:own.json+0f28fc2e, at 2026-05-01T00:00:00.000000Z

                 of a call     tokens        USD per million
                 input           1000                   3.00
                 cached input     200                   0.50
                 output            10                   8.00
                 reasoning          5  as what it is part of
                and for the call itself 0.000000007 USD

                cost: 0.002580007 USD
            "#]],
        );
        check(
            "house/m --tier FLEX --input 10 --cache-write 5 --cache-write-1h 5",
            true,
            expect![[r#"
                m of house, by override:own.json+0f28fc2e, at 2026-05-01T00:00:00.000000Z

                 of a call       tokens        USD per million
                 input               10            0.000000001
                 cached input         0                   0.50
                 cache write          5  as what it is part of
                 cache write 1h       5  as what it is part of
                 output               0                   8.00
                and for the call itself 0.000000007 USD

                cost: 0.000000008 USD
                not fully priced: some of its tokens have no price of their own, or how many of the audio tokens were cached is not told
            "#]],
        );
        check(
            "m --host a.corp --provider openai --json",
            true,
            expect![[r#"
                {
                  "cost_nanousd": 7,
                  "cost_usd": "0.000000007",
                  "model": "m",
                  "partly_priced": false,
                  "price_version": "override:own.json+0f28fc2e",
                  "priced": true,
                  "provider": "house",
                  "started_at": "2026-05-01T00:00:00.000000Z",
                  "usd_per_call": "0.000000007",
                  "usd_per_million": {
                    "audio_input_tokens": null,
                    "audio_output_tokens": null,
                    "cache_write_1h_tokens": null,
                    "cache_write_tokens": null,
                    "cached_audio_tokens": null,
                    "cached_input_tokens": "0.50",
                    "input_tokens": "2.00",
                    "output_tokens": "8.00",
                    "reasoning_tokens": null
                  }
                }
            "#]],
        );
    }

    #[test]
    fn why_there_is_no_price_is_said() {
        check(
            "gpt-4o --provider openai --host llm.example",
            false,
            expect![[r#"
            no price (unknown_host): nobody in the price list has this host, and other servers take calls for this provider too: name the host or the model in the file of prices.override
        "#]],
        );
        check(
            "gpt-4o --provider openai --host a.corp",
            false,
            expect![[r#"
            no price (unknown_model): the price list has no such model of this provider
            the host is that of house, which decides
        "#]],
        );
        check(
            "gpt-4o --provider openai --host a.corp --json",
            false,
            expect![[r#"
            {
              "priced": false,
              "unpriced": {
                "provider_at_host": "house",
                "reason": "unknown_model",
                "why": "the price list has no such model of this provider"
              }
            }
        "#]],
        );
        check(
            "nobody-knows-it",
            false,
            expect![[r#"
            no price (unknown_provider): the price list has no such provider, and the model's name does not tell one
        "#]],
        );
    }
}
