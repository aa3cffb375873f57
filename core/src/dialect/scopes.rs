//! What is known of an instrumentation as a whole, by the name of its scope.

/// Whether the input tokens that a span tells include those that were read from a cache or written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    Included,
    Excluded,
    /// Numbers are passed on as the provider counts them, without the tokens that were written to a cache. Where the span does not
    /// tell these, its input is not known.
    ExcludedAndWritesApart,
}

/// Scopes that give the input without the cache whatever the provider; all others include it.
const INPUT_WITHOUT_CACHE: &[&str] = &[
    "openlit.instrumentation.anthropic",
    "opentelemetry.instrumentation.botocore.bedrock-runtime",
    "@traceloop/instrumentation-anthropic",
    "com.anthropic.claude_code.tracing",
];

/// Scopes that do so for models of Anthropic.
const INPUT_WITHOUT_CACHE_OF_ANTHROPIC: &[&str] = &["openinference.instrumentation.agno"];

/// The scope of AI SDK up to version 6, and the providers that count without the cache.
const AI_SDK: &str = "ai";
const COUNT_WITHOUT_CACHE: &[&str] = &["anthropic", "bedrock"];

/// `details` says that the span tells the parts of its input, as AI SDK does from version 6 on.
pub fn cache_habit(scope: &str, provider: &str, model: &str, details: bool) -> Cache {
    let of_anthropic = || provider.contains("anthropic") || model.contains("claude");
    if INPUT_WITHOUT_CACHE.contains(&scope) || INPUT_WITHOUT_CACHE_OF_ANTHROPIC.contains(&scope) && of_anthropic() {
        Cache::Excluded
    } else if scope == AI_SDK && !details && COUNT_WITHOUT_CACHE.iter().any(|name| provider.contains(name)) {
        Cache::ExcludedAndWritesApart
    } else {
        Cache::Included
    }
}

/// Parts of the names of scopes, the nearest to the wire first: provider's own SDKs, then instrumentations of a client library.
/// Whatever is not here is a framework or unknown.
const NEAR_THE_WIRE: &[&[&str]] = &[
    &["com.anthropic.sdk", "botocore"],
    &[
        "instrumentation.openai",
        "instrumentation.anthropic",
        "instrumentation.genai",
        "instrumentation.google_gen",
        "instrumentation.mistral",
        "instrumentation.groq",
        "instrumentation.cohere",
        "instrumentation.bedrock",
        "instrumentation.vertexai",
        "instrumentation-openai",
        "instrumentation-anthropic",
        "opentelemetry.util.genai",
        "logfire.openai",
        "logfire.anthropic",
    ],
];

/// Zero is the nearest.
pub fn distance_from_wire(scope: &str) -> usize {
    // Agents run on top of a client of the same vendor.
    let framework = scope.contains("agents");
    let near = |names: &&[&str]| !framework && names.iter().any(|name| scope.contains(name));
    NEAR_THE_WIRE.iter().position(near).unwrap_or(NEAR_THE_WIRE.len())
}

/// Scopes whose users are the installations of a program. Such a name counts only where no other is told.
pub fn names_installations(scope: &str) -> bool {
    scope.starts_with("com.anthropic.claude_code")
}

/// Scopes that write the model that was asked where the one that answered belongs, if no answer came.
pub fn repeats_asked_model(scope: &str) -> bool {
    ["openinference", "langfuse", "logfire"].iter().any(|name| scope.contains(name))
}
