//! Names that are not what they seem to be.

/// Whether a text is only a word for "no value".
pub fn is_absent(name: &str) -> bool {
    const ABSENT: &[&str] = &["none", "unknown", "null", "undefined", "[object object]", "n/a"];
    name.trim().is_empty()
        || ABSENT.iter().any(|absent| absent.eq_ignore_ascii_case(name))
        || name.starts_with("[Scrubbed due to")
}

/// Frameworks that write their own name where the provider belongs.
const FRAMEWORKS: &[&str] = &[
    "strands-agents",
    "langchain",
    "langgraph",
    "llamaindex",
    "llama_index",
    "crewai",
    "autogen",
    "haystack",
    "spring_ai",
    "semantic_kernel",
    "pydantic-ai",
    "pydantic_ai",
    "litellm",
    "smolagents",
    "agno",
    "dspy",
    "openai_agents",
    "mlflow",
    "langfuse",
    "traceloop",
    "vercel",
];

pub fn is_framework(provider: &str) -> bool {
    FRAMEWORKS.iter().any(|name| name.eq_ignore_ascii_case(provider))
}

/// A provider as it is shown: in lower case, cut at its first dot unless that belongs to its name.
pub fn provider_name(name: &str) -> String {
    const DOTTED: &[&str] = &["aws.", "az.", "azure.", "gcp.", "ibm."];
    let lower = name.to_ascii_lowercase();
    let whole = DOTTED.iter().any(|start| lower.starts_with(start));
    match lower.split_once('.') {
        Some((start, _)) if !whole && !start.is_empty() => start.to_owned(),
        _ => lower,
    }
}

/// Spans that say they call a model, and only prepare it.
pub fn is_no_call_by_name(name: &str) -> bool {
    name.ends_with("._prepare_chat_with_tools")
}

/// Spans that call a model and say so by nothing but their name.
pub fn is_call_by_name(scope: &str, name: &[u8]) -> bool {
    scope == "litellm" && name == b"raw_gen_ai_request"
}
