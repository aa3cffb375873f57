//! The secrets that this process knows. Whatever it says goes through `redact`, so that none of them is in it, whoever
//! wrote the text: an error of a library, the answer of a server, a trace.

use std::borrow::Cow;
use std::sync::{PoisonError, RwLock};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Every way in which a secret may be spelled; the longest first.
static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());
/// What is shorter stands in ordinary words: hiding it would make every text unreadable, and show by that what it is.
const SHORTEST: usize = 4;
const HIDDEN: &str = "***";

/// From now on this text is in no output, in none of the ways in which URLs, JSON and Rust spell it.
pub fn hide(secret: &str) {
    let decoded = percent_decode_str(secret).decode_utf8_lossy().into_owned();
    let mut spellings = vec![secret.to_owned(), decoded.clone()];
    for plain in [secret, &decoded] {
        spellings.push(utf8_percent_encode(plain, NON_ALPHANUMERIC).to_string());
        spellings.push(plain.escape_debug().to_string());
        let json = serde_json::Value::from(plain).to_string();
        spellings.push(json[1..json.len() - 1].to_owned());
    }
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    known.extend(spellings.into_iter().filter(|spelling| spelling.len() >= SHORTEST));
    known.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    known.dedup();
}

/// The text without the secrets that are known.
pub fn redact(text: &str) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let mut text = Cow::Borrowed(text);
    for secret in known.iter() {
        if text.contains(secret.as_str()) {
            text = Cow::Owned(text.replace(secret.as_str(), HIDDEN));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_however_it_is_spelled() {
        hide("p%40ss\"wörd!");
        for text in ["p%40ss\"wörd!", "p@ss\"wörd!", "p%40ss%22w%C3%B6rd%21", "p@ss\\\"wörd!"] {
            assert_eq!(redact(&format!("<{text}>")), "<***>", "{text}");
        }
        assert_eq!(redact("password"), "password");
    }

    #[test]
    fn what_would_be_in_every_word_stays() {
        hide("rd");
        assert_eq!(redact("word"), "word");
    }
}
