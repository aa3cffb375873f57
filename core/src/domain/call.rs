//! One call of a model: what it used, what it cost, what is not known about it.

use std::sync::Arc;
use std::time::Duration;

use super::ids::{SpanId, TraceId};
use super::money::NanoUsd;
use super::time::Timestamp;

/// What a record is found by, and a call among those of its record. Time first, so that inserts stay local; redelivery of a span
/// repeats it, and no late span changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Whole microseconds.
    pub started_at: Timestamp,
    pub trace_id: TraceId,
    pub span_id: SpanId,
}

/// One call of a model, after twins and repeats were removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub key: Key,
    /// As the span gave it; the price book knows its other names.
    pub provider: Option<Box<str>>,
    /// The server that was called: a name in lower case or an address, without the port.
    pub host: Option<Box<str>>,
    pub request_model: Option<Box<str>>,
    pub response_model: Option<Box<str>>,
    /// As the price list calls it, else as it was told; `None` before it is priced.
    pub model: Option<Box<str>>,
    /// `chat`, `embeddings`, `text_completion`, `generate_content`.
    pub operation: Option<Box<str>>,
    pub usage: Usage,
    pub cost: Cost,
    /// What the instrumentation itself reckoned, used where we have no price.
    pub reported_cost: Option<NanoUsd>,
    /// That was served, not that was asked for.
    pub service_tier: Option<Box<str>>,
    /// A response cache answered and no model: it costs nothing.
    pub answered_from_cache: bool,
    pub streaming: bool,
    pub duration: Duration,
    pub time_to_first_token: Option<Duration>,
    /// Set for a call that ended in an error.
    pub error_type: Option<Box<str>>,
    /// Name of the instrumentation scope.
    pub dialect: Box<str>,
}

/// Token counts of one call. `input` includes `cached_input`, `cache_write` and `audio_input`; `output` includes `reasoning` and
/// `audio_output`; `cache_write` includes `cache_write_1h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tokens {
    pub input: u64,
    pub output: u64,
    pub cached_input: u64,
    pub cache_write: u64,
    /// Written into a cache that lasts for an hour, which costs more than the usual five minutes.
    pub cache_write_1h: u64,
    pub audio_input: u64,
    /// Part of `cached_input` and of `audio_input`. Zero where it is not told: then some of the audio may have been cached.
    pub cached_audio: u64,
    pub reasoning: u64,
    pub audio_output: u64,
}

impl Tokens {
    /// No call uses more than a thousand million tokens: a greater count is a fault of the sender. Nine thousand million
    /// such calls have a sum that fits.
    pub const MOST: u64 = 1_000_000_000;

    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// Saturates; with counts up to `MOST` no request has calls enough for that.
    pub fn add(&mut self, other: &Self) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.cached_input = self.cached_input.saturating_add(other.cached_input);
        self.cache_write = self.cache_write.saturating_add(other.cache_write);
        self.cache_write_1h = self.cache_write_1h.saturating_add(other.cache_write_1h);
        self.audio_input = self.audio_input.saturating_add(other.audio_input);
        self.cached_audio = self.cached_audio.saturating_add(other.cached_audio);
        self.reasoning = self.reasoning.saturating_add(other.reasoning);
        self.audio_output = self.audio_output.saturating_add(other.audio_output);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Reported(Tokens),
    Unknown(UnknownUsage),
}

impl Usage {
    /// Zero for an unknown usage: ask for the variant before calling this a fact.
    pub fn tokens(&self) -> Tokens {
        match self {
            Self::Reported(tokens) => *tokens,
            Self::Unknown(_) => Tokens::default(),
        }
    }
}

/// Why the usage of a call is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnknownUsage {
    /// A streamed answer without the usage chunk.
    Stream,
    /// The span of a finished call has no token counts.
    Missing,
    /// It has, but no call could have used that.
    Implausible,
}

impl UnknownUsage {
    pub const ALL: [Self; 3] = [Self::Stream, Self::Missing, Self::Implausible];

    pub fn label(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Missing => "missing",
            Self::Implausible => "implausible",
        }
    }
}

/// The charge for a call, or that there is none yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cost {
    Charged {
        cost: NanoUsd,
        /// The price list with its content, or `reported`, `cached` or `none`.
        price_version: Arc<str>,
        /// False where tokens have a price only as part of others: their own is not known.
        whole: bool,
    },
    /// The usage is known, a price is not.
    Unpriced,
    /// Nothing can be said, as the usage is unknown.
    Unknown,
}

impl Cost {
    /// No call costs more than a million dollars: a greater charge is a fault of a price or of whoever told it, and counts as
    /// none. Nine thousand such calls have a sum that fits; sums of more stop at the greatest number.
    pub const MOST: NanoUsd = NanoUsd(1_000_000_000_000_000);

    /// Without a charge that cannot be.
    #[must_use]
    pub fn plausible(self) -> Self {
        match self {
            Self::Charged { cost, .. } if cost > Self::MOST => Self::Unpriced,
            other => other,
        }
    }

    pub fn charged(&self) -> Option<NanoUsd> {
        match self {
            Self::Charged { cost, .. } => Some(*cost),
            Self::Unpriced | Self::Unknown => None,
        }
    }

    /// Charged, and every kind of token by a price of its own.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Charged { whole: true, .. })
    }
}

impl Call {
    pub fn failed(&self) -> bool {
        self.error_type.is_some()
    }

    /// What it used is known, but not what all of it costs.
    pub fn lacks_price(&self) -> bool {
        matches!(self.usage, Usage::Reported(_)) && !self.cost.is_whole()
    }

    /// The name under which it counts: that of the price list, under which all dated names and aliases of a model are one.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref().or(self.told_model())
    }

    /// The model that answered, else the one that was asked.
    pub fn told_model(&self) -> Option<&str> {
        self.response_model.as_deref().or(self.request_model.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_that_cannot_be_is_none() {
        let charged = |nano| Cost::Charged { cost: NanoUsd(nano), price_version: "v".into(), whole: true };
        assert_eq!(charged(Cost::MOST.0).plausible(), charged(Cost::MOST.0));
        assert_eq!(charged(Cost::MOST.0 + 1).plausible(), Cost::Unpriced);
        assert_eq!(charged(-1).plausible(), charged(-1));
    }
}
