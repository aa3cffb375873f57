//! What a call costs: the price list and the one function that charges and rounds. It reads no clock, opens no file and
//! knows no database; the time of the call and an operator's own prices are given to it.
#![deny(clippy::float_arithmetic, clippy::as_conversions)]

mod book;
mod calendar;
mod charge;
mod hosts;
mod matcher;
mod names;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::domain::call::{Call, Tokens};
use crate::domain::money::NanoUsd;
use crate::domain::time::Timestamp;

pub use book::{OverrideError, PriceBook};
pub use charge::{NanoPerMillion, Rates};

use book::{Named, Provider};
use hosts::Owner;

/// What the price of a call depends on. Empty texts count as absent.
#[derive(Debug, Clone, Copy)]
pub struct Priced<'a> {
    /// As the span has it, in any dialect.
    pub provider: Option<&'a str>,
    /// The server that was called, without the port. One that is known decides the provider, whatever the span names.
    pub host: Option<&'a str>,
    /// The model that answered; it goes before the one asked for if it is known.
    pub model_given: Option<&'a str>,
    pub model_asked: Option<&'a str>,
    /// As the provider answered it.
    pub service_tier: Option<&'a str>,
    pub started_at: Timestamp,
    pub tokens: Tokens,
}

impl<'a> Priced<'a> {
    /// What the price of this call depends on; of unknown usage it is that of no tokens.
    pub fn of(call: &'a Call) -> Self {
        Self {
            provider: call.provider.as_deref(),
            host: call.host.as_deref(),
            model_given: call.response_model.as_deref(),
            model_asked: call.request_model.as_deref(),
            service_tier: call.service_tier.as_deref(),
            started_at: call.key.started_at,
            tokens: call.usage.tokens(),
        }
    }
}

/// What a call costs, and by which entry of the price list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge<'book> {
    pub cost: NanoUsd,
    /// False where a kind of token has no price of its own, or how many there were is not told.
    pub whole: bool,
    /// `genai-prices 0.2.3`, or `override:` and where the override came from, with a hash of the content.
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
    #[error("the price list has no such provider, and the model's name does not tell one")]
    UnknownProvider,
    #[error(
        "nobody in the price list has this host, and other servers take calls for this provider too: name the host or \
         the model in the file of prices.override"
    )]
    UnknownHost,
    #[error("the price list has no such model of this provider")]
    UnknownModel,
    #[error("the price list knows the model, but no price for its tokens")]
    NoPrice,
    #[error("the cost does not fit in a number")]
    Overflow,
}

impl Unpriced {
    pub const ALL: [Self; 6] =
        [Self::NoModel, Self::UnknownProvider, Self::UnknownHost, Self::UnknownModel, Self::NoPrice, Self::Overflow];

    pub fn label(self) -> &'static str {
        match self {
            Self::NoModel => "no_model",
            Self::UnknownProvider => "unknown_provider",
            Self::UnknownHost => "unknown_host",
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
            whole: charge::is_whole(&call.tokens, &found.rates),
            price_version: Arc::clone(found.price_version),
            provider: found.provider,
            model: found.model,
        })
    }

    /// The provider whose host this is, by its id in the price list.
    pub fn provider_at(&self, host: &str) -> Option<&str> {
        match self.hosts.owner(Some(host)) {
            Owner::Provider(place) => Some(&self.providers[place].id),
            Owner::Untold | Owner::Nobody => None,
        }
    }

    /// Whether this name of a provider, in any dialect, means the one of this id.
    pub fn is_named(&self, id: &str, name: &str) -> bool {
        matches!(self.named(Some(name)), Named::Provider(provider) if &*provider.id == id)
    }

    /// The entry that `price` charges by. A provider that is told, by the host or by its name, is never replaced by another
    /// one. Where none is told, what leads the model's name tells it (`azure/gpt-4o`), else the family of the model (`gpt-…`
    /// is OpenAI's), as in the published list.
    pub fn find(&self, call: &Priced<'_>) -> Result<Found<'_>, Unpriced> {
        let names = [call.model_given, call.model_asked].map(present);
        let names = || names.iter().flatten().copied();
        names().next().ok_or(Unpriced::NoModel)?;
        let owner = self.hosts.owner(call.host);
        let told = match owner {
            Owner::Provider(place) => Named::Provider(&self.providers[place]),
            Owner::Untold | Owner::Nobody => self.named(present(call.provider)),
        };
        let told = match told {
            Named::Nobody => names().find_map(|name| self.leading(name)).unwrap_or(Named::Nobody),
            told => told,
        };
        let mut miss = Unpriced::UnknownProvider;
        for name in names() {
            let provider = match told {
                Named::Provider(provider) => provider,
                Named::Elsewhere => return Err(Unpriced::UnknownProvider),
                Named::Nobody => match self.maker(name) {
                    Some(maker) => maker,
                    None => continue,
                },
            };
            let stranger = owner == Owner::Nobody && is_imitated(provider);
            miss = if stranger { Unpriced::UnknownHost } else { Unpriced::UnknownModel };
            let Some((model, own)) = self.model(provider, name) else {
                continue;
            };
            if stranger && !model.edition.is_own {
                continue;
            }
            let (at, input) = (call.started_at, call.tokens.input);
            let standard = Rates::standard(&model.prices, at, input).ok_or(Unpriced::NoPrice)?;
            // Service tiers are a matter between provider and buyer: those of a fallback do not count.
            let tier = call.service_tier.filter(|_| own);
            let rates = tier.map_or(standard, |tier| standard.with_tier(&model.variants, tier, at, input));
            if rates.is_empty() {
                return Err(Unpriced::NoPrice);
            }
            let (provider, price_version) = (&provider.id, &model.edition.version);
            return Ok(Found { provider, model: &model.id, price_version, rates });
        }
        Err(miss)
    }
}

/// Many servers speak the protocol of these, so that whoever calls them by the same library names these.
fn is_imitated(provider: &Provider) -> bool {
    matches!(&*provider.id, "openai" | "anthropic")
}

fn present(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.trim().is_empty())
}
