//! What a call costs: the price list and the one function that charges and rounds. It reads no clock, opens no file and
//! knows no database; the time of the call and an operator's own prices are given to it.
#![deny(clippy::float_arithmetic, clippy::as_conversions)]

mod book;
mod calendar;
mod charge;
mod matcher;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::domain::call::Tokens;
use crate::domain::money::NanoUsd;
use crate::domain::time::Timestamp;

pub use book::{OverrideError, PriceBook};
pub use charge::{NanoPerMillion, Rates};

/// What the price of a call depends on. Empty texts count as absent.
#[derive(Debug, Clone, Copy)]
pub struct Priced<'a> {
    /// As the span has it, in any dialect.
    pub provider: Option<&'a str>,
    /// The model that answered; it goes before the one asked for if it is known.
    pub model_given: Option<&'a str>,
    pub model_asked: Option<&'a str>,
    /// As the provider answered it; upper and lower case count.
    pub service_tier: Option<&'a str>,
    pub started_at: Timestamp,
    pub tokens: Tokens,
}

/// What a call costs, and by which entry of the price list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge<'book> {
    pub cost: NanoUsd,
    /// `genai-prices 0.2.3`, or `override:` and where the override came from.
    pub price_version: Arc<str>,
    pub provider: &'book str,
    pub model: &'book str,
}

/// The entry of the price list for a call, and the rates at its time, service tier and number of input tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'book> {
    pub provider: &'book str,
    pub model: &'book str,
    pub price_version: &'book Arc<str>,
    pub rates: Rates,
}

/// Why a call has no cost. It is never charged as zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unpriced {
    #[error("the call names no model")]
    NoModel,
    #[error("the price list has no such provider")]
    UnknownProvider,
    #[error("the price list has no such model of this provider")]
    UnknownModel,
    #[error("the price list knows the model, but no price for its tokens")]
    NoPrice,
    #[error("the cost does not fit in a number")]
    Overflow,
}

impl Unpriced {
    pub const ALL: [Self; 5] =
        [Self::NoModel, Self::UnknownProvider, Self::UnknownModel, Self::NoPrice, Self::Overflow];

    pub fn label(self) -> &'static str {
        match self {
            Self::NoModel => "no_model",
            Self::UnknownProvider => "unknown_provider",
            Self::UnknownModel => "unknown_model",
            Self::NoPrice => "no_price",
            Self::Overflow => "overflow",
        }
    }
}

impl PriceBook {
    /// The cost of a call, rounded up to whole nano-dollars.
    pub fn price(&self, call: &Priced<'_>) -> Result<Charge<'_>, Unpriced> {
        let found = self.find(call)?;
        Ok(Charge {
            cost: charge::charge(&call.tokens, &found.rates)?,
            price_version: Arc::clone(found.price_version),
            provider: found.provider,
            model: found.model,
        })
    }

    /// The entry that `price` charges by. A provider that is named is never replaced by another one; for a call that
    /// names none, the family of the model tells it (`gpt-…` is OpenAI's), as in the published list.
    pub fn find(&self, call: &Priced<'_>) -> Result<Found<'_>, Unpriced> {
        let names = [call.model_given, call.model_asked].map(present);
        let mut names = names.iter().flatten().peekable();
        names.peek().ok_or(Unpriced::NoModel)?;
        let named = match present(call.provider) {
            Some(name) => Some(self.provider(name).ok_or(Unpriced::UnknownProvider)?),
            None => None,
        };
        let mut miss = Unpriced::UnknownProvider;
        for name in names {
            let Some(provider) = named.or_else(|| self.maker(name)) else {
                continue;
            };
            miss = Unpriced::UnknownModel;
            let Some((model, own)) = self.model(provider, name) else {
                continue;
            };
            let (at, input) = (call.started_at, call.tokens.input);
            let standard = Rates::standard(&model.prices, at, input).ok_or(Unpriced::NoPrice)?;
            // Service tiers are a matter between provider and buyer: those of a fallback do not count.
            let tier = call.service_tier.filter(|_| own);
            let rates = tier.map_or(standard, |tier| standard.with_tier(&model.variants, tier, at, input));
            if rates.is_empty() {
                return Err(Unpriced::NoPrice);
            }
            return Ok(Found { provider: &provider.id, model: &model.id, price_version: &model.version, rates });
        }
        Err(miss)
    }
}

fn present(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.trim().is_empty())
}
