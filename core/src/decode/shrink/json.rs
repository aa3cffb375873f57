//! JSON in parts. What stands in an array called `attributes` is taken apart, the rest is taken as it is.

use super::{LONGEST, is_listed};
use crate::decode::json::{Cursor, attribute, plain_length};
use crate::decode::{Rules, Unread};

const NAME: &[u8] = b"attributes";

/// Where in the text the next byte stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Between values, whatever they are.
    Outside,
    Text,
    /// Behind a backslash in a text.
    Escape,
}

pub(super) struct Shrinker {
    place: Place,
    kept: Vec<u8>,
    /// The text that came last, as far as it can be the name that is looked for.
    name: Vec<u8>,
    /// What has been seen of `"attributes":[`.
    seen: Seen,
    /// While the elements of such an array come.
    elements: Option<Elements>,
}

#[derive(Clone, Copy, PartialEq)]
enum Seen {
    Nothing,
    Name,
    Colon,
}

/// An array of attributes that is coming.
#[derive(Default)]
struct Elements {
    /// Objects and arrays that are open in it.
    depth: usize,
    /// The element that is coming; of one that is too long, its beginning.
    element: Vec<u8>,
    is_cut: bool,
    any_kept: bool,
}

impl Default for Shrinker {
    fn default() -> Self {
        Self { place: Place::Outside, kept: vec![], name: vec![], seen: Seen::Nothing, elements: None }
    }
}

impl Shrinker {
    pub(super) fn kept(&self) -> usize {
        self.kept.len() + self.elements.as_ref().map_or(0, |elements| elements.element.len())
    }

    pub(super) fn push(&mut self, mut part: &[u8], rules: &Rules, unread: &mut Unread) {
        loop {
            if self.place == Place::Text {
                let (text, rest) = part.split_at(plain_length(part));
                self.text(text);
                part = rest;
            }
            let Some((byte, rest)) = part.split_first() else { return };
            part = rest;
            let was = self.place;
            self.place = match (was, byte) {
                (Place::Outside, b'"') | (Place::Escape, _) => Place::Text,
                (Place::Text, b'"') => Place::Outside,
                (Place::Text, b'\\') => Place::Escape,
                (place, _) => place,
            };
            match &mut self.elements {
                None => self.outside(was, *byte),
                Some(elements) => {
                    let is_outside = was == Place::Outside && self.place == Place::Outside;
                    if elements.take(*byte, is_outside, &mut self.kept, rules, unread) {
                        self.elements = None;
                    }
                }
            }
        }
    }

    /// What stands in a text, without its escapes and its end.
    fn text(&mut self, text: &[u8]) {
        match &mut self.elements {
            Some(elements) => elements.extend(text),
            None => {
                self.kept.extend_from_slice(text);
                self.name(text);
            }
        }
    }

    /// Remembers what may be the name, and one byte more.
    fn name(&mut self, text: &[u8]) {
        let room = (NAME.len() + 1).saturating_sub(self.name.len());
        self.name.extend_from_slice(&text[..text.len().min(room)]);
    }

    /// What remains. Whether it is JSON is for the reader to see.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if let Some(elements) = self.elements {
            // The body ends in the middle, and so does what is kept.
            self.kept.extend_from_slice(&elements.element);
        }
        self.kept
    }

    fn outside(&mut self, was: Place, byte: u8) {
        self.kept.push(byte);
        match (was, self.place) {
            (Place::Outside, Place::Text) => self.name.clear(),
            (Place::Text, Place::Outside) => {
                self.seen = if self.name == NAME { Seen::Name } else { Seen::Nothing };
            }
            (Place::Outside, _) => match (self.seen, byte) {
                (_, b' ' | b'\n' | b'\r' | b'\t') => {}
                (Seen::Name, b':') => self.seen = Seen::Colon,
                (Seen::Colon, b'[') => {
                    self.seen = Seen::Nothing;
                    self.elements = Some(Elements::default());
                }
                _ => self.seen = Seen::Nothing,
            },
            // An escape: no text with one is the name.
            _ => self.name(&[byte]),
        }
    }
}

impl Elements {
    /// Takes the next byte; whether it ends the array.
    fn take(&mut self, byte: u8, is_outside: bool, kept: &mut Vec<u8>, rules: &Rules, unread: &mut Unread) -> bool {
        if is_outside && self.depth == 0 && matches!(byte, b',' | b']') {
            self.end_element(kept, rules, unread);
            if byte == b']' {
                kept.push(b']');
            }
            return byte == b']';
        }
        if is_outside {
            match byte {
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        self.extend(&[byte]);
        false
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LONGEST - self.element.len();
        self.is_cut |= bytes.len() > room;
        self.element.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Keeps the element if it is an attribute that is read.
    fn end_element(&mut self, kept: &mut Vec<u8>, rules: &Rules, unread: &mut Unread) {
        let element = String::from_utf8_lossy(&self.element);
        if self.is_cut {
            if let Some(key) = first_key(&element).filter(|key| is_listed(key.as_bytes(), rules)) {
                unread.add(key);
            }
        } else if let Ok(Some((key, _))) = attribute(&mut Cursor::new(&element))
            && is_listed(key.as_bytes(), rules)
        {
            if self.any_kept {
                kept.push(b',');
            }
            kept.extend_from_slice(&self.element);
            self.any_kept = true;
        }
        self.element.clear();
        self.is_cut = false;
    }
}

/// The key of an attribute of which only the beginning is here.
fn first_key(element: &str) -> Option<&str> {
    let rest = element.split_once("\"key\"")?.1.trim_start().strip_prefix(':')?.trim_start();
    Some(rest.strip_prefix('"')?.split_once('"')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::OwnKeys;

    #[test]
    fn no_text_is_held_beside_what_is_kept() {
        let (rules, mut unread) = (Rules::new(OwnKeys::default(), false), Unread::default());
        let mut shrinker = Shrinker::default();
        shrinker.push(br#"{"attributes":[{"key":"other","value":{"stringValue":""#, &rules, &mut unread);
        for _ in 0..1_000 {
            shrinker.push(&br"a prompt\n".repeat(100), &rules, &mut unread);
        }
        assert!(shrinker.kept() < 2 * LONGEST, "{}", shrinker.kept());
        shrinker.push(br#""}}],"name":""#, &rules, &mut unread);
        shrinker.push(&br"a name\n".repeat(100), &rules, &mut unread);
        assert_eq!((shrinker.name.len(), unread.count), (NAME.len() + 1, 0));
        assert!(shrinker.finish().starts_with(br#"{"attributes":[],"name":"a name\n"#));
    }
}
