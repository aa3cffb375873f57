//! The endpoint of a request as a template, the agent named in it, and the patterns of requests that are left out.

use crate::domain::facts::{Facts, Field};

/// Route template, else the route in the server span's name, else the path with its ids folded. Never a query.
pub(super) fn endpoint(facts: &Facts) -> Option<Box<str>> {
    if let Some(route) = facts.text(Field::HttpRoute) {
        return Some(route.into());
    }
    let name = facts.text(Field::Name).and_then(|name| name.split_once(' ')).map(|(_, route)| route.trim());
    let route =
        name.filter(|route| route.starts_with('/')).map(|route| route.split(['?', '#']).next().unwrap_or(route));
    route.or_else(|| facts.text(Field::HttpPath)).map(|path| fold_ids(path).into())
}

/// `/users/4711/files/report` → `/users/{id}/files/report`.
fn fold_ids(path: &str) -> String {
    let folded: Vec<&str> = path.split('/').map(|segment| if is_id(segment) { "{id}" } else { segment }).collect();
    folded.join("/")
}

/// Numbers, UUIDs, hashes, tokens: what would make every request an endpoint of its own.
fn is_id(segment: &str) -> bool {
    /// Words are shorter.
    const LONGEST_WORD: usize = 32;
    /// Hex this long is no word: `decade` and `facade` are shorter.
    const SHORTEST_HEX: usize = 8;
    if segment.starts_with(['{', ':', '<']) {
        return false;
    }
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    let hex = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    let is_hex = segment.len() >= SHORTEST_HEX && digits > 0 && segment.bytes().all(hex);
    let is_number = digits > 0 && digits == segment.len();
    is_number || is_hex || segment.len() > LONGEST_WORD
}

/// The value that the path has where the template says `{agent_id}`, in any framework's spelling.
pub(super) fn agent_in_path<'p>(template: &str, path: &'p str) -> Option<&'p str> {
    let names_agent = |segment: &str| {
        let name: String = segment.chars().filter(char::is_ascii_alphabetic).collect();
        segment.starts_with(['{', ':', '<']) && name.to_ascii_lowercase().starts_with("agent")
    };
    let place = template.split('/').position(names_agent)?;
    path.split('/').nth(place).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_folded_and_words_are_not() {
        for (path, folded) in [
            ("/agents/support/invoke", "/agents/support/invoke"),
            ("/users/4711/x", "/users/{id}/x"),
            ("/u/550e8400-e29b-41d4-a716-446655440000", "/u/{id}"),
            ("/facade/v1/decade2", "/facade/v1/decade2"),
            ("/s/eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "/s/{id}"),
            ("/a/{agent_id}/b", "/a/{agent_id}/b"),
            ("/", "/"),
        ] {
            assert_eq!(fold_ids(path), folded);
        }
    }

    #[test]
    fn the_agent_stands_where_the_template_names_it() {
        assert_eq!(agent_in_path("/agents/{agent_id}/invoke", "/agents/support/invoke"), Some("support"));
        assert_eq!(agent_in_path("/agents/:agentId/invoke", "/agents/a-7/invoke"), Some("a-7"));
        assert_eq!(agent_in_path("/agents/<agent>/x", "/agents//x"), None);
        assert_eq!(agent_in_path("/users/{id}", "/users/7"), None);
    }
}
