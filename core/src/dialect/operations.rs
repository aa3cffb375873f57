//! What a span does, by the name that its dialect gives to it.

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It calls a model; our name for it.
    Model(&'static str),
    /// It stands for what is below it: an agent, a chain, a workflow, a step. Its numbers repeat those of the calls.
    Aggregate,
    /// It calls no model and sums none up: a tool, a retrieval, a prompt being written.
    Other,
    /// Nobody has listed it.
    Unlisted,
}

/// In lower case.
const OPERATIONS: &[(Work, &[&str])] = &[
    (
        Work::Model("chat"),
        &[
            "chat",
            "llm",
            "generation",
            "chat_model",
            "chat_completion",
            "chat.completion",
            "chat_completions",
            "acompletion",
            "responses",
            "aresponses",
            "response",
            "messages",
            "anthropic_messages",
            "call_llm",
            "llm_request",
            "llm_call",
            "generate",
            "agenerate",
            "converse",
            "inference",
            "ai.generatetext.dogenerate",
            "ai.streamtext.dostream",
            "ai.generateobject.dogenerate",
            "ai.streamobject.dostream",
        ],
    ),
    (Work::Model("generate_content"), &["generate_content", "agenerate_content", "generate_content_stream"]),
    (Work::Model("text_completion"), &["text_completion", "completion", "atext_completion", "text_generation"]),
    (
        Work::Model("embeddings"),
        &["embeddings", "embedding", "aembedding", "embed", "ai.embed.doembed", "ai.embedmany.doembed"],
    ),
    (
        Work::Model("image_generation"),
        &["image_generation", "aimage_generation", "image_edit", "generate_image", "ai.generateimage.dogenerate"],
    ),
    (Work::Model("speech"), &["speech", "aspeech", "text_to_speech", "ai.generatespeech.dogenerate"]),
    (Work::Model("transcription"), &["transcription", "atranscription", "speech_to_text", "ai.transcribe.dogenerate"]),
    (Work::Model("moderation"), &["moderation", "amoderation"]),
    (
        Work::Aggregate,
        &[
            "invoke_agent",
            "agent",
            "agent_step",
            "agent_run",
            "chain",
            "workflow",
            "invoke_workflow",
            "task",
            "execute_task",
            "step",
            "run",
            "crew",
            "graph",
            "framework",
            "interaction",
            "orchestrate_tools",
            "execute_event_loop_cycle",
            "plan",
            "span",
            "ai.generatetext",
            "ai.streamtext",
            "ai.generateobject",
            "ai.streamobject",
            "ai.embed",
            "ai.embedmany",
            "ai.generateimage",
        ],
    ),
    (
        Work::Other,
        &[
            "tool",
            "execute_tool",
            "ai.toolcall",
            "function",
            "retrieval",
            "retriever",
            "reranker",
            "rerank",
            "arerank",
            "guardrail",
            "evaluator",
            "prompt",
            "parser",
            "memory",
            "event",
            "create_agent",
            "fetch_response",
            "handoff",
            "search_memory",
            "update_memory",
            "create_memory_store",
        ],
    ),
];

pub fn work(operation: &str) -> Work {
    let listed = OPERATIONS.iter().find(|(_, names)| names.iter().any(|name| name.eq_ignore_ascii_case(operation)));
    listed.map_or(Work::Unlisted, |(work, _)| *work)
}

/// Whether an operation streams, by its name.
pub fn streams(operation: &str) -> bool {
    ["ai.streamtext.dostream", "ai.streamobject.dostream", "generate_content_stream"]
        .iter()
        .any(|name| name.eq_ignore_ascii_case(operation))
}

/// Our name of an operation that calls a model; an unlisted one keeps its own.
pub fn operation_name(operation: &str) -> &str {
    match work(operation) {
        Work::Model(name) => name,
        _ => operation,
    }
}
