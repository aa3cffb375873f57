//! What a span is by itself, and what it tells of a call: its facts, read with what is known of its dialect.

use std::time::Duration;

use super::tree::Node;
use crate::dialect::{self, Cache, Work};
use crate::domain::call::Tokens;
use crate::domain::facts::{Facts, Field};

/// What a span is, seen alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It says that it calls a model.
    Call,
    /// It tells of a model and nobody has listed its operation: a call, unless calls are below it.
    Unlisted,
    /// It stands for what is below it; a call only where it has numbers and nothing below has.
    Aggregate,
    /// Work that is no model's: a tool, a retrieval.
    OtherWork,
    /// It only prepares a call.
    Preparation,
    /// It has nothing to do with models.
    Nothing,
}

/// What a span tells of a call.
#[derive(Clone, Debug)]
pub(super) struct View<'t> {
    pub role: Role,
    /// Set where counts are told and can be believed.
    pub tokens: Option<Tokens>,
    pub id: Option<&'t str>,
    pub models: [Option<&'t str>; 2],
    pub scope: &'t str,
    pub failed: bool,
    /// It logs what another span did.
    pub log: bool,
    /// A cache gave the answer, with the id and the counts of the call that once made it.
    pub from_cache: bool,
}

impl<'t> View<'t> {
    pub(super) fn of(node: &Node<'t>) -> Self {
        let facts = &node.span.facts;
        Self {
            role: role(&node.origin.scope, facts),
            tokens: tokens(&node.origin.scope, facts),
            id: facts.text(Field::ResponseId),
            models: [facts.text(Field::ResponseModel), facts.text(Field::RequestModel)],
            scope: &node.origin.scope,
            failed: node.span.failed,
            log: facts.has(Field::Log),
            from_cache: facts.number(Field::AnsweredFromCache) == Some(1),
        }
    }

    /// Whether it may be a call at all.
    pub(super) fn is_candidate(&self) -> bool {
        match self.role {
            Role::Call | Role::Unlisted => true,
            Role::Aggregate => self.tokens.is_some(),
            Role::OtherWork | Role::Preparation | Role::Nothing => false,
        }
    }
}

fn tells_counts(facts: &Facts) -> bool {
    [Field::InputTokens, Field::OutputTokens, Field::ImplausibleTokens].iter().any(|field| facts.has(*field))
}

fn role(scope: &str, facts: &Facts) -> Role {
    let name = facts.text(Field::Name).unwrap_or_default();
    if dialect::is_no_call_by_name(name) {
        return Role::Preparation;
    }
    if dialect::is_call_by_name(scope, name.as_bytes()) {
        return Role::Call;
    }
    let operation = facts.text(Field::Operation);
    match operation.map_or(Work::Unlisted, dialect::work) {
        Work::Model(_) => Role::Call,
        Work::Aggregate => Role::Aggregate,
        // Numbers must not go lost because they stand on a tool.
        Work::Other if tells_counts(facts) => Role::Aggregate,
        Work::Other => Role::OtherWork,
        Work::Unlisted => {
            let answered = facts.has(Field::ResponseModel);
            let asked = facts.has(Field::RequestModel) && (facts.has(Field::Provider) || operation.is_some());
            let told = tells_counts(facts) || facts.has(Field::ReportedCost);
            if told || answered || asked { Role::Unlisted } else { Role::Nothing }
        }
    }
}

/// The token counts, with `input` including the cached part and `output` the reasoning part, whatever the dialect left out. `None`
/// where they are not told, and where what is told cannot be the whole.
fn tokens(scope: &str, facts: &Facts) -> Option<Tokens> {
    if facts.has(Field::ImplausibleTokens) || !tells_counts(facts) {
        return None;
    }
    let count = |field| facts.number(field).unwrap_or(0);
    let (cached_input, cache_write) = (count(Field::CachedInputTokens), count(Field::CacheWriteTokens));
    let (input, output, reasoning) =
        (count(Field::InputTokens), count(Field::OutputTokens), count(Field::ReasoningTokens));
    // No model answers a prompt of no tokens: some write zeros where they were not told.
    if input == 0 && output == 0 {
        return None;
    }
    let cache = cached_input.saturating_add(cache_write);
    let habit = cache_of(scope, facts);
    if habit == Cache::ExcludedAndWritesApart && !facts.has(Field::CacheWriteTokens) {
        return None;
    }
    let total = facts.number(Field::TotalTokens);
    let beside = |part: u64| part > 0 && total == Some(input.saturating_add(output).saturating_add(part));
    // A part greater than the whole proves that the whole was given without it.
    let excluded = habit != Cache::Included || cache > input || beside(cache);
    let whole_input = if excluded { input.saturating_add(cache) } else { input };
    let within = total == Some(input.saturating_add(output)) || total == Some(whole_input.saturating_add(output));
    let apart = total == Some(whole_input.saturating_add(output).saturating_add(reasoning)) || beside(reasoning);
    let whole_output = if reasoning > 0 && (apart || reasoning > output && !within) {
        output.saturating_add(reasoning)
    } else {
        output
    };
    Some(Tokens {
        input: whole_input,
        output: whole_output,
        cached_input,
        cache_write,
        cache_write_1h: count(Field::CacheWrite1hTokens),
        audio_input: count(Field::AudioInputTokens),
        cached_audio: count(Field::CachedAudioTokens),
        audio_output: count(Field::AudioOutputTokens),
        reasoning,
    })
}

fn cache_of(scope: &str, facts: &Facts) -> Cache {
    let lower = |field| facts.text(field).unwrap_or_default().to_ascii_lowercase();
    let model = lower(Field::ResponseModel) + &lower(Field::RequestModel);
    dialect::cache_habit(scope, &lower(Field::Provider), &model, facts.has(Field::InputDetails))
}

pub(super) fn streams(facts: &Facts) -> bool {
    facts.number(Field::Streaming) == Some(1)
        || facts.has(Field::TimeToFirstToken)
        || facts.text(Field::Operation).is_some_and(dialect::streams)
}

/// Within the length of its span: some tell it in milliseconds where seconds belong.
pub(super) fn time_to_first_token(node: &Node<'_>) -> Option<Duration> {
    let told = Duration::from_nanos(node.span.facts.number(Field::TimeToFirstToken)?);
    let length = node.span.end.since(node.span.start);
    let in_milliseconds = told / 1000;
    Some(if told > length && in_milliseconds <= length { in_milliseconds } else { told })
}

/// Whether the provider had begun to answer, by what a span of a failed call tells. A model that is the one that was asked may only
/// repeat it.
pub(super) fn had_begun(scope: &str, facts: &Facts) -> bool {
    let asked = facts.text(Field::RequestModel);
    let repeats = |given: &str| asked.map_or(dialect::repeats_asked_model(scope), |asked| asked == given);
    let answered = facts.text(Field::ResponseModel).is_some_and(|given| !repeats(given));
    answered || facts.has(Field::ResponseId) || streams(facts)
}
