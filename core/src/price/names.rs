//! What stands in front of a model in its name: a provider, or the path of an API. It never looks at prices.

/// A model's name without what led it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Led<'n> {
    /// What stood in front of it, where that may be the name of a provider.
    pub lead: Option<&'n str>,
    pub model: &'n str,
}

/// None if nothing leads the name. `a/b/c` is `b/c`, led by `a`.
pub(super) fn led(name: &str) -> Option<Led<'_>> {
    resource(name).or_else(|| {
        let (lead, model) = name.split_once(['/', ':'])?;
        Some(Led { lead: Some(lead), model })
    })
}

/// A name as an API writes it: of Gemini, of Vertex AI, whoever made the model, or of Bedrock.
fn resource(name: &str) -> Option<Led<'_>> {
    if let Some(model) = name.strip_prefix("models/") {
        return Some(Led { lead: None, model });
    }
    if let Some((before, after)) = name.split_once("publishers/")
        && (before.is_empty() || before.starts_with("projects/"))
        && let Some((_, model)) = after.split_once("/models/")
    {
        return Some(Led { lead: Some("vertex_ai"), model });
    }
    let (_, model) = name.strip_prefix("arn:aws")?.split_once('/')?;
    Some(Led { lead: Some("bedrock"), model })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_a_name_is_told_apart() {
        let check = |name: &str, lead: Option<&str>, model: &str| {
            assert_eq!(led(name), Some(Led { lead, model }), "{name}");
        };
        check("openai/gpt-4.1", Some("openai"), "gpt-4.1");
        check("openrouter/openai/gpt-4o", Some("openrouter"), "openai/gpt-4o");
        check("openai:gpt-4o", Some("openai"), "gpt-4o");
        check("models/gemini-2.5-pro", None, "gemini-2.5-pro");
        check("publishers/anthropic/models/claude-sonnet-4-5", Some("vertex_ai"), "claude-sonnet-4-5");
        check("projects/p/locations/l/publishers/google/models/gemini-2.5-pro", Some("vertex_ai"), "gemini-2.5-pro");
        check("arn:aws:bedrock:us-east-1::foundation-model/m", Some("bedrock"), "m");
        check("arn:aws-us-gov:bedrock:x:1:inference-profile/us.m", Some("bedrock"), "us.m");
        assert_eq!(led("gpt-4o"), None);
    }
}
