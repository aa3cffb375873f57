//! The endpoint of a request as a template, the agent named in it, and the patterns of requests that are left out.

use crate::domain::facts::{Facts, Field};

/// What all requests are that no route of the bot took: scanners try thousands of paths, and none is an endpoint.
const UNMATCHED: &str = "unmatched";

/// Route template, else the route in the server span's name, else the path with its ids folded. Never a query. Where the
/// answer was that there is no such route, or not with this method, it is `UNMATCHED`.
pub(super) fn endpoint(facts: &Facts) -> Option<Box<str>> {
    if let Some(route) = facts.text(Field::HttpRoute) {
        return Some(route.into());
    }
    let path = facts.text(Field::HttpPath);
    let name = facts.text(Field::Name).and_then(|name| name.split_once(' ')).map(|(_, route)| route.trim());
    let route =
        name.filter(|route| route.starts_with('/')).map(|route| route.split(['?', '#']).next().unwrap_or(route));
    if matches!(facts.number(Field::HttpStatus), Some(404 | 405)) && !route.is_some_and(is_template) {
        // Some instrumentations put the path that was asked for into the name: only a template is surely a route.
        return Some(UNMATCHED.into());
    }
    route.or(path).map(|path| fold_ids(path).into())
}

/// Whether a segment of it is a parameter.
fn is_template(route: &str) -> bool {
    route.split('/').any(|segment| parameter(segment).is_some())
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

/// The value that the path has where the template says `{agent_id}`, in any framework's spelling; a parameter that is
/// just `id` is the agent's behind a segment `agents`. Django's templates have no leading slash.
pub(super) fn agent_in_path<'p>(template: &str, path: &'p str) -> Option<&'p str> {
    let segments: Vec<&str> = template.trim_start_matches(['/', '^']).split('/').collect();
    let names_agent = |(place, segment): (usize, &&str)| {
        let letters = |name: &str| name.chars().filter(char::is_ascii_alphabetic).collect::<String>();
        let name = parameter(segment).map(letters)?.to_ascii_lowercase();
        let before = place.checked_sub(1).map(|before| segments[before].to_ascii_lowercase());
        let is_agents = matches!(before.as_deref(), Some("agent" | "agents"));
        (name.starts_with("agent") || (is_agents && name == "id")).then_some(place)
    };
    let place = segments.iter().enumerate().find_map(names_agent)?;
    path.strip_prefix('/').unwrap_or(path).split('/').nth(place).filter(|value| !value.is_empty())
}

/// The name of the parameter that a segment is: `{id}`, `{id:path}`, `:id`, `:id(\\d+)`, `<id>`, `<str:id>`, `(?P<id>…)`.
fn parameter(segment: &str) -> Option<&str> {
    let cut = |name: &'_ str| name.find(['}', '>', ':', '(', '?', '*', '+']).unwrap_or(name.len());
    let name = if let Some(name) = segment.strip_prefix(['{', ':']) {
        name
    } else if let Some(name) = segment.strip_prefix("(?P<") {
        name
    } else {
        // The type stands before the name.
        let name = segment.strip_prefix('<')?;
        name.rsplit_once(':').map_or(name, |(_, name)| name)
    };
    Some(&name[..cut(name)]).filter(|name| !name.is_empty())
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

    #[test]
    fn the_agent_is_found_in_the_routes_of_every_framework() {
        for template in [
            "agents/<str:agent_id>/invoke",
            "^agents/(?P<agent_id>\\w+)/invoke$",
            "/agents/<agent>/invoke",
            "/agents/{agent_id:path}/invoke",
            "/agents/:agentId(\\w+)/invoke",
            "/agents/:id/invoke",
            "/agent/{id}/invoke",
            "agents/<uuid:id>/invoke",
        ] {
            assert_eq!(agent_in_path(template, "/agents/support/invoke"), Some("support"), "{template}");
        }
        assert_eq!(agent_in_path("/v1/agents/:id/runs/:id", "/v1/agents/a7/runs/9"), Some("a7"));
        for template in ["/chats/:id/invoke", "/agents/:name", "/agents/support/:id", "/agents/agent_id"] {
            assert_eq!(agent_in_path(template, "/agents/support/invoke"), None, "{template}");
        }
    }
}
