//! What is wrong with a configuration, said without its values: any of them may be a password, put into the wrong place
//! or under a misspelt key. What is told is the line, the keys, and what would be right there.

use toml::{Table, Value};

/// Stands for what is not shown.
const HIDDEN: &str = "…";
/// What of a value is shorter may be shown: it stands in any message.
const SHORTEST: usize = 3;

/// Of a text that is no TOML, or not of the right form. `table`: what the text holds, where it is TOML.
pub(super) fn in_text(error: &toml::de::Error, text: &str, table: &Table) -> String {
    let place = error.span().and_then(|span| text.get(..span.start)).map(|before| {
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("line {line}, column {column}: ")
    });
    place.unwrap_or_default() + &in_table(error, table)
}

/// Of values that have no lines.
pub(super) fn in_table(error: &toml::de::Error, table: &Table) -> String {
    let keys = keys(error);
    let mut values = Vec::new();
    texts(&Value::Table(table.clone()), &keys, &mut values);
    let message = without_values(error.message(), &values);
    if keys.is_empty() {
        return message;
    }
    format!("{message} (in `{}`)", keys.iter().map(|key| shown(key)).collect::<Vec<_>>().join("."))
}

/// The keys that lead to the fault. The library tells them only as the last line of its own text.
fn keys(error: &toml::de::Error) -> Vec<String> {
    let mut error = error.clone();
    error.set_input(None);
    let text = error.to_string();
    let rest = text.get(error.message().len()..).unwrap_or_default().trim();
    let keys = rest.strip_prefix("in `").and_then(|keys| keys.strip_suffix('`'));
    keys.map(|keys| keys.split('.').map(str::to_owned).collect()).unwrap_or_default()
}

/// All values that are no tables at this place. The keys of the library pass over lists.
fn texts(value: &Value, keys: &[String], found: &mut Vec<String>) {
    match (value, keys.split_first()) {
        (Value::Array(values), _) => values.iter().for_each(|value| texts(value, keys, found)),
        (Value::Table(table), Some((key, rest))) => {
            if let Some(value) = table.get(key) {
                texts(value, rest, found);
            }
        }
        (Value::Table(_), None) => {}
        (Value::String(text), _) => found.push(text.clone()),
        (value, _) => found.push(value.to_string()),
    }
}

/// The forms of serde's messages are known: only what was expected is kept of them. In all others no word of the values
/// stays.
fn without_values(message: &str, values: &[String]) -> String {
    let expected = || message.rsplit_once(", expected ").map(|(_, expected)| expected);
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let end = rest.rfind("`, expected ").or_else(|| rest.rfind("`, there are no "));
        let key = &rest[..end.unwrap_or(rest.len())];
        let expected = expected().map(|expected| format!(", expected {expected}"));
        return format!("unknown field `{}`{}", shown(key), expected.unwrap_or_default());
    }
    if message.starts_with("unknown variant `") {
        return format!("unknown variant, expected {}", expected().unwrap_or("another one"));
    }
    let form = ["invalid type: ", "invalid value: "].iter().find_map(|form| message.strip_prefix(form));
    if let Some(rest) = form {
        let found = rest.split(['"', '`', ',']).next().unwrap_or_default().trim();
        let found =
            ["string", "integer", "floating point", "boolean", "map", "sequence"].into_iter().find(|k| *k == found);
        return format!(
            "found {}, expected {}",
            found.unwrap_or("another kind"),
            expected().unwrap_or("something else")
        );
    }
    cleaned(message, values)
}

/// A message of no known form, most often from a library: a value that stands in it is hidden, and so is what may be a
/// part of one because it is quoted or has digits.
fn cleaned(message: &str, values: &[String]) -> String {
    let whole = values.iter().filter(|value| value.chars().count() > SHORTEST);
    let message = whole.fold(message.to_owned(), |message, value| message.replace(value.as_str(), HIDDEN));
    let (mut cleaned, mut is_quoted) = (String::new(), false);
    for piece in message.split_inclusive(|letter: char| !letter.is_alphanumeric()) {
        let word = piece.trim_end_matches(|letter: char| !letter.is_alphanumeric());
        let may_be_part = is_quoted || word.contains(|letter: char| letter.is_ascii_digit());
        cleaned += if may_be_part && is_from(word, values) { HIDDEN } else { word };
        cleaned += &piece[word.len()..];
        is_quoted ^= piece.ends_with(['"', '`']);
    }
    cleaned
}

/// Whether the word is a part of a value, or has one in it.
fn is_from(word: &str, values: &[String]) -> bool {
    let is_long = |word: &str| word.chars().count() >= SHORTEST;
    let has_part = |value: &String| {
        value.contains(word)
            || value.split(|letter: char| !letter.is_alphanumeric()).any(|part| is_long(part) && word.contains(part))
    };
    is_long(word) && values.iter().any(has_part)
}

/// A key, unless it looks like what should have been a value.
fn shown(key: &str) -> &str {
    let is_bare = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if key.len() <= 64 && key.chars().all(is_bare) { key } else { HIDDEN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_was_expected_and_never_what_was_there() {
        let check = |message: &str, value: &str, said: &str| {
            assert_eq!(without_values(message, &[value.to_owned()]), said, "{message}");
        };
        let quoted = "invalid type: string \"a\\\", expected hunter-two\", expected a sequence";
        check(quoted, "a\", expected hunter-two", "found string, expected a sequence");
        check("invalid type: integer `5`, expected a string", "5", "found integer, expected a string");
        check("invalid value: hunter-two, expected a date", "", "found another kind, expected a date");
        check("unknown variant `hunter`, expected `a` or `b`", "hunter", "unknown variant, expected `a` or `b`");
        check("unknown field `pasword`, expected `a`", "x", "unknown field `pasword`, expected `a`");
        check("unknown field `x`, there are no fields", "x", "unknown field `x`");
        check("unknown field `u:hunter@h`, expected `a`", "x", "unknown field `…`, expected `a`");
        check("unknown time unit \"hunter\", supported: s, ms", "5hunter", "unknown time unit \"…\", supported: s, ms");
        check("for example 123456sec or 123456ms", "123456", "for example …sec or …ms");
        check("invalid port number", "postgres://u:hunter@h:port", "invalid port number");
        check("no hunter two here", "hunter two", "no … here");
        check("must be at least 1.0 MiB", "10kB", "must be at least 1.0 MiB");
        check("missing field `meter`", "x", "missing field `meter`");
    }
}
