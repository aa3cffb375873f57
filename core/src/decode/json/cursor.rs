//! JSON's grammar: objects, arrays and what stands in them. It knows nothing of spans. A value is passed over without being read,
//! whatever it is and however deep, and what is no JSON is found there too.

use std::borrow::Cow;

use serde::de::{self, Deserializer, Visitor};

/// Why the body is no JSON, and at which byte.
#[derive(Debug)]
pub(in crate::decode) struct Fault {
    pub what: &'static str,
    pub at: usize,
}

/// A value as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::decode) enum Token<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    /// What stands between the quotes.
    Text(Quoted<'a>),
    /// An object or an array.
    Nested,
}

/// What stands between the quotes of a text, with its escapes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::decode) struct Quoted<'a>(&'a str);

impl<'a> Quoted<'a> {
    /// Borrowed from the body where there are no escapes.
    pub(in crate::decode) fn text(self) -> Cow<'a, str> {
        if !self.0.contains('\\') {
            return Cow::Borrowed(self.0);
        }
        let quoted = format!("\"{}\"", self.0);
        // As bytes, because only so the parser lets an escaped half of a surrogate pair through.
        let text = serde_json::Deserializer::from_str(&quoted).deserialize_bytes(Unescaped);
        Cow::Owned(text.expect("the escapes were checked when the text was passed over"))
    }
}

struct Unescaped;

impl Visitor<'_> for Unescaped {
    type Value = String;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text")
    }

    /// JavaScript cuts texts between the halves of a pair and writes the half as an escape. The half becomes U+FFFD, as it does in
    /// JavaScript's own UTF-8.
    fn visit_bytes<E: de::Error>(self, text: &[u8]) -> Result<String, E> {
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

/// A place in a body.
pub(in crate::decode) struct Cursor<'a> {
    body: &'a str,
    at: usize,
    /// The ends of the objects and arrays around the value that is being passed over.
    ends: Vec<u8>,
}

impl<'a> Cursor<'a> {
    pub(in crate::decode) fn new(body: &'a str) -> Self {
        Self { body, at: 0, ends: Vec::new() }
    }

    /// This place once more.
    pub(in crate::decode) fn same(&self) -> Self {
        Self { body: self.body, at: self.at, ends: Vec::new() }
    }

    /// Whether the next value is an object.
    pub(in crate::decode) fn is_object(&mut self) -> bool {
        self.peek() == Some(b'{')
    }

    pub(in crate::decode) fn is_array(&mut self) -> bool {
        self.peek() == Some(b'[')
    }

    /// Hands on each member of the object that is next; `each` passes over the value.
    pub(in crate::decode) fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, &str) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.expect(b'{', "a value that is no object")?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let name = self.name()?;
            each(self, &name.text())?;
            if !self.another(b'}')? {
                return Ok(());
            }
        }
    }

    /// Hands on each element of the array that is next; `each` passes over it.
    pub(in crate::decode) fn elements(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.expect(b'[', "a value that is no array")?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            each(self)?;
            if !self.another(b']')? {
                return Ok(());
            }
        }
    }

    /// Reads the next value if it is a scalar, and passes over it in any case.
    pub(in crate::decode) fn token(&mut self) -> Result<Token<'a>, Fault> {
        match self.peek() {
            Some(b'"') => self.quoted().map(Token::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(Token::Number),
            Some(b'n') => self.word("null").map(|()| Token::Null),
            Some(b't') => self.word("true").map(|()| Token::Bool(true)),
            Some(b'f') => self.word("false").map(|()| Token::Bool(false)),
            Some(b'{' | b'[') => self.skip().map(|()| Token::Nested),
            Some(_) => Err(self.fault("no value where there should be one")),
            None => Err(self.fault("the end, where a value should be")),
        }
    }

    /// Passes over the next value.
    pub(in crate::decode) fn skip(&mut self) -> Result<(), Fault> {
        self.ends.clear();
        loop {
            match self.peek() {
                Some(b'{') => {
                    self.at += 1;
                    if !self.take(b'}') {
                        self.name()?;
                        self.ends.push(b'}');
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    if !self.take(b']') {
                        self.ends.push(b']');
                        continue;
                    }
                }
                _ => drop(self.token()?),
            }
            while let Some(end) = self.ends.last().copied() {
                if self.another(end)? {
                    if end == b'}' {
                        self.name()?;
                    }
                    break;
                }
                self.ends.pop();
            }
            if self.ends.is_empty() {
                return Ok(());
            }
        }
    }

    /// Nothing may follow.
    pub(in crate::decode) fn end(&mut self) -> Result<(), Fault> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault("more behind the end")),
        }
    }

    /// The next byte that is no space.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.body.as_bytes().get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                byte => return byte.copied(),
            }
        }
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8, otherwise: &'static str) -> Result<(), Fault> {
        if self.take(byte) { Ok(()) } else { Err(self.fault(otherwise)) }
    }

    /// Whether another member or element follows, or this end.
    #[inline]
    fn another(&mut self, end: u8) -> Result<bool, Fault> {
        match self.peek() {
            Some(b',') => self.at += 1,
            Some(byte) if byte == end => {
                self.at += 1;
                return Ok(false);
            }
            Some(_) => return Err(self.fault("neither a comma nor an end behind a value")),
            None => return Err(self.fault("an object or array without an end")),
        }
        Ok(true)
    }

    /// The name of a member, with the colon.
    #[inline]
    fn name(&mut self) -> Result<Quoted<'a>, Fault> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("a member without a name"));
        }
        let name = self.quoted()?;
        self.expect(b':', "no colon behind a name")?;
        Ok(name)
    }

    /// A text. The quote before it is next.
    #[inline]
    fn quoted(&mut self) -> Result<Quoted<'a>, Fault> {
        self.at += 1;
        let start = self.at;
        loop {
            self.at += plain_length(&self.body.as_bytes()[self.at..]);
            match self.body.as_bytes().get(self.at) {
                Some(b'"') => {
                    let text = &self.body[start..self.at];
                    self.at += 1;
                    return Ok(Quoted(text));
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.fault("a control character in a text")),
                None => return Err(self.fault("a text without an end")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        let rest = &self.body.as_bytes()[self.at + 1..];
        let length = match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 1,
            [b'u', digits @ ..] if digits.len() >= 4 && digits[..4].iter().all(u8::is_ascii_hexdigit) => 5,
            _ => return Err(self.fault("an escape that there is not")),
        };
        self.at += 1 + length;
        Ok(())
    }

    /// A number by JSON's rules, of any size.
    fn number(&mut self) -> Result<&'a str, Fault> {
        let start = self.at;
        self.sign(b"-");
        if self.body.as_bytes().get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.body.as_bytes().get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.body.as_bytes().get(self.at) {
            self.at += 1;
            self.sign(b"+-");
            self.digits()?;
        }
        Ok(&self.body[start..self.at])
    }

    fn sign(&mut self, signs: &[u8]) {
        let signed = self.body.as_bytes().get(self.at).is_some_and(|byte| signs.contains(byte));
        self.at += usize::from(signed);
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let digits = self.body.as_bytes()[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        if digits == 0 { Err(self.fault("no digit where a number needs one")) } else { Ok(()) }
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        if !self.body.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault("no value where there should be one"));
        }
        self.at += word.len();
        Ok(())
    }

    #[cold]
    pub(in crate::decode) fn fault(&self, what: &'static str) -> Fault {
        Fault { what, at: self.at }
    }
}

/// How many bytes come before the next quote, backslash or control character. Looks at eight at once: of the bits of `found`, the
/// lowest that is set is right; those above it may not be.
#[inline]
pub(in crate::decode) fn plain_length(bytes: &[u8]) -> usize {
    const EACH: u64 = u64::MAX / 0xff;
    let zero = |word: u64| word.wrapping_sub(EACH) & !word;
    let (words, rest) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(0x20 * EACH) & !word;
        let found = (control | zero(word ^ (0x22 * EACH)) | zero(word ^ (0x5c * EACH))) & (0x80 * EACH);
        if found != 0 {
            return place * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let is_special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    words.len() * 8 + rest.iter().position(is_special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn accepts(text: &str) -> bool {
        let mut cursor = Cursor::new(text);
        cursor.skip().and_then(|()| cursor.end()).is_ok()
    }

    fn quoted(text: &str) -> String {
        match Cursor::new(text).token().unwrap() {
            Token::Text(quoted) => quoted.text().into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_json_is_what_a_parser_says() {
        let texts = [
            "",
            " ",
            "null",
            "nul",
            "nulls",
            "true false",
            "-",
            "-0",
            "01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "1E-5",
            "-1.50e+10",
            "+1",
            "1e400",
            "NaN",
            "\"",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\ud83d\"",
            "\"\t\"",
            "{",
            "}",
            "{}",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":1,\"a\":[{}]}",
            "{1:2}",
            "[",
            "]",
            "[]",
            "[,]",
            "[1,]",
            "[1 2]",
            "[1]]",
            "[{]}",
            "{[}]",
            "[[[]],{\"a\":[null]}]",
            " [ 1 , { \"a\" : [ ] } ] ",
            "\u{feff}{}",
        ];
        for text in texts {
            assert_eq!(accepts(text), serde_json::from_str::<IgnoredAny>(text).is_ok(), "{text:?}");
        }
    }

    proptest! {
        /// Written by a parser, then damaged.
        #[test]
        fn what_is_damaged_is_json_where_a_parser_says_so(
            texts in prop::collection::vec(any::<String>(), 1..4),
            at in any::<prop::sample::Index>(),
            by in prop::sample::select(vec!["", "\"", "\\", "{", "}", "[", "]", ",", ":", "0", "-", "e", ".", "\u{1}", "n"]),
        ) {
            let value = serde_json::json!({"a": texts, "b": [1.5e-7, -3, null, true, {"c": {}, "d": []}], "e": texts});
            let whole = value.to_string();
            let at = whole.floor_char_boundary(at.index(whole.len()));
            let next = whole[at..].chars().next().unwrap().len_utf8();
            for damaged in [format!("{}{by}{}", &whole[..at], &whole[at..]), format!("{}{by}{}", &whole[..at], &whole[at + next..])] {
                let parsed = serde_json::from_str::<IgnoredAny>(&damaged);
                prop_assert_eq!(accepts(&damaged), parsed.is_ok(), "{}", damaged);
            }
        }

        #[test]
        fn a_text_is_what_a_parser_reads(text in any::<String>()) {
            prop_assert_eq!(quoted(&serde_json::to_string(&text).unwrap()), text);
        }
    }

    #[test]
    fn the_end_of_a_text_is_found_at_every_place() {
        for length in 0..20 {
            for special in [b'"', b'\\', 0, 0x1f] {
                for at in 0..length {
                    for byte in 0x20..=0xff_u8 {
                        if byte != b'"' && byte != b'\\' {
                            let mut text = vec![byte; length];
                            text[at] = special;
                            assert_eq!(plain_length(&text), at, "{special} at {at} of {length} among {byte}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_replaced() {
        assert_eq!(quoted("\"\\ud83d\\ude00 whole\""), "\u{1f600} whole");
        assert!(quoted("\"cut \\ud83d\"").starts_with("cut \u{fffd}"));
    }

    #[test]
    fn a_value_may_lie_as_deep_as_it_likes() {
        assert!(accepts(&("[{\"a\":".repeat(100_000) + "1" + &"}]".repeat(100_000))));
        assert!(!accepts(&"[".repeat(100_000)));
    }
}
