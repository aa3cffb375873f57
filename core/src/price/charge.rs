//! From the prices of a model to the rates of one call, and from rates and tokens to money. It knows no names of models
//! or providers.

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use super::Unpriced;
use super::calendar::{Day, TimeOfDay};
use crate::domain::call::Tokens;
use crate::domain::money::NanoUsd;
use crate::domain::time::Timestamp;

/// Billionths of a US dollar for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct NanoPerMillion(pub u64);

/// The rates of one call. A kind of token without its own rate is charged as the kind that it is part of: cached and
/// written input as input, reasoning as output. Input or output without a rate costs nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    pub input: Option<NanoPerMillion>,
    pub output: Option<NanoPerMillion>,
    pub cached_input: Option<NanoPerMillion>,
    pub cache_write: Option<NanoPerMillion>,
    pub reasoning: Option<NanoPerMillion>,
    /// For the call itself, whatever its tokens.
    pub per_call: Option<NanoUsd>,
}

/// A line of a price list: rates with the time, and perhaps the service tier, that they are for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceLine {
    pub service_tier: Option<Box<str>>,
    from: Option<Day>,
    between: Option<(TimeOfDay, TimeOfDay)>,
    input: Option<Steps>,
    output: Option<Steps>,
    cached_input: Option<Steps>,
    cache_write: Option<Steps>,
    reasoning: Option<Steps>,
    #[serde(default, deserialize_with = "fee")]
    per_call: Option<NanoUsd>,
}

/// A rate that depends on how much input the call has. Crossing a step re-prices the whole call, not just the rest.
#[derive(Debug, Clone)]
struct Steps {
    base: NanoPerMillion,
    /// (input tokens that must be exceeded, rate), rising.
    over: Vec<(u64, NanoPerMillion)>,
}

impl PriceLine {
    fn is_active(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| Day::of(at) >= from)
            && self.between.is_none_or(|(start, end)| TimeOfDay::of(at).is_between(start, end))
    }

    fn rates(&self, input: u64) -> Rates {
        let at_input = |steps: &Option<Steps>| steps.as_ref().map(|steps| steps.rate(input));
        Rates {
            input: at_input(&self.input),
            output: at_input(&self.output),
            cached_input: at_input(&self.cached_input),
            cache_write: at_input(&self.cache_write),
            reasoning: at_input(&self.reasoning),
            per_call: self.per_call,
        }
    }
}

impl Steps {
    fn rate(&self, input: u64) -> NanoPerMillion {
        self.over.iter().rev().find(|(above, _)| input > *above).map_or(self.base, |(_, rate)| *rate)
    }
}

impl Rates {
    /// The last line that is active at the time of the call; the first one if none is. None if there are no lines.
    pub(super) fn standard(lines: &[PriceLine], at: Timestamp, input: u64) -> Option<Self> {
        let line = lines.iter().rev().find(|line| line.is_active(at)).or(lines.first())?;
        Some(line.rates(input))
    }

    /// Rates of the call's service tier in place of these, each from the first active line that states it.
    pub(super) fn with_tier(self, lines: &[PriceLine], tier: &str, at: Timestamp, input: u64) -> Self {
        lines
            .iter()
            .rev() // so that the first line is laid over the others
            .filter(|line| line.service_tier.as_deref() == Some(tier) && line.is_active(at))
            .fold(self, |below, line| below.overlaid(line.rates(input)))
    }

    fn overlaid(self, above: Self) -> Self {
        Self {
            input: above.input.or(self.input),
            output: above.output.or(self.output),
            cached_input: above.cached_input.or(self.cached_input),
            cache_write: above.cache_write.or(self.cache_write),
            reasoning: above.reasoning.or(self.reasoning),
            per_call: above.per_call.or(self.per_call),
        }
    }

    /// True if there is nothing here to charge by. It is not the same as a price of zero.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What one call costs: the exact sum, rounded up, once, here. Parts larger than their whole are charged as stated, and
/// the rest of the whole as nothing.
pub(super) fn charge(tokens: &Tokens, rates: &Rates) -> Result<NanoUsd, Unpriced> {
    let own = |tokens: u64, rate: Option<NanoPerMillion>| if rate.is_some() { tokens } else { 0 };
    let cached = own(tokens.cached_input, rates.cached_input);
    let written = own(tokens.cache_write, rates.cache_write);
    let reasoning = own(tokens.reasoning, rates.reasoning);
    let parts = [
        (tokens.input.saturating_sub(cached).saturating_sub(written), rates.input),
        (cached, rates.cached_input),
        (written, rates.cache_write),
        (tokens.output.saturating_sub(reasoning), rates.output),
        (reasoning, rates.reasoning),
    ];
    // 64 × 64 bits fit in 128; the sum of five such products need not.
    let millionths = parts.iter().try_fold(0_u128, |sum, (tokens, rate)| {
        sum.checked_add(u128::from(*tokens) * u128::from(rate.map_or(0, |rate| rate.0)))
    });
    millionths
        .and_then(|millionths| i64::try_from(millionths.div_ceil(1_000_000)).ok())
        .and_then(|cost| cost.checked_add(rates.per_call.map_or(0, |fee| fee.0)))
        .map(NanoUsd)
        .ok_or(Unpriced::Overflow)
}

/// Money in a price list is never negative.
fn fee<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NanoUsd>, D::Error> {
    let nanos = u64::deserialize(from)?;
    i64::try_from(nanos).map(|nanos| Some(NanoUsd(nanos))).map_err(|_| de::Error::custom("a price too large to charge"))
}

impl<'de> Deserialize<'de> for Steps {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(StepsVisitor)
    }
}

/// Reads a plain number, or `{"base": N, "over": [[TOKENS, N], …]}`.
struct StepsVisitor;

impl<'de> Visitor<'de> for StepsVisitor {
    type Value = Steps;

    fn expecting(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        text.write_str("whole nano-dollars per million tokens, or {\"base\": N, \"over\": [[TOKENS, N]]}")
    }

    fn visit_u64<E: de::Error>(self, rate: u64) -> Result<Steps, E> {
        Ok(Steps { base: NanoPerMillion(rate), over: Vec::new() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Steps, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Stepped {
            base: NanoPerMillion,
            over: Vec<(u64, NanoPerMillion)>,
        }
        let mut read = Stepped::deserialize(MapAccessDeserializer::new(map))?;
        read.over.sort_by_key(|(above, _)| *above);
        Ok(Steps { base: read.base, over: read.over })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(input: u64, output: u64) -> Rates {
        Rates { input: Some(NanoPerMillion(input)), output: Some(NanoPerMillion(output)), ..Rates::default() }
    }

    fn tokens(input: u64, output: u64) -> Tokens {
        Tokens { input, output, cached_input: 0, cache_write: 0, reasoning: 0 }
    }

    #[test]
    fn the_sum_is_rounded_up_once() {
        // 0.4 + 0.4 nano-dollars: 1, not 2.
        assert_eq!(charge(&tokens(1, 1), &rates(400_000, 400_000)), Ok(NanoUsd(1)));
        assert_eq!(charge(&tokens(1, 1), &rates(500_000, 500_000)), Ok(NanoUsd(1)));
        assert_eq!(charge(&tokens(1, 1), &rates(500_000, 500_001)), Ok(NanoUsd(2)));
        assert_eq!(charge(&tokens(0, 0), &rates(500_000, 500_000)), Ok(NanoUsd(0)));
    }

    #[test]
    fn parts_have_their_own_rate_or_that_of_their_whole() {
        let call = Tokens { input: 100, output: 50, cached_input: 30, cache_write: 20, reasoning: 10 };
        let base = rates(10_000_000, 100_000_000);
        assert_eq!(charge(&call, &base), Ok(NanoUsd(1_000 + 5_000)));
        let cached = Rates { cached_input: Some(NanoPerMillion(1_000_000)), ..base };
        assert_eq!(charge(&call, &cached), Ok(NanoUsd(700 + 30 + 5_000)));
        let written = Rates { cache_write: Some(NanoPerMillion(20_000_000)), ..cached };
        assert_eq!(charge(&call, &written), Ok(NanoUsd(500 + 30 + 400 + 5_000)));
        let reasoning = Rates { reasoning: Some(NanoPerMillion(0)), ..written };
        assert_eq!(charge(&call, &reasoning), Ok(NanoUsd(500 + 30 + 400 + 4_000)));
        let fee = Rates { per_call: Some(NanoUsd(7)), ..reasoning };
        assert_eq!(charge(&call, &fee), Ok(NanoUsd(500 + 30 + 400 + 4_000 + 7)));
    }

    #[test]
    fn parts_larger_than_their_whole_are_charged_as_stated() {
        let call = Tokens { input: 10, output: 0, cached_input: 30, cache_write: 20, reasoning: 0 };
        let with_cache = Rates { cached_input: Some(NanoPerMillion(1_000_000)), ..rates(10_000_000, 0) };
        assert_eq!(charge(&call, &with_cache), Ok(NanoUsd(30)));
    }

    #[test]
    fn what_does_not_fit_is_an_overflow() {
        let trillion = 1_000_000_000_000;
        assert_eq!(charge(&tokens(trillion, 0), &rates(9_000_000_000_000, 0)), Ok(NanoUsd(9_000_000_000_000_000_000)));
        assert_eq!(charge(&tokens(trillion, trillion), &rates(9_000_000_000_000, 1 << 40)), Err(Unpriced::Overflow));
        assert_eq!(charge(&tokens(u64::MAX, u64::MAX), &rates(u64::MAX, u64::MAX)), Err(Unpriced::Overflow));
    }

    #[test]
    fn a_step_must_be_exceeded_and_then_covers_the_whole_call() {
        let steps: Steps = serde_json::from_str(r#"{"base":1,"over":[[200,3],[100,2]]}"#).unwrap();
        for (input, rate) in [(0, 1), (100, 1), (101, 2), (200, 2), (201, 3), (u64::MAX, 3)] {
            assert_eq!(steps.rate(input), NanoPerMillion(rate), "{input}");
        }
    }
}
