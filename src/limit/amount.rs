//! What limits count, and how much of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use tacho_core::domain::call::Tokens;
use tacho_core::domain::money::NanoUsd;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    Requests,
    /// Input and output together.
    Tokens,
    InputTokens,
    OutputTokens,
    /// Nano-dollars.
    Cost,
}

impl Meter {
    pub const ALL: [Self; 5] = [Self::Requests, Self::Tokens, Self::InputTokens, Self::OutputTokens, Self::Cost];

    pub fn label(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Cost => "cost",
        }
    }

    /// What an amount of it is given in.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens | Self::InputTokens | Self::OutputTokens => "tokens",
            Self::Cost => "USD",
        }
    }

    /// As a person reads it: dollars for money, digits for the rest.
    pub fn show(self, amount: i64) -> String {
        match self {
            Self::Cost => format!("{} USD", NanoUsd(amount)),
            _ => format!("{amount} {}", self.unit()),
        }
    }

    /// As a program reads it, in `unit`.
    pub fn figure(self, amount: i64) -> Figure {
        match self {
            Self::Cost => Figure::Dollars(NanoUsd(amount).to_string()),
            _ => Figure::Count(amount),
        }
    }
}

/// Money is in dollars as text, so that nothing is rounded.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Figure {
    Count(i64),
    Dollars(String),
}

/// So much of a meter: requests, tokens or nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(pub i64);

/// What one request uses, or is expected to use, of everything that can be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub requests: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cost_nanousd: i64,
}

impl Usage {
    pub fn new(requests: i64, tokens: &Tokens, cost: Option<NanoUsd>) -> Self {
        let count = |tokens| i64::try_from(tokens).unwrap_or(i64::MAX);
        Self {
            requests,
            input_tokens: count(tokens.input),
            output_tokens: count(tokens.output),
            cost_nanousd: cost.map_or(0, |cost| cost.0),
        }
    }

    pub fn of(&self, meter: Meter) -> i64 {
        match meter {
            Meter::Requests => self.requests,
            Meter::Tokens => self.input_tokens.saturating_add(self.output_tokens),
            Meter::InputTokens => self.input_tokens,
            Meter::OutputTokens => self.output_tokens,
            Meter::Cost => self.cost_nanousd,
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.cost_nanousd = self.cost_nanousd.saturating_add(other.cost_nanousd);
    }
}

/// A decimal number as it stands in the configuration: an integer, a decimal or a text of one. Kept in billionths, exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal(pub i128);

/// US dollars as they are written: `5`, `0.25`, `"0.25"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dollars(pub Amount);

impl<'de> Deserialize<'de> for Dollars {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let amount = Decimal::deserialize(deserializer)?.amount(Meter::Cost);
        amount.map(Self).ok_or_else(|| serde::de::Error::custom("more dollars than there are"))
    }
}

const BILLION: i128 = 1_000_000_000;

impl Decimal {
    /// Up to nine decimals; `_` may part the digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.replace('_', "");
        let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 18 || part.len() > 9 || !digits(whole) || !digits(part) {
            return None;
        }
        let whole: i128 = whole.parse().ok()?;
        let part: i128 = format!("{part:0<9}").parse().ok()?;
        Some(Self(whole * BILLION + part))
    }

    /// As an amount of this meter; `None` if it has no such fraction or is too great.
    pub(super) fn amount(self, meter: Meter) -> Option<Amount> {
        let units = match meter {
            Meter::Cost => self.0,
            _ if self.0 % BILLION == 0 => self.0 / BILLION,
            _ => return None,
        };
        i64::try_from(units).ok().map(Amount)
    }

    /// In thousandths, if it is a share between 0 and 1.
    pub(super) fn per_mille(self) -> Option<u16> {
        let share = self.0 * 1_000;
        if share % BILLION == 0 && share <= 1_000 * BILLION { u16::try_from(share / BILLION).ok() } else { None }
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Decimal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number that is not negative, with at most nine decimals")
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Decimal, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Decimal, E> {
                self.visit_str(&value.to_string())
            }

            // The shortest text of a float is the one that was written.
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Decimal, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Decimal, E> {
                Decimal::parse(value).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(value), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        assert_eq!(Decimal::parse("0.1").unwrap().amount(Meter::Cost), Some(Amount(100_000_000)));
        assert_eq!(Decimal::parse("1_000").unwrap().amount(Meter::Tokens), Some(Amount(1_000)));
        assert_eq!(Decimal::parse("1.5").unwrap().amount(Meter::Tokens), None);
        assert_eq!(Decimal::parse("0.8").unwrap().per_mille(), Some(800));
        assert_eq!(Decimal::parse("9300000000").unwrap().amount(Meter::Cost), None);
        for text in ["", "-1", ".5", "1e9", "1.0000000001", "9999999999999999999", "inf", "NaN"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }
}
