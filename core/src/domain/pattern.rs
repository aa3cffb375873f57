//! Patterns that operators write: `*` stands for any characters, everything else for itself.

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Box<[Box<str>]>);

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self(text.split('*').map(Into::into).collect())
    }

    pub fn matches(&self, text: &str) -> bool {
        let Some((first, others)) = self.0.split_first() else { return false };
        let Some(mut rest) = text.strip_prefix(&**first) else { return false };
        let Some((last, between)) = others.split_last() else { return rest.is_empty() };
        for part in between {
            let Some(place) = rest.find(&**part) else { return false };
            rest = &rest[place + part.len()..];
        }
        rest.ends_with(&**last)
    }
}

/// As it was written.
impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("*"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        let matches = |pattern, text| Pattern::new(pattern).matches(text);
        assert!(matches("GET /health*", "GET /healthz"));
        assert!(!matches("GET /health*", "POST /healthz"));
        assert!(matches("GET /metrics", "GET /metrics"));
        assert!(!matches("GET /metrics", "GET /metrics/x"));
        assert!(matches("* /static/*.js", "GET /static/a/b.js"));
        assert!(!matches("* /static/*.js", "GET /static/a.css"));
        assert!(!matches("ab*ba", "aba"));
        assert!(matches("", "") && !matches("", "x") && matches("*", ""));
    }
}
