//! What a user of each instrumentation should know: what it does not tell, and how it is set so that it does.

/// Words of a scope's name, the library, and what to set.
pub const ADVICE: &[(&str, &str, &str)] = &[
    (
        "opentelemetry.instrumentation.openai_v2",
        "OpenTelemetry openai-v2",
        "Tells neither cached nor reasoning tokens, and no call of the Responses API: move to `opentelemetry-instrumentation-genai-openai`. \
         For streams set `stream_options={\"include_usage\": True}`.",
    ),
    ("opentelemetry.util.genai.handler", "OpenTelemetry openai-v2, latest names", "As openai-v2."),
    (
        "opentelemetry.instrumentation.genai",
        "OpenTelemetry genai-openai, genai-anthropic",
        "For streams of OpenAI set `stream_options={\"include_usage\": True}`.",
    ),
    (
        "com.anthropic.sdk",
        "Anthropic SDK",
        "On by default; beside another instrumentation it is the same call, and counted once.",
    ),
    (
        "opentelemetry.instrumentation.openai.v1",
        "OpenLLMetry (openai)",
        "For streams set `stream_options={\"include_usage\": True}`. Another host is told by `gen_ai.openai.api_base`.",
    ),
    (
        "opentelemetry.instrumentation.anthropic",
        "OpenLLMetry (anthropic)",
        "Its streams tell one output token too many.",
    ),
    ("opentelemetry.instrumentation.langchain", "OpenLLMetry (langchain)", "Tells no reasoning tokens."),
    ("traceloop", "Traceloop SDK", "Name the user by `Traceloop.set_association_properties({\"user_id\": …})`."),
    (
        "openinference",
        "OpenInference (Python)",
        "Name the user by `using_attributes(user_id=…)`. Long chats reach the limit of 128 attributes: set `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=1000`.",
    ),
    (
        "@arizeai/openinference",
        "OpenInference (JavaScript)",
        "Embeddings tell no tokens. Long chats reach the limit of 128 attributes: set `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=1000`.",
    ),
    (
        "openlit",
        "openlit",
        "Estimates the tokens of streams that have no usage: set `stream_options={\"include_usage\": True}`. Streams of Anthropic tell no cache.",
    ),
    ("pydantic-ai", "Pydantic AI", "Nothing to set."),
    (
        "ai",
        "AI SDK 4 to 6",
        "Set `experimental_telemetry: { isEnabled: true, metadata: { userId } }`. Cache and reasoning of version 4 are not told.",
    ),
    (
        "langfuse",
        "Langfuse SDK",
        "For streams set `stream_options={\"include_usage\": True}`. Name the user by `propagate_attributes(user_id=…)`.",
    ),
    (
        "logfire",
        "Logfire",
        "Session ids are scrubbed: allow `session.id` in `ScrubbingOptions`. For streams set `include_usage`.",
    ),
    (
        "botocore",
        "botocore (Bedrock)",
        "Counts the input without the cache, which is added. Only Converse, ConverseStream and some InvokeModel bodies are told.",
    ),
    (
        "litellm",
        "LiteLLM",
        "In its default mode it writes onto the server's span, which has usually ended: most calls are of unknown usage. Set \
         `USE_OTEL_LITELLM_REQUEST_SPAN=true`.",
    ),
    (
        "strands",
        "Strands Agents",
        "Tells its own name as the provider; the model's name says who it is. No reasoning tokens.",
    ),
    (
        "com.anthropic.claude_code",
        "Claude Code, Claude Agent SDK",
        "Its `user.id` is an installation: name the user on the bot's own span.",
    ),
    ("org.springframework.boot", "Spring Boot, Spring AI", "Streams without usage say 0: set `streamUsage(true)`."),
];

/// The advice for a scope: the longest words that its name has.
pub fn advice(scope: &str) -> Option<(&'static str, &'static str)> {
    let fits = |words: &str| if words == "ai" { scope == "ai" } else { scope.contains(words) };
    let longest = ADVICE.iter().filter(|(words, _, _)| fits(words)).max_by_key(|(words, _, _)| words.len());
    longest.map(|(_, library, text)| (*library, *text))
}
