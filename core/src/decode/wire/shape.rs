//! Which field of which OTLP message has which type.

/// Type of a known field.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Varint,
    Fixed64,
    Fixed32,
    Bytes,
    Text,
    Message(Message),
}

/// The messages that a trace export is made of.
#[derive(Clone, Copy)]
pub(super) enum Message {
    Request,
    ResourceSpans,
    Resource,
    EntityRef,
    ScopeSpans,
    Scope,
    Span,
    Event,
    Link,
    Status,
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
}

impl Message {
    pub(super) fn shape(self, tag: u32) -> Option<Shape> {
        use Shape::{Bytes, Fixed32, Fixed64, Message as M, Text, Varint};
        let shape = match (self, tag) {
            (Self::Request, 1) => M(Self::ResourceSpans),
            (Self::ResourceSpans, 1) => M(Self::Resource),
            (Self::ResourceSpans, 2) => M(Self::ScopeSpans),
            (Self::ScopeSpans, 1) => M(Self::Scope),
            (Self::ScopeSpans, 2) => M(Self::Span),
            (Self::ResourceSpans | Self::ScopeSpans, 3) => Text,
            (Self::Resource, 3) => M(Self::EntityRef),
            (Self::Resource, 2) | (Self::Scope, 4) => Varint,
            (Self::EntityRef, 1..=4) | (Self::Scope, 1 | 2) => Text,
            (Self::Resource, 1) | (Self::Scope, 3) | (Self::Span, 9) => M(Self::KeyValue),
            (Self::Event, 3) | (Self::Link, 4) | (Self::KeyValueList, 1) => M(Self::KeyValue),
            (Self::Span, 1 | 2 | 4) | (Self::Link, 1 | 2) => Bytes,
            (Self::Span, 3 | 5) | (Self::Event, 2) | (Self::Link, 3) | (Self::Status, 2) => Text,
            (Self::Span, 6 | 10 | 12 | 14) | (Self::Event, 4) | (Self::Link, 5) | (Self::Status, 3) => Varint,
            (Self::Span, 7 | 8) | (Self::Event, 1) => Fixed64,
            (Self::Span, 11) => M(Self::Event),
            (Self::Span, 13) => M(Self::Link),
            (Self::Span, 15) => M(Self::Status),
            (Self::Span, 16) | (Self::Link, 6) => Fixed32,
            (Self::KeyValue, 1) => Text,
            (Self::KeyValue, 2) | (Self::ArrayValue, 1) => M(Self::AnyValue),
            (Self::KeyValue, 3) => Varint,
            (Self::AnyValue, 1) => Text,
            (Self::AnyValue, 2 | 3 | 8) => Varint,
            (Self::AnyValue, 4) => Fixed64,
            (Self::AnyValue, 5) => M(Self::ArrayValue),
            (Self::AnyValue, 6) => M(Self::KeyValueList),
            (Self::AnyValue, 7) => Bytes,
            _ => return None,
        };
        Some(shape)
    }

    pub(super) fn wrong_type(self) -> &'static str {
        match self {
            Self::Request => "request: a field has the wrong wire type",
            Self::ResourceSpans => "resource spans: a field has the wrong wire type",
            Self::Resource | Self::EntityRef => "resource: a field has the wrong wire type",
            Self::ScopeSpans => "scope spans: a field has the wrong wire type",
            Self::Scope => "scope: a field has the wrong wire type",
            Self::Span => "span: a field has the wrong wire type",
            Self::Event => "span event: a field has the wrong wire type",
            Self::Link => "span link: a field has the wrong wire type",
            Self::Status => "span status: a field has the wrong wire type",
            Self::KeyValue => "attribute: a field has the wrong wire type",
            Self::AnyValue | Self::ArrayValue | Self::KeyValueList => {
                "attribute value: a field has the wrong wire type"
            }
        }
    }
}
