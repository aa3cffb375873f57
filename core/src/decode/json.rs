//! OTLP in JSON. Names are lowerCamelCase, ids hex, 64-bit numbers are texts or numbers; unknown names are passed over. As in
//! protobuf, only what the dialect lists is copied.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::dialect::Meaning;
use super::extract::{Extractor, Head, Raw, ResourceReader};
use super::{Batch, Malformed, Rules};

/// Reads a whole body or refuses it whole; single bad spans are rejected within the batch.
pub(super) fn read(body: &[u8], rules: &Rules) -> Result<Batch, Malformed> {
    // Checked here, once and for all, because the parser does not look into what it passes over.
    let body = std::str::from_utf8(body)
        .map_err(|error| Malformed(format!("text that is not UTF-8 at byte {}", error.valid_up_to())))?;
    let request: Request<'_> = serde_json::from_str(body).map_err(|error| Malformed(without_values(&error)))?;
    let mut extractor = Extractor::new(rules);
    let mut batch = Batch::default();
    for resource_spans in request.resource_spans.iter().flatten() {
        let mut resource = ResourceReader::default();
        for attribute in resource_spans.resource.iter().flat_map(|resource| resource.attributes.iter().flatten()) {
            if let Some(value) = attribute.raw() {
                resource.attribute(attribute.key().as_bytes(), value);
            }
        }
        for scope_spans in resource_spans.scope_spans.iter().flatten() {
            let scope = scope_spans.scope.as_ref().and_then(|scope| scope.name.as_ref());
            let origin = resource.origin(scope.map_or("", |name| &name.0));
            batch.comes_from(&origin);
            for span in scope_spans.spans.iter().flatten() {
                let head = span.head(&mut extractor);
                extractor.finish(&head, &origin, &mut batch);
            }
        }
    }
    Ok(batch)
}

/// The parser's message names the value it found, a text in quotes or a number in backticks, which may be content: that is left out.
fn without_values(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let value = message.find(['"', '`']).filter(|_| message.starts_with("invalid "));
    match (value, message.rfind(", expected ")) {
        (Some(start), Some(end)) if start < end => format!("{}{}", message[..start].trim_end(), &message[end..]),
        _ => message,
    }
}

/// Text that is borrowed from the body where it has no escapes.
struct Text<'a>(Cow<'a, str>);

/// The bytes of a hex id. A text that is none becomes a single byte: the wrong length for every id, so the span is rejected.
#[derive(Default)]
struct HexId(Vec<u8>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow, default)]
    resource_spans: Option<Vec<ResourceSpans<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    #[serde(borrow, default)]
    resource: Option<Resource<'a>>,
    #[serde(borrow, default)]
    scope_spans: Option<Vec<ScopeSpans<'a>>>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow, default)]
    attributes: Option<Vec<Attribute<'a>>>,
}

#[derive(Deserialize)]
struct ScopeSpans<'a> {
    #[serde(borrow, default)]
    scope: Option<Scope<'a>>,
    #[serde(borrow, default)]
    spans: Option<Vec<Span<'a>>>,
}

#[derive(Deserialize)]
struct Scope<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    #[serde(default)]
    trace_id: Option<HexId>,
    #[serde(default)]
    span_id: Option<HexId>,
    #[serde(default)]
    parent_span_id: Option<HexId>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(default)]
    kind: Option<Number>,
    #[serde(default)]
    start_time_unix_nano: Option<Number>,
    #[serde(default)]
    end_time_unix_nano: Option<Number>,
    #[serde(borrow, default)]
    attributes: Option<Vec<Attribute<'a>>>,
    #[serde(borrow, default)]
    events: Option<Vec<Event<'a>>>,
    #[serde(borrow, default)]
    status: Option<Status<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    attributes: Option<Vec<Attribute<'a>>>,
}

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow, default)]
    message: Option<Text<'a>>,
    #[serde(default)]
    code: Option<Number>,
}

#[derive(Deserialize)]
struct Attribute<'a> {
    #[serde(borrow, default)]
    key: Option<Text<'a>>,
    #[serde(borrow, default)]
    value: Option<AnyValue<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyValue<'a> {
    #[serde(borrow, default)]
    string_value: Option<Text<'a>>,
    #[serde(default)]
    bool_value: Option<bool>,
    #[serde(default)]
    int_value: Option<Number>,
    #[serde(default)]
    double_value: Option<Double>,
    #[serde(borrow, default)]
    array_value: Option<ArrayValue<'a>>,
}

#[derive(Deserialize)]
struct ArrayValue<'a> {
    #[serde(borrow, default)]
    values: Option<Vec<Element<'a>>>,
}

/// Of an element only its text counts. What else may be in it is passed over, so that no depth of arrays is too deep.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Element<'a> {
    #[serde(borrow, default)]
    string_value: Option<Text<'a>>,
}

impl Span<'_> {
    fn head<'s>(&'s self, extractor: &mut Extractor<'s>) -> Head<'s> {
        let dialect = extractor.dialect();
        for attribute in self.attributes.iter().flatten() {
            attribute.read(dialect.span_key(attribute.key().as_bytes()), extractor);
        }
        for attribute in self.events.iter().flatten().flat_map(|event| event.attributes.iter().flatten()) {
            attribute.read(dialect.event_key(attribute.key().as_bytes()), extractor);
        }
        let id = |id: &'s Option<HexId>| id.as_ref().map_or(&[][..], |id| &id.0);
        let text = |text: &'s Option<Text<'_>>| text.as_ref().map_or("", |text| &*text.0);
        let number = |number: &Option<Number>| number.as_ref().map_or(0, |number| number.0);
        Head {
            trace_id: id(&self.trace_id),
            span_id: id(&self.span_id),
            parent: id(&self.parent_span_id),
            name: text(&self.name).as_bytes(),
            kind: i32::try_from(number(&self.kind)).unwrap_or_default(),
            start: u64::try_from(number(&self.start_time_unix_nano)).unwrap_or_default(),
            end: u64::try_from(number(&self.end_time_unix_nano)).unwrap_or_default(),
            failed: self.status.as_ref().is_some_and(|status| number(&status.code) == 2),
            message: self.status.as_ref().map_or("", |status| text(&status.message)),
        }
    }
}

impl Attribute<'_> {
    fn key(&self) -> &str {
        self.key.as_ref().map_or("", |key| &key.0)
    }

    fn raw(&self) -> Option<Raw<'_>> {
        self.value.as_ref()?.raw()
    }

    fn read<'s>(&'s self, meanings: &[Meaning], extractor: &mut Extractor<'s>) {
        if meanings.is_empty() {
            return;
        }
        if let Some(value) = self.raw() {
            extractor.attribute(meanings, value);
        }
    }
}

impl AnyValue<'_> {
    fn raw(&self) -> Option<Raw<'_>> {
        if let Some(text) = &self.string_value {
            return Some(Raw::Text(&text.0));
        }
        if let Some(set) = self.bool_value {
            return Some(Raw::Bool(set));
        }
        if let Some(number) = &self.int_value {
            return i64::try_from(number.0).ok().map(Raw::Int);
        }
        if let Some(number) = &self.double_value {
            return Some(Raw::Double(number.0));
        }
        let first = self.array_value.as_ref()?.values.as_ref()?.first()?;
        first.string_value.as_ref().map(|text| Raw::Text(&text.0))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes, because only so the parser lets an escaped half of a surrogate pair through.
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_bytes<E: de::Error>(self, text: &'de [u8]) -> Result<Text<'de>, E> {
        Ok(Text(String::from_utf8_lossy(text)))
    }

    /// JavaScript cuts texts between the halves of a pair and writes the half as an escape. One such text, in a prompt nobody
    /// looks at, must not cost all spans of the body: the half becomes U+FFFD, as it does in JavaScript's own UTF-8.
    fn visit_bytes<E: de::Error>(self, text: &[u8]) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(String::from_utf8_lossy(text).into_owned())))
    }
}

impl<'de> Deserialize<'de> for HexId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
        let bytes: Option<Vec<u8>> = text.0.as_bytes().chunks(2).map(byte).collect();
        Ok(Self(bytes.unwrap_or_else(|| vec![0])))
    }
}

/// A whole number, as a JSON number or, as the protobuf JSON rule has it, as a text.
struct Number(i128);

/// A number, or the texts that stand for what JSON cannot write.
struct Double(f64);

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number or a text of one")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Number, E> {
        Ok(Number(number.into()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Number, E> {
        Ok(Number(number.into()))
    }

    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Number, E> {
        if number.fract() == 0.0 && number.abs() < 1e19 {
            return Ok(Number(number as i128));
        }
        Err(E::invalid_value(de::Unexpected::Float(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
        text.parse().map(Number).map_err(|_| E::invalid_value(de::Unexpected::Other("another text"), &self))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct DoubleVisitor;

impl Visitor<'_> for DoubleVisitor {
    type Value = Double;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a text of one")
    }

    #[expect(clippy::cast_precision_loss, reason = "a double is what the sender declared")]
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Double, E> {
        Ok(Double(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "a double is what the sender declared")]
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Double, E> {
        Ok(Double(number as f64))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Double, E> {
        Ok(Double(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Double, E> {
        text.parse().map(Double).map_err(|_| E::invalid_value(de::Unexpected::Other("another text"), &self))
    }
}

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DoubleVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: &str) -> String {
        serde_json::from_str::<Request<'_>>(json).map(|_| ()).map_err(|error| without_values(&error)).unwrap_err()
    }

    #[test]
    fn the_parsers_messages_quote_nothing() {
        for value in ["\"SECRET\"", "\"SECRET, expected \\\"x\"", "4111", "4111.5", "-4111"] {
            let fault = fault(&format!("{{\"resourceSpans\":{value}}}"));
            assert!(!fault.contains("SECRET") && !fault.contains("4111"), "{fault}");
            assert!(
                fault.starts_with("invalid type: ") && fault.contains(", expected a sequence at line 1"),
                "{fault}"
            );
        }
        assert!(fault("{\"resourceSpans\":[],\"resourceSpans\":[]}").starts_with("duplicate field `resourceSpans`"));
    }

    #[test]
    fn half_a_surrogate_pair_is_replaced() {
        let text = |json| serde_json::from_str::<Text<'_>>(json).unwrap().0.into_owned();
        assert_eq!(text("\"\\ud83d\\ude00 whole\""), "\u{1f600} whole");
        assert!(text("\"cut \\ud83d\"").starts_with("cut \u{fffd}"));
    }
}
