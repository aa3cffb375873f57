//! Whose price a call gets: by the host, by the provider's name, by what leads the model's name, by the model's family.

use super::*;

fn at_host<'a>(host: &'a str, provider: &'a str, model: &'a str) -> Priced<'a> {
    Priced { host: Some(host), ..call(provider, model, "") }
}

#[test]
fn a_host_that_is_known_decides_the_provider() {
    let book = PriceBook::shipped();
    let check = |host: &str, provider: &str, model: &str, expected: &str| {
        let found = priced(&book, &at_host(host, provider, model));
        assert!(found.starts_with(&format!("{expected} ")), "{provider} {model} at {host}: {found}");
        assert_eq!(book.provider_at(host), expected.split('/').next(), "{host}");
    };
    check("api.x.ai", "openai", "grok-4-0709", "x-ai/grok-4-0709");
    check("us-east-1.api.x.ai", "openai", "grok-4-0709", "x-ai/grok-4-0709");
    check("api.cerebras.ai", "openai", "gpt-oss-120b", "cerebras/gpt-oss-120b");
    check("api.cerebras.ai", "openai", "openai/gpt-oss-120b", "cerebras/gpt-oss-120b");
    check("api.groq.com", "openai", "llama-3.3-70b-versatile", "groq/llama-3.3-70b-versatile");
    check("openrouter.ai", "openai", "openai/gpt-4o", "openrouter/openai/gpt-4o");
    check("openrouter.ai", "", "openrouter/openai/gpt-4o", "openrouter/openai/gpt-4o");
    check("API.DeepSeek.com", "openai", "deepseek-chat", "deepseek/deepseek-chat");
    check("my-team.openai.azure.com", "openai", "gpt-4o", "azure/gpt-4o");
    check("my-team.openai.azure.com", "langchain", "gpt-4o", "azure/gpt-4o");
    check("generativelanguage.googleapis.com", "openai", "models/gemini-2.5-pro", "google/gemini-2.5-pro");
    check("us-east5-aiplatform.googleapis.com", "anthropic", "claude-sonnet-4-5", "google/claude-sonnet-4-5");
    check("api.mistral.ai", "openai", "mistral-large-latest", "mistral/mistral-large");
    check("api.openai.com", "openai", "gpt-4o", "openai/gpt-4o");
    check("eu.api.openai.com.", "openai", "gpt-4o", "openai/gpt-4o");
    for (host, id) in [
        ("bedrock-runtime.eu-central-1.amazonaws.com", "aws"),
        ("api.together.xyz", "together"),
        ("api.fireworks.ai", "fireworks"),
        ("api.perplexity.ai", "perplexity"),
        ("api.moonshot.cn", "moonshotai"),
    ] {
        assert_eq!(book.provider_at(host), Some(id));
    }
    for host in ["localhost", "127.0.0.1", "llm.example", "s3.eu-central-1.amazonaws.com", "api.x.ai.example", ""] {
        assert_eq!(book.provider_at(host), None, "{host}");
    }
    // The host's own list counts, and nobody else's.
    assert_eq!(priced(&book, &at_host("api.groq.com", "openai", "gpt-4o")), "unknown_model");
}

#[test]
fn at_a_host_that_nobody_knows_no_price_of_an_imitated_provider_is_taken() {
    let book = PriceBook::shipped();
    let check = |host: &str, provider: &str, model: &str, expected: &str| {
        let found = priced(&book, &at_host(host, provider, model));
        assert!(found.starts_with(expected), "{provider} {model} at {host}: {found}");
    };
    for host in ["llm.example", "10.0.0.7", "vllm", "api.openai.com.example"] {
        check(host, "openai", "gpt-4o", "unknown_host");
        check(host, "openai", "none-such", "unknown_host");
        check(host, "anthropic", "claude-sonnet-4-5", "unknown_host");
        check(host, "", "gpt-4o", "unknown_host");
        check(host, "langchain", "openai/gpt-4o", "unknown_host");
        check(host, "mistral", "mistral-large-latest", "mistral/mistral-large ");
        check(host, "azure", "gpt-4o", "azure/gpt-4o ");
        check(host, "", "nobody-knows-it", "unknown_provider");
    }
    for host in ["localhost", "127.0.0.1", "127.3.2.1", "::1", "", " "] {
        check(host, "openai", "gpt-4o", "openai/gpt-4o ");
    }
}

#[test]
fn an_override_may_name_the_host_or_the_model() {
    let own = r#"{"providers":[
        {"id":"openai","hosts":["Gateway.corp"],"models":[{"id":"tuned","prices":[{"input":7}]}]},
        {"id":"house","hosts":["*.llm.corp","api.groq.com"],"models":[{"id":"gpt-4o","prices":[{"input":8}]}]}]}"#;
    let book = PriceBook::shipped().with_override(own, "own.json").unwrap();
    let check = |host: &str, model: &str, expected: &str| {
        assert_eq!(priced(&book, &at_host(host, "openai", model)), expected, "{model} at {host}");
    };
    check("gateway.corp", "gpt-4o", "openai/gpt-4o 2500000000 genai-prices 0.2.3+#");
    check("a.llm.corp", "gpt-4o", "house/gpt-4o 8 override:own.json+#");
    check("a.llm.corp", "gpt-4.1", "unknown_model");
    check("api.groq.com", "gpt-4o", "house/gpt-4o 8 override:own.json+#");
    check("elsewhere.corp", "tuned", "openai/tuned 7 override:own.json+#");
    check("elsewhere.corp", "gpt-4o", "unknown_host");
    let asked = Priced { model_asked: Some("tuned"), ..at_host("elsewhere.corp", "openai", "gpt-4o") };
    assert_eq!(priced(&book, &asked), "openai/tuned 7 override:own.json+#");
}

#[test]
fn where_no_provider_is_named_the_models_name_tells_it() {
    let book = PriceBook::shipped();
    let check = |model: &str, expected: &str| {
        for provider in ["strands-agents", "langchain", "litellm", "my-openai-proxy", "", "."] {
            let found = priced(&book, &call(provider, model, ""));
            assert!(found.starts_with(&format!("{expected} ")), "{provider} {model}: {found}");
        }
    };
    check("gpt-4o", "openai/gpt-4o");
    check("openai/gpt-4.1", "openai/gpt-4.1");
    check("openai:gpt-4.1", "openai/gpt-4.1");
    check("anthropic/claude-sonnet-4-5", "anthropic/claude-sonnet-4-5");
    check(
        "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
    );
    check("azure/gpt-4o", "azure/gpt-4o");
    check("vertex_ai/gemini-2.5-pro", "google/gemini-2.5-pro");
    check("vertex_ai/claude-sonnet-4-5@20250929", "google/claude-sonnet-4-5");
    check("gemini/gemini-2.5-pro", "google/gemini-2.5-pro");
    check("openrouter/openai/gpt-4o", "openrouter/openai/gpt-4o");
    check("models/gemini-2.5-pro", "google/gemini-2.5-pro");
    check("models/gpt-4o", "openai/gpt-4o");
    check("publishers/google/models/gemini-2.5-pro", "google/gemini-2.5-pro");
    check("publishers/anthropic/models/claude-sonnet-4-5", "google/claude-sonnet-4-5");
    check("accounts/fireworks/models/deepseek-v3p2", "fireworks/deepseek-v3p2");
    check("fireworks_ai/accounts/fireworks/models/deepseek-v3p2", "fireworks/deepseek-v3p2");
    check("groq/llama-3.3-70b-versatile", "groq/llama-3.3-70b-versatile");
    check("xai/grok-4-0709", "x-ai/grok-4-0709");
    // A lead in either name tells it for both.
    let mixed = Priced { model_asked: Some("azure/my-deployment"), ..call("litellm", "gpt-4o-2024-08-06", "") };
    assert_eq!(priced(&book, &mixed), "azure/gpt-4o 2500000000 genai-prices 0.2.3+#");
    for (model, expected) in
        [("groq/gpt-4o", "unknown_model"), ("none-such", "unknown_provider"), ("a/b", "unknown_provider")]
    {
        assert_eq!(priced(&book, &call("langchain", model, "")), expected, "{model}");
    }
}

#[test]
fn what_leads_a_name_is_left_out_where_it_tells_no_other_seller() {
    let book = PriceBook::shipped();
    let check = |provider: &str, model: &str, expected: &str| {
        let found = priced(&book, &call(provider, model, ""));
        assert_eq!(found.split(' ').next(), Some(expected), "{provider} {model}");
    };
    check("openai", "openai/gpt-4.1", "openai/gpt-4.1");
    check("gcp.gemini", "models/gemini-2.5-pro", "google/gemini-2.5-pro");
    check("gcp.vertex_ai", "publishers/google/models/gemini-2.5-pro", "google/gemini-2.5-pro");
    check("gcp.vertex_ai", "projects/p/locations/l/publishers/google/models/gemini-2.5-pro", "google/gemini-2.5-pro");
    check("gcp.vertex_ai", "anthropic/claude-sonnet-4-5", "google/claude-sonnet-4-5");
    check("azure", "openai/gpt-4o", "azure/gpt-4o");
    check("cerebras", "openai/gpt-oss-120b", "cerebras/gpt-oss-120b");
    check("cerebras", "cerebras/gpt-oss-120b", "cerebras/gpt-oss-120b");
    let profile = "arn:aws:bedrock:us-east-1:1:inference-profile/global.anthropic.claude-sonnet-4-5-20250929-v1:0";
    check("aws.bedrock", profile, "aws/global.anthropic.claude-sonnet-4-5-20250929-v1:0");
    // Another seller's model, and one that the provider lacks, are priced by nobody.
    check("openai", "azure/gpt-4o", "unknown_model");
    check("openai", "anthropic/claude-sonnet-4-5", "unknown_model");
    check("openai", "claude-sonnet-4-5", "unknown_model");
    check("openai", "openai/", "unknown_model");
}

#[test]
fn a_provider_that_the_list_lacks_gets_nobody_elses_price() {
    let book = PriceBook::shipped();
    for name in ["ollama", "Ollama", "vllm", "aws.sagemaker", "ibm.watsonx.ai", "gcp.x", "huggingface.chat"] {
        for model in ["gpt-4o", "mistral-large", "openai/gpt-4o"] {
            assert_eq!(priced(&book, &call(name, model, "")), "unknown_provider", "{name} {model}");
        }
    }
    assert_eq!(priced(&book, &call("langchain", "ollama/mistral", "")), "unknown_provider");
}

#[test]
fn the_case_of_a_tier_does_not_count() {
    let book = PriceBook::shipped();
    let cost = |tier: &str| {
        let call = Priced { service_tier: Some(tier), ..call("openai", "gpt-5", "") };
        book.price(&call).unwrap().cost
    };
    assert_ne!(cost("priority"), cost("standard"));
    assert_eq!(
        [cost("Priority"), cost(" PRIORITY "), cost("no-such-tier")],
        [cost("priority"), cost("priority"), cost("standard")]
    );
}

#[test]
fn the_version_tells_the_content() {
    let versions = [r#"{"providers":[]}"#, "1", "2", "1"].map(|price| {
        let own = format!(r#"{{"providers":[{{"id":"a","models":[{{"id":"m","prices":[{{"input":{price}}}]}}]}}]}}"#);
        let book = PriceBook::shipped().with_override(if price.len() > 1 { price } else { &own }, "own.json").unwrap();
        [("a", "m"), ("openai", "gpt-4o")].map(|(provider, model)| {
            book.price(&call(provider, model, "")).ok().map(|charge| charge.price_version.to_string())
        })
    });
    let [[none, first], [one, shipped], [two, _], [again, _]] = versions;
    assert_eq!((none, &first), (None, &shipped));
    assert!(one != two && one == again, "{one:?} {two:?} {again:?}");
}
