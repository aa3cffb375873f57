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

/// The rates of one call. A kind of token without its own rate is charged as the kind that it is part of: cached, written and
/// heard input as input, what is written for an hour as written, cached audio as cached, reasoning and spoken output as
/// output. Input or output without a rate costs nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    pub input: Option<NanoPerMillion>,
    pub output: Option<NanoPerMillion>,
    pub cached_input: Option<NanoPerMillion>,
    pub cache_write: Option<NanoPerMillion>,
    pub cache_write_1h: Option<NanoPerMillion>,
    pub audio_input: Option<NanoPerMillion>,
    /// For audio that was cached too.
    pub cached_audio: Option<NanoPerMillion>,
    pub reasoning: Option<NanoPerMillion>,
    pub audio_output: Option<NanoPerMillion>,
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
    cache_write_1h: Option<Steps>,
    audio_input: Option<Steps>,
    cached_audio: Option<Steps>,
    reasoning: Option<Steps>,
    audio_output: Option<Steps>,
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

    fn is_for(&self, tier: &str) -> bool {
        self.service_tier.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(tier.trim()))
    }

    fn rates(&self, input: u64) -> Rates {
        let at_input = |steps: &Option<Steps>| steps.as_ref().map(|steps| steps.rate(input));
        Rates {
            input: at_input(&self.input),
            output: at_input(&self.output),
            cached_input: at_input(&self.cached_input),
            cache_write: at_input(&self.cache_write),
            cache_write_1h: at_input(&self.cache_write_1h),
            audio_input: at_input(&self.audio_input),
            cached_audio: at_input(&self.cached_audio),
            reasoning: at_input(&self.reasoning),
            audio_output: at_input(&self.audio_output),
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

    /// Rates of the call's service tier in place of these, each from the first active line that states it. Case does not
    /// count; a tier that no line has changes nothing.
    pub(super) fn with_tier(self, lines: &[PriceLine], tier: &str, at: Timestamp, input: u64) -> Self {
        lines
            .iter()
            .rev() // so that the first line is laid over the others
            .filter(|line| line.is_for(tier) && line.is_active(at))
            .fold(self, |below, line| below.overlaid(line.rates(input)))
    }

    fn overlaid(self, above: Self) -> Self {
        Self {
            input: above.input.or(self.input),
            output: above.output.or(self.output),
            cached_input: above.cached_input.or(self.cached_input),
            cache_write: above.cache_write.or(self.cache_write),
            cache_write_1h: above.cache_write_1h.or(self.cache_write_1h),
            audio_input: above.audio_input.or(self.audio_input),
            cached_audio: above.cached_audio.or(self.cached_audio),
            reasoning: above.reasoning.or(self.reasoning),
            audio_output: above.audio_output.or(self.audio_output),
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
    let kept = own(tokens.cache_write_1h, rates.cache_write_1h);
    let written = own(tokens.cache_write, rates.cache_write).saturating_sub(kept);
    let (cached, heard) = (own(tokens.cached_input, rates.cached_input), own(tokens.audio_input, rates.audio_input));
    let both = heard_from_cache(tokens, rates);
    let (cached_only, heard_only) = (cached - both, heard - both);
    let (reasoning, spoken) = (own(tokens.reasoning, rates.reasoning), own(tokens.audio_output, rates.audio_output));
    let rest = |whole: u64, parts: &[u64]| parts.iter().fold(whole, |rest, part| rest.saturating_sub(*part));
    let parts = [
        (rest(tokens.input, &[cached_only, heard_only, both, written, kept]), rates.input),
        (cached_only, rates.cached_input),
        (heard_only, rates.audio_input),
        (both, rates.cached_audio.or(rates.cached_input)),
        (written, rates.cache_write),
        (kept, rates.cache_write_1h),
        (rest(tokens.output, &[reasoning, spoken]), rates.output),
        (reasoning, rates.reasoning),
        (spoken, rates.audio_output),
    ];
    // 64 × 64 bits fit in 128; the sum of nine such products need not.
    let millionths = parts.iter().try_fold(0_u128, |sum, (tokens, rate)| {
        sum.checked_add(u128::from(*tokens) * u128::from(rate.map_or(0, |rate| rate.0)))
    });
    millionths
        .and_then(|millionths| i64::try_from(millionths.div_ceil(1_000_000)).ok())
        .and_then(|cost| cost.checked_add(rates.per_call.map_or(0, |fee| fee.0)))
        .map(NanoUsd)
        .ok_or(Unpriced::Overflow)
}

/// Whether every kind of token was charged at a rate of its own. It is not where the list has none for a kind that was told, nor
/// where audio and cached tokens may be the same ones, and it is not told how many are both.
pub(super) fn is_whole(tokens: &Tokens, rates: &Rates) -> bool {
    let kinds = [
        (tokens.cache_write_1h, rates.cache_write_1h),
        (tokens.audio_input, rates.audio_input),
        (heard_from_cache(tokens, rates), rates.cached_audio),
        (tokens.audio_output, rates.audio_output),
    ];
    let cached = own(tokens.cached_input, rates.cached_input);
    let is_told = tokens.cached_audio > 0 || heard_from_cache(tokens, rates) == cached.min(tokens.audio_input);
    is_told && kinds.iter().all(|(tokens, rate)| *tokens == 0 || rate.is_some())
}

/// Tokens that are charged apart from their whole, as they have a rate.
fn own(tokens: u64, rate: Option<NanoPerMillion>) -> u64 {
    if rate.is_some() { tokens } else { 0 }
}

/// Tokens that are both cached and audio: as many as were told, and as must be where together they are more than the input.
fn heard_from_cache(tokens: &Tokens, rates: &Rates) -> u64 {
    let (cached, heard) = (own(tokens.cached_input, rates.cached_input), own(tokens.audio_input, rates.audio_input));
    let least = cached.saturating_add(heard).saturating_sub(tokens.input);
    tokens.cached_audio.max(least).min(cached).min(heard)
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
        Tokens { input, output, ..Tokens::default() }
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
        let call =
            Tokens { input: 100, output: 50, cached_input: 30, cache_write: 20, reasoning: 10, ..Tokens::default() };
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
        let call = Tokens { input: 10, cached_input: 30, cache_write: 20, ..Tokens::default() };
        let with_cache = Rates { cached_input: Some(NanoPerMillion(1_000_000)), ..rates(10_000_000, 0) };
        assert_eq!(charge(&call, &with_cache), Ok(NanoUsd(30)));
    }

    #[test]
    fn what_is_written_for_an_hour_and_what_is_audio_has_its_own_rate() {
        let call = Tokens { input: 100, output: 50, cache_write: 20, cache_write_1h: 15, ..Tokens::default() };
        let base = rates(10_000_000, 100_000_000);
        let kept = Rates { cache_write_1h: Some(NanoPerMillion(30_000_000)), ..base };
        assert_eq!(charge(&call, &kept), Ok(NanoUsd(850 + 450 + 5_000)));
        let written = Rates { cache_write: Some(NanoPerMillion(20_000_000)), ..kept };
        assert_eq!(charge(&call, &written), Ok(NanoUsd(800 + 100 + 450 + 5_000)));
        assert_eq!(charge(&call, &Rates { cache_write_1h: None, ..written }), Ok(NanoUsd(800 + 400 + 5_000)));

        let call = Tokens { input: 100, output: 50, audio_input: 30, audio_output: 10, ..Tokens::default() };
        let heard = Rates { audio_input: Some(NanoPerMillion(40_000_000)), ..base };
        assert_eq!(charge(&call, &heard), Ok(NanoUsd(700 + 1_200 + 5_000)));
        let spoken = Rates { audio_output: Some(NanoPerMillion(200_000_000)), ..heard };
        assert_eq!(charge(&call, &spoken), Ok(NanoUsd(700 + 1_200 + 4_000 + 2_000)));
    }

    #[test]
    fn audio_that_must_have_been_cached_has_a_rate_too() {
        let call = |cached_input| Tokens { input: 100, audio_input: 70, cached_input, ..Tokens::default() };
        let cached = Rates { cached_input: Some(NanoPerMillion(1_000_000)), ..rates(10_000_000, 0) };
        let heard = Rates { audio_input: Some(NanoPerMillion(40_000_000)), ..cached };
        let both = Rates { cached_audio: Some(NanoPerMillion(3_000_000)), ..heard };
        assert_eq!(charge(&call(30), &both), Ok(NanoUsd(30 + 70 * 40)));
        assert_eq!(charge(&call(50), &both), Ok(NanoUsd(30 + 20 * 3 + 50 * 40)));
        assert_eq!(charge(&call(50), &heard), Ok(NanoUsd(50 + 50 * 40)));
        assert_eq!(charge(&call(100), &both), Ok(NanoUsd(30 + 70 * 3)));
        // Only where all cached tokens or all audio must be both, nothing is left to guess.
        assert_eq!([30, 50, 100, 0].map(|cached| is_whole(&call(cached), &both)), [false, false, true, true]);
        assert!(!is_whole(&call(100), &heard));
        let told = |cached_audio| Tokens { cached_audio, ..call(50) };
        assert_eq!(charge(&told(30), &both), Ok(NanoUsd(10 * 10 + 20 + 40 * 40 + 30 * 3)));
        assert_eq!(
            [charge(&told(1), &both), charge(&told(99), &both)],
            [charge(&told(20), &both), charge(&told(50), &both)]
        );
        assert!(is_whole(&told(30), &both) && !is_whole(&told(30), &heard));
    }

    #[test]
    fn a_call_is_whole_if_each_kind_that_was_told_has_a_rate() {
        let base = rates(1, 1);
        let whole = |tokens: Tokens, rates: &Rates| is_whole(&tokens, rates);
        let (kept, none) =
            (Tokens { input: 9, cache_write: 5, cache_write_1h: 1, ..Tokens::default() }, Tokens::default());
        let (heard, spoken) =
            (Tokens { input: 9, audio_input: 1, ..none }, Tokens { output: 9, audio_output: 1, ..none });
        let usual = Tokens { input: 9, output: 9, cached_input: 3, cache_write: 3, reasoning: 3, ..none };
        assert_eq!(
            [none, usual, kept, heard, spoken].map(|tokens| whole(tokens, &base)),
            [true, true, false, false, false]
        );
        let rate = Some(NanoPerMillion(0));
        let all = Rates { cache_write_1h: rate, audio_input: rate, audio_output: rate, ..base };
        assert!([kept, heard, spoken].into_iter().all(|tokens| whole(tokens, &all)));
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
