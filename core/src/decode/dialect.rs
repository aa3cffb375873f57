//! Which attribute keys mean which field: one table for every dialect, data and not code.
//!
//! A dialect is added by adding rows and a capture. The keys of a field stand in the order in which they are tried, new before
//! deprecated before vendor; the first one present on a span is used and the others are never added to it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::domain::facts::Field;

/// How the value of an attribute is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Text that names something: cleaned of control characters, cut where over-long.
    Name,
    /// Path of a URL or of a request target, without scheme, host, query and fragment.
    Path,
    /// Number of tokens.
    Tokens,
    /// HTTP status code.
    Status,
    /// `true`, or an operation that streams.
    Flag,
    Seconds,
    Milliseconds,
    /// US dollars; zero says that the instrumentation had no price.
    Dollars,
    /// Text of which only a hash is kept.
    Hash,
    /// Name of an operation; kept only if it calls a model.
    Operation,
    /// Error class: a closed alphabet, anything else is `_OTHER`.
    ErrorType,
}

#[cfg(test)]
impl Unit {
    pub(super) const ALL: [Self; 11] = [
        Self::Name,
        Self::Path,
        Self::Tokens,
        Self::Status,
        Self::Flag,
        Self::Seconds,
        Self::Milliseconds,
        Self::Dollars,
        Self::Hash,
        Self::Operation,
        Self::ErrorType,
    ];
}

type Row = (Field, Unit, &'static [&'static str]);

/// Attributes of spans.
const SPAN_KEYS: &[Row] = &[
    (Field::HttpMethod, Unit::Name, &["http.request.method", "http.method"]),
    (Field::HttpRoute, Unit::Name, &["http.route"]),
    (Field::HttpPath, Unit::Path, &["url.path", "http.target", "http.url"]),
    (Field::HttpStatus, Unit::Status, &["http.response.status_code", "http.status_code"]),
    (Field::User, Unit::Name, USER_KEYS),
    (Field::Tenant, Unit::Name, TENANT_KEYS),
    (Field::Agent, Unit::Name, AGENT_KEYS),
    (Field::Session, Unit::Name, SESSION_KEYS),
    (Field::Conversation, Unit::Name, &["gen_ai.conversation.id"]),
    (
        Field::ModelOperation,
        Unit::Operation,
        &["gen_ai.operation.name", "llm.request.type", "openinference.span.kind", "ai.operationId"],
    ),
    (
        Field::Provider,
        Unit::Name,
        &["gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "ai.model.provider"],
    ),
    (Field::RequestModel, Unit::Name, &["gen_ai.request.model", "llm.request.model_name", "ai.model.id", "model_name"]),
    (Field::ResponseModel, Unit::Name, &["gen_ai.response.model", "ai.response.model", "llm.model_name"]),
    (
        Field::ServiceTier,
        Unit::Name,
        &["openai.response.service_tier", "gen_ai.openai.response.service_tier", "anthropic.response.service_tier"],
    ),
    (Field::ResponseId, Unit::Hash, &["gen_ai.response.id", "ai.response.id"]),
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
        ],
    ),
    (
        Field::CacheWriteTokens,
        Unit::Tokens,
        &[
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
            "gen_ai.usage.cache_creation_input_tokens",
            "llm.token_count.prompt_details.cache_write",
            "ai.usage.inputTokenDetails.cacheWriteTokens",
            "gen_ai.usage.details.cache_write_tokens",
            "gen_ai.usage.details.cache_creation_input_tokens",
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
    (Field::ReportedCost, Unit::Dollars, &["operation.cost", "gen_ai.usage.cost"]),
    (
        Field::Streaming,
        Unit::Flag,
        &["gen_ai.request.stream", "gen_ai.is_streaming", "llm.is_streaming", "ai.operationId"],
    ),
    (
        Field::TimeToFirstToken,
        Unit::Seconds,
        &[
            "gen_ai.response.time_to_first_chunk",
            "gen_ai.client.operation.time_to_first_chunk",
            "gen_ai.server.time_to_first_token",
        ],
    ),
    (Field::TimeToFirstToken, Unit::Milliseconds, &["ai.response.msToFirstChunk"]),
    (Field::ErrorType, Unit::ErrorType, &["error.type", EXCEPTION_TYPE]),
];

/// The one attribute read from span events.
const EXCEPTION_TYPE: &str = "exception.type";

const USER_KEYS: &[&str] = &[
    "enduser.id",
    "user.id",
    "enduser.pseudo.id",
    "langfuse.user.id",
    "gen_ai.user",
    "llm.user",
    "gen_ai.request.user",
    "traceloop.association.properties.user_id",
    "ai.telemetry.metadata.userId",
    "ai.telemetry.metadata.user_id",
    "ai.settings.context.userId",
    "ai.settings.context.user_id",
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
    "ag_ui.thread_id",
];

/// Operations that call a model, by the names the dialects give them in lower case. Whatever is not here (agents, chains,
/// tools, workflows) calls no model itself.
const MODEL_OPERATIONS: &[(&str, &str)] = &[
    ("chat", "chat"),
    ("generate_content", "generate_content"),
    ("text_completion", "text_completion"),
    ("completion", "text_completion"),
    ("embeddings", "embeddings"),
    ("embedding", "embeddings"),
    ("llm", "chat"),
    ("ai.generatetext.dogenerate", "chat"),
    ("ai.streamtext.dostream", "chat"),
    ("ai.generateobject.dogenerate", "chat"),
    ("ai.streamobject.dostream", "chat"),
    ("ai.embed.doembed", "embeddings"),
    ("ai.embedmany.doembed", "embeddings"),
];

/// Operations that stream by their name.
const STREAMING_OPERATIONS: &[&str] = &["ai.streamtext.dostream", "ai.streamobject.dostream"];

/// Scopes that give the input tokens without the cached part; all others include it.
const INPUT_WITHOUT_CACHE: &[&str] = &["openlit.instrumentation.anthropic"];

/// Attributes of resources.
pub(super) mod resource {
    pub(crate) const SERVICE: &str = "service.name";
    pub(crate) const NAMESPACE: &str = "service.namespace";
    /// Tried in this order.
    pub(crate) const INSTANCE: &[&str] = &["service.instance.id", "k8s.pod.name", "host.name", "container.id"];
}

/// What an attribute key means: one of its fields, its place in the field's order, and how to read the value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meaning {
    pub field: Field,
    pub rank: u8,
    pub unit: Unit,
}

/// The table made ready for looking up, with the operator's own keys in front.
pub(super) struct Dialect {
    span_keys: HashMap<Box<[u8]>, Box<[Meaning]>, BuildHasherDefault<KeyHasher>>,
    exception_type: Meaning,
}

impl Dialect {
    /// The operator's keys for user, tenant and agent are tried before the built-in ones.
    pub(super) fn new(user_keys: &[String], tenant_keys: &[String], agent_keys: &[String]) -> Self {
        let mut keys: HashMap<Box<[u8]>, Vec<Meaning>> = HashMap::new();
        let mut next_rank = [0u8; Field::COUNT];
        let mut add = |field: Field, unit: Unit, key: &str| {
            let rank = next_rank[field as usize];
            next_rank[field as usize] = rank.saturating_add(1);
            keys.entry(key.as_bytes().into()).or_default().push(Meaning { field, rank, unit });
        };
        for (field, own) in [(Field::User, user_keys), (Field::Tenant, tenant_keys), (Field::Agent, agent_keys)] {
            own.iter().for_each(|key| add(field, Unit::Name, key));
        }
        for (field, unit, keys) in SPAN_KEYS {
            keys.iter().for_each(|key| add(*field, *unit, key));
        }
        let exception_type = Meaning { field: Field::ErrorType, rank: u8::MAX, unit: Unit::ErrorType };
        let span_keys = keys.into_iter().map(|(key, meanings)| (key, meanings.into())).collect();
        Self { span_keys, exception_type }
    }

    /// Nothing for keys that are not on the list: their values are never looked at.
    #[inline]
    pub(super) fn span_key(&self, key: &[u8]) -> &[Meaning] {
        self.span_keys.get(key).map_or(&[], |meanings| meanings)
    }

    pub(super) fn event_key(&self, key: &[u8]) -> &[Meaning] {
        if key == EXCEPTION_TYPE.as_bytes() { std::slice::from_ref(&self.exception_type) } else { &[] }
    }
}

/// Hashes a key by its length, its middle and its end: keys of one vendor begin alike. That two of them may meet costs a
/// comparison and nothing else, for only our own table is ever inserted.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    #[inline]
    fn write(&mut self, key: &[u8]) {
        let word = |end: usize| end.checked_sub(8).and_then(|start| key.get(start..end)?.first_chunk().copied());
        let word = |end| word(end).map_or(0, u64::from_le_bytes);
        let (end, middle) = (word(key.len()), word(key.len() / 2 + 4));
        let mixed = (end ^ middle.rotate_left(29)).wrapping_add(key.len() as u64);
        self.0 = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

/// Our name of the operation, if it is one that calls a model.
pub(super) fn model_operation(name: &[u8]) -> Option<&'static str> {
    MODEL_OPERATIONS.iter().find(|(theirs, _)| theirs.as_bytes().eq_ignore_ascii_case(name)).map(|(_, ours)| *ours)
}

pub(super) fn input_lacks_cache(scope: &str) -> bool {
    INPUT_WITHOUT_CACHE.contains(&scope)
}

pub(super) fn streams_by_name(operation: &str) -> bool {
    STREAMING_OPERATIONS.iter().any(|name| name.eq_ignore_ascii_case(operation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stands_twice_in_one_field() {
        let dialect = Dialect::new(&[], &[], &[]);
        for (key, meanings) in &dialect.span_keys {
            let mut fields: Vec<Field> = meanings.iter().map(|meaning| meaning.field).collect();
            fields.sort_unstable();
            fields.dedup();
            assert_eq!(fields.len(), meanings.len(), "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn the_operators_keys_are_tried_first() {
        let dialect = Dialect::new(&["app.customer".into()], &[], &[]);
        let rank = |key: &str| dialect.span_key(key.as_bytes())[0].rank;
        assert!(rank("app.customer") < rank("enduser.id"));
        assert!(rank("enduser.id") < rank("user.id"));
    }

    #[test]
    fn content_is_on_no_list() {
        let dialect = Dialect::new(&[], &[], &[]);
        for key in [
            "gen_ai.input.messages",
            "input.value",
            "ai.prompt",
            "url.query",
            "exception.message",
            "llm.invocation_parameters",
        ] {
            assert!(dialect.span_key(key.as_bytes()).is_empty(), "{key}");
        }
    }
}
