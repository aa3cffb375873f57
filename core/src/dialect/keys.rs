//! Attribute keys. Those of a field stand in the order in which they are tried, new before deprecated before vendor; the first one
//! present on a span is used and the others are never added to it.

use crate::domain::facts::Field;
use crate::domain::hash::stable;

/// How the value of an attribute is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Text that names something: cleaned of control characters, cut where over-long.
    Name,
    /// Path of a URL or of a request target, without scheme, host, query and fragment.
    Path,
    /// Template of a route, with a slash in front.
    Route,
    /// A method of HTTP and nothing else.
    Method,
    /// Name of a host, or the host of a URL.
    Host,
    /// Number of tokens.
    Tokens,
    /// HTTP status code.
    Status,
    /// `true`.
    Flag,
    /// Set where the attribute is there, whatever its value.
    Present,
    /// Set where the attribute is this text.
    Equals(&'static str),
    Seconds,
    Milliseconds,
    /// US dollars; zero says that the instrumentation had no price.
    Dollars,
    /// Name of an operation, or kind of a span, as its dialect has it.
    Operation,
    /// Error class: a closed alphabet, anything else is `_OTHER`.
    ErrorType,
    /// A text of JSON, of which some values are read and the rest never is.
    Json(&'static [JsonRow]),
}

/// A field, how it is read, and its keys in the order in which they are tried.
pub type Row = (Field, Unit, &'static [&'static str]);

/// A value inside a text of JSON: the names that lead to it, the field that it is, and how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonRow {
    pub path: &'static [&'static str],
    pub field: Field,
    pub unit: Unit,
}

/// Attributes of spans.
pub const SPAN_KEYS: &[Row] = &[
    (Field::HttpMethod, Unit::Name, &["http.request.method", "http.method"]),
    (Field::HttpMethod, Unit::Method, &["method"]),
    (Field::HttpRoute, Unit::Name, &["http.route"]),
    (Field::HttpRoute, Unit::Route, &["uri"]),
    (Field::HttpPath, Unit::Path, &["url.path", "http.target", "http.url"]),
    (Field::HttpStatus, Unit::Status, &["http.response.status_code", "http.status_code", "status"]),
    (Field::User, Unit::Name, USER_KEYS),
    (Field::Tenant, Unit::Name, TENANT_KEYS),
    (Field::Agent, Unit::Name, AGENT_KEYS),
    (Field::Session, Unit::Name, SESSION_KEYS),
    (Field::Conversation, Unit::Name, &["gen_ai.conversation.id"]),
    (
        Field::Operation,
        Unit::Operation,
        &[
            "gen_ai.operation.name",
            "llm.request.type",
            "openinference.span.kind",
            "ai.operationId",
            "langfuse.observation.type",
            "langsmith.span.kind",
            "mlflow.spanType",
            "traceloop.span.kind",
            "gen_ai.span.kind",
            "span.type",
        ],
    ),
    (
        Field::Provider,
        Unit::Name,
        &[
            "gen_ai.provider.name",
            "langsmith.metadata.ls_provider",
            "gen_ai.system",
            "llm.provider",
            "llm.system",
            "ai.model.provider",
            "mlflow.llm.provider",
            "litellm.provider",
        ],
    ),
    (
        Field::RequestModel,
        Unit::Name,
        &[
            "gen_ai.request.model",
            "llm.request.model_name",
            "ai.model.id",
            "langsmith.metadata.ls_model_name",
            "model_name",
            "mlflow.llm.model",
            "litellm.provider.model",
            "model",
        ],
    ),
    (
        Field::ResponseModel,
        Unit::Name,
        &[
            "gen_ai.response.model",
            "ai.response.model",
            "llm.model_name",
            "embedding.model_name",
            "langfuse.observation.model.name",
        ],
    ),
    (
        Field::ServiceTier,
        Unit::Name,
        &["openai.response.service_tier", "gen_ai.openai.response.service_tier", "anthropic.response.service_tier"],
    ),
    (Field::ResponseId, Unit::Name, &["gen_ai.response.id", "ai.response.id"]),
    (Field::Host, Unit::Host, &["gen_ai.openai.api_base", "server.address", "url.full", "net.peer.name"]),
    (
        Field::InputTokens,
        Unit::Tokens,
        &[
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.prompt_tokens",
            "llm.token_count.prompt",
            "ai.usage.inputTokens",
            "ai.usage.promptTokens",
            "ai.usage.tokens",
            "llm.usage.prompt_tokens",
            "input_tokens",
            "prompt_tokens",
        ],
    ),
    (
        Field::OutputTokens,
        Unit::Tokens,
        &[
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.completion_tokens",
            "llm.token_count.completion",
            "ai.usage.outputTokens",
            "ai.usage.completionTokens",
            "llm.usage.completion_tokens",
            "output_tokens",
            "completion_tokens",
        ],
    ),
    (
        Field::TotalTokens,
        Unit::Tokens,
        &[
            "gen_ai.usage.total_tokens",
            "llm.token_count.total",
            "ai.usage.totalTokens",
            "llm.usage.total_tokens",
            "gen_ai.client.token.usage",
        ],
    ),
    (
        Field::CachedInputTokens,
        Unit::Tokens,
        &[
            "gen_ai.usage.cache_read.input_tokens",
            "gen_ai.usage.cache_read_input_tokens",
            "llm.token_count.prompt_details.cache_read",
            "ai.usage.cachedInputTokens",
            "ai.usage.inputTokenDetails.cacheReadTokens",
            "gen_ai.usage.details.cache_read_tokens",
            "gen_ai.usage.details.cache_read_input_tokens",
            "gen_ai.usage.cached_tokens",
            "cache_read_tokens",
            "cache_read_input_tokens",
        ],
    ),
    (
        Field::CacheWriteTokens,
        Unit::Tokens,
        &[
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
            "gen_ai.usage.cache_creation_input_tokens",
            "gen_ai.usage.cache_write_input_tokens",
            "llm.token_count.prompt_details.cache_write",
            "ai.usage.inputTokenDetails.cacheWriteTokens",
            "gen_ai.usage.details.cache_write_tokens",
            "gen_ai.usage.details.cache_creation_input_tokens",
            "cache_creation_tokens",
            "cache_creation_input_tokens",
        ],
    ),
    (
        Field::CacheWrite1hTokens,
        Unit::Tokens,
        &[
            "anthropic.usage.cache_creation.ephemeral_1h_input_tokens",
            "gen_ai.usage.cache_creation.ephemeral_1h_input_tokens",
            "gen_ai.usage.details.ephemeral_1h_input_tokens",
        ],
    ),
    (
        Field::ReasoningTokens,
        Unit::Tokens,
        &[
            "gen_ai.usage.reasoning.output_tokens",
            "gen_ai.usage.reasoning_tokens",
            "llm.token_count.completion_details.reasoning",
            "ai.usage.reasoningTokens",
            "ai.usage.outputTokenDetails.reasoningTokens",
            "gen_ai.usage.details.reasoning_tokens",
        ],
    ),
    (
        Field::AudioInputTokens,
        Unit::Tokens,
        &[
            "gen_ai.usage.audio.input_tokens",
            "llm.token_count.prompt_details.audio",
            "gen_ai.usage.details.input_audio_tokens",
        ],
    ),
    (
        Field::AudioOutputTokens,
        Unit::Tokens,
        &[
            "gen_ai.usage.audio.output_tokens",
            "llm.token_count.completion_details.audio",
            "gen_ai.usage.details.output_audio_tokens",
        ],
    ),
    (
        Field::CachedAudioTokens,
        Unit::Tokens,
        &["gen_ai.usage.audio.cache_read.input_tokens", "gen_ai.usage.details.cache_audio_read_tokens"],
    ),
    (
        Field::InputDetails,
        Unit::Present,
        &[
            "ai.usage.inputTokenDetails.noCacheTokens",
            "ai.usage.inputTokenDetails.cacheReadTokens",
            "ai.usage.inputTokenDetails.cacheWriteTokens",
        ],
    ),
    (
        Field::ReportedCost,
        Unit::Dollars,
        &["operation.cost", "gen_ai.cost.total_cost", "gen_ai.usage.cost", "llm.cost.total", "cost_usd"],
    ),
    (Field::AnsweredFromCache, Unit::Flag, &["litellm.cache_hit", "metadata.cache_hit", "gen_ai.response.cache_hit"]),
    (Field::Log, Unit::Equals("log"), &["logfire.span_type"]),
    (Field::Streaming, Unit::Flag, &["gen_ai.request.stream", "gen_ai.is_streaming", "llm.is_streaming", "stream"]),
    (
        Field::TimeToFirstToken,
        Unit::Seconds,
        &[
            "gen_ai.response.time_to_first_chunk",
            "gen_ai.client.operation.time_to_first_chunk",
            "gen_ai.server.time_to_first_token",
        ],
    ),
    (Field::TimeToFirstToken, Unit::Milliseconds, &["ai.response.msToFirstChunk", "ttft_ms"]),
    (Field::ErrorType, Unit::ErrorType, &["error.type", EXCEPTION_TYPE]),
    // The code of a call's error; the status of HTTP stands for it where a call failed.
    (Field::ErrorCode, Unit::Status, &["error.code", "status_code"]),
];

/// The one attribute read from span events.
pub const EXCEPTION_TYPE: &str = "exception.type";

/// Attributes whose text is JSON. What a path does not lead to is never looked at.
pub const JSON_KEYS: &[(&str, &[JsonRow])] = &[
    ("langfuse.observation.usage_details", LANGFUSE_USAGE),
    ("langfuse.observation.cost_details", &[at(&["total"], Field::ReportedCost, Unit::Dollars)]),
    ("langfuse.observation.completion_start_time", &[at(&[], Field::Streaming, Unit::Present)]),
    (
        "mlflow.chat.tokenUsage",
        &[
            at(&["input_tokens"], Field::InputTokens, Unit::Tokens),
            at(&["output_tokens"], Field::OutputTokens, Unit::Tokens),
            at(&["total_tokens"], Field::TotalTokens, Unit::Tokens),
            at(&["cache_read_input_tokens"], Field::CachedInputTokens, Unit::Tokens),
            at(&["cache_creation_input_tokens"], Field::CacheWriteTokens, Unit::Tokens),
        ],
    ),
    ("mlflow.llm.cost", &[at(&["total_cost"], Field::ReportedCost, Unit::Dollars)]),
    ("ai.response.providerMetadata", PROVIDER_METADATA),
    (
        "llm.invocation_parameters",
        &[at(&["model"], Field::RequestModel, Unit::Name), at(&["stream"], Field::Streaming, Unit::Flag)],
    ),
];

const fn at(path: &'static [&'static str], field: Field, unit: Unit) -> JsonRow {
    JsonRow { path, field, unit }
}

/// In three shapes: of OpenAI's chat, of its responses, and Langfuse's own.
const LANGFUSE_USAGE: &[JsonRow] = &[
    at(&["input_tokens"], Field::InputTokens, Unit::Tokens),
    at(&["prompt_tokens"], Field::InputTokens, Unit::Tokens),
    at(&["input"], Field::InputTokens, Unit::Tokens),
    at(&["output_tokens"], Field::OutputTokens, Unit::Tokens),
    at(&["completion_tokens"], Field::OutputTokens, Unit::Tokens),
    at(&["output"], Field::OutputTokens, Unit::Tokens),
    at(&["total_tokens"], Field::TotalTokens, Unit::Tokens),
    at(&["total"], Field::TotalTokens, Unit::Tokens),
    at(&["input_tokens_details", "cached_tokens"], Field::CachedInputTokens, Unit::Tokens),
    at(&["prompt_tokens_details", "cached_tokens"], Field::CachedInputTokens, Unit::Tokens),
    at(&["cache_read_input_tokens"], Field::CachedInputTokens, Unit::Tokens),
    at(&["input_cached_tokens"], Field::CachedInputTokens, Unit::Tokens),
    at(&["input_cache_read"], Field::CachedInputTokens, Unit::Tokens),
    at(&["cache_creation_input_tokens"], Field::CacheWriteTokens, Unit::Tokens),
    at(&["input_cache_creation"], Field::CacheWriteTokens, Unit::Tokens),
    at(&["output_tokens_details", "reasoning_tokens"], Field::ReasoningTokens, Unit::Tokens),
    at(&["completion_tokens_details", "reasoning_tokens"], Field::ReasoningTokens, Unit::Tokens),
    at(&["output_reasoning_tokens"], Field::ReasoningTokens, Unit::Tokens),
    at(&["prompt_tokens_details", "audio_tokens"], Field::AudioInputTokens, Unit::Tokens),
    at(&["completion_tokens_details", "audio_tokens"], Field::AudioOutputTokens, Unit::Tokens),
];

/// What AI SDK passes on of a provider's own answer.
const PROVIDER_METADATA: &[JsonRow] = &[
    at(&["anthropic", "cacheCreationInputTokens"], Field::CacheWriteTokens, Unit::Tokens),
    at(&["anthropic", "usage", "cache_creation_input_tokens"], Field::CacheWriteTokens, Unit::Tokens),
    at(&["bedrock", "usage", "cacheWriteInputTokens"], Field::CacheWriteTokens, Unit::Tokens),
    at(&["anthropic", "cacheReadInputTokens"], Field::CachedInputTokens, Unit::Tokens),
    at(&["anthropic", "usage", "cache_read_input_tokens"], Field::CachedInputTokens, Unit::Tokens),
    at(&["bedrock", "usage", "cacheReadInputTokens"], Field::CachedInputTokens, Unit::Tokens),
    at(&["anthropic", "usage", "cache_creation", "ephemeral_1h_input_tokens"], Field::CacheWrite1hTokens, Unit::Tokens),
    at(&["openai", "serviceTier"], Field::ServiceTier, Unit::Name),
    at(&["azure", "serviceTier"], Field::ServiceTier, Unit::Name),
    at(&["anthropic", "usage", "service_tier"], Field::ServiceTier, Unit::Name),
];

const USER_KEYS: &[&str] = &[
    "enduser.id",
    "user.id",
    "enduser.pseudo.id",
    "langfuse.user.id",
    "gen_ai.user",
    "llm.user",
    "gen_ai.request.user",
    "traceloop.association.properties.user_id",
    "traceloop.association.properties.userId",
    "ai.telemetry.metadata.userId",
    "ai.telemetry.metadata.user_id",
    "ai.telemetry.metadata.langfuseUserId",
    "ai.settings.context.userId",
    "ai.settings.context.user_id",
    "langsmith.metadata.user_id",
    "litellm.end_user.id",
    "metadata.user_api_key_end_user_id",
    "mlflow.trace.user",
    "usr.id",
    "user_id",
    "http.request.header.x_user_id",
    "http.request.header.x-user-id",
];

const TENANT_KEYS: &[&str] =
    &["tenant.id", "traceloop.association.properties.tenant_id", "ai.telemetry.metadata.tenantId"];

const AGENT_KEYS: &[&str] = &["gen_ai.agent.id"];

const SESSION_KEYS: &[&str] = &[
    "session.id",
    "langfuse.session.id",
    "traceloop.association.properties.session_id",
    "ai.telemetry.metadata.sessionId",
    "ai.telemetry.metadata.session_id",
    "ai.settings.context.sessionId",
    "ai.settings.context.session_id",
    "langsmith.metadata.session_id",
    "mlflow.trace.session",
    "ag_ui.thread_id",
];

/// Attributes of resources.
pub mod resource {
    pub const SERVICE: &str = "service.name";
    pub const NAMESPACE: &str = "service.namespace";
    /// Tried in this order.
    pub const INSTANCE: &[&str] = &["service.instance.id", "k8s.pod.name", "host.name", "container.id"];
}

/// A short mark of a key, the same for ever: what a number came from is stored with it, and the table changes.
pub fn mark(key: &str) -> u16 {
    u16::try_from(stable(key.as_bytes()) >> 48).unwrap_or_default()
}

/// The key of this field that has this mark, if the table still has it.
pub fn key_of(field: Field, wanted: u64) -> Option<&'static str> {
    let plain = SPAN_KEYS.iter().filter(|(of, _, _)| *of == field).flat_map(|(_, _, keys)| keys.iter().copied());
    let in_json = JSON_KEYS.iter().filter(|(_, rows)| rows.iter().any(|row| row.field == field)).map(|(key, _)| *key);
    plain.chain(in_json).find(|key| u64::from(mark(key)) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_tell_the_keys_of_a_field_apart() {
        for field in [Field::InputTokens, Field::OutputTokens] {
            let plain =
                SPAN_KEYS.iter().filter(|(of, _, _)| *of == field).flat_map(|(_, _, keys)| keys.iter().copied());
            for key in plain.chain(JSON_KEYS.iter().map(|(key, _)| *key)).filter(|key| !key.contains("cost")) {
                assert!(key_of(field, mark(key).into()).is_none_or(|found| found == key), "{key}");
            }
        }
    }
}
