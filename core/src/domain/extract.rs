//! The usage extract of a body, as bytes: what the journal keeps, and all that of a body remains. It is written span by span
//! while the body is read, and read back as spans.

use std::fmt;
use std::sync::Arc;

use super::facts::{Facts, FactsBuilder};
use super::ids::{SpanId, TraceId};
use super::span::{Kind, Origin, Received, Span};
use super::time::Timestamp;

/// Number of this form of the bytes; another form gets another number.
pub const EXTRACT_FORM: u8 = 2;

/// First byte of what follows: the resource and scope of the spans behind it.
const ORIGIN: u8 = 0;
/// Set in the first byte of a span, beside its kind and these:
const SPAN: u8 = 0x80;
const FAILED: u8 = 0x40;
const HAS_PARENT: u8 = 0x20;
const REMOTE_PARENT: u8 = 0x10;
const KIND: u8 = 0x0f;

/// The spans of a body.
#[derive(Clone, Default)]
pub struct Extract {
    bytes: Vec<u8>,
    spans: usize,
    origin: Option<Arc<Origin>>,
}

/// The bytes are no extract of this form.
#[derive(Debug, thiserror::Error)]
#[error("not an extract of spans, or one of a newer form")]
pub struct NoExtract;

impl Extract {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How many spans there are.
    pub fn len(&self) -> usize {
        self.spans
    }

    pub fn is_empty(&self) -> bool {
        self.spans == 0
    }

    /// Room for so many bytes more.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Adds a span; its facts are what is collected now, and not its own.
    pub fn push(
        &mut self,
        origin: &Arc<Origin>,
        trace_id: TraceId,
        span: &Span,
        collect: impl FnOnce(&mut FactsBuilder),
    ) {
        if self.origin.as_ref().is_none_or(|last| !Arc::ptr_eq(last, origin)) {
            self.push_origin(origin);
            self.origin = Some(Arc::clone(origin));
        }
        let parent = if span.parent.is_some() { HAS_PARENT } else { 0 };
        let remote = if span.remote_parent { REMOTE_PARENT } else { 0 };
        let failed = if span.failed { FAILED } else { 0 };
        self.bytes.push(SPAN | failed | parent | remote | span.kind as u8);
        self.bytes.extend_from_slice(trace_id.as_bytes());
        self.bytes.extend_from_slice(span.id.as_bytes());
        if let Some(parent) = span.parent {
            self.bytes.extend_from_slice(parent.as_bytes());
        }
        self.bytes.extend_from_slice(&span.start.0.to_le_bytes());
        self.bytes.extend_from_slice(&span.end.0.to_le_bytes());
        self.push_facts(collect);
        self.spans += 1;
    }

    /// Led by their length.
    fn push_facts(&mut self, collect: impl FnOnce(&mut FactsBuilder)) {
        let place = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        let mut facts = FactsBuilder::behind(std::mem::take(&mut self.bytes));
        collect(&mut facts);
        self.bytes = facts.into_bytes();
        let length = u16::try_from(self.bytes.len() - place - 2).expect("every fact is cut, all together to some KiB");
        self.bytes[place..place + 2].copy_from_slice(&length.to_le_bytes());
    }

    fn push_origin(&mut self, origin: &Origin) {
        self.bytes.push(ORIGIN);
        let scope = Some(&origin.scope);
        for text in [origin.service.as_ref(), origin.instance.as_ref(), origin.namespace.as_ref(), scope] {
            let length = text.map_or(0, |text| text.len() + 1);
            let length = u16::try_from(length).expect("names are cut long before 64 KiB");
            self.bytes.extend_from_slice(&length.to_le_bytes());
            self.bytes.extend_from_slice(text.map_or(b"", |text| text.as_bytes()));
        }
    }

    /// What was pushed, in its order.
    pub fn spans(&self) -> Vec<Received> {
        Self::read(&self.bytes).expect("what was written here is of this form")
    }

    /// The spans, in their order.
    pub fn read(bytes: &[u8]) -> Result<Vec<Received>, NoExtract> {
        let mut rest = bytes;
        let mut spans = Vec::new();
        let mut origin = None;
        while let Some((first, tail)) = rest.split_first() {
            rest = tail;
            if *first == ORIGIN {
                origin = Some(Arc::new(read_origin(&mut rest)?));
            } else {
                let origin = origin.as_ref().map(Arc::clone).ok_or(NoExtract)?;
                let (trace_id, span) = read_span(*first, &mut rest)?;
                spans.push(Received { trace_id, origin, span });
            }
        }
        Ok(spans)
    }
}

impl PartialEq for Extract {
    fn eq(&self, other: &Self) -> bool {
        self.spans() == other.spans()
    }
}

impl fmt::Debug for Extract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.spans()).finish()
    }
}

fn read_origin(rest: &mut &[u8]) -> Result<Origin, NoExtract> {
    let mut text = || {
        let length = usize::from(u16::from_le_bytes(chunk(rest)?));
        let Some(length) = length.checked_sub(1) else { return Ok(None) };
        let text = std::str::from_utf8(slice(rest, length)?).map_err(|_| NoExtract)?;
        Ok(Some(Box::from(text)))
    };
    Ok(Origin { service: text()?, instance: text()?, namespace: text()?, scope: text()?.ok_or(NoExtract)? })
}

fn read_span(first: u8, rest: &mut &[u8]) -> Result<(TraceId, Span), NoExtract> {
    let kind = Kind::ALL.get(usize::from(first & KIND)).filter(|_| first & SPAN != 0);
    let trace_id = TraceId::from_bytes(&chunk::<16>(rest)?).ok_or(NoExtract)?;
    let span_id = |rest: &mut &[u8]| SpanId::from_bytes(&chunk::<8>(rest)?).ok_or(NoExtract);
    let span = Span {
        id: span_id(rest)?,
        parent: if first & HAS_PARENT == 0 { None } else { Some(span_id(rest)?) },
        remote_parent: first & REMOTE_PARENT != 0,
        kind: *kind.ok_or(NoExtract)?,
        start: Timestamp(u64::from_le_bytes(chunk(rest)?)),
        end: Timestamp(u64::from_le_bytes(chunk(rest)?)),
        failed: first & FAILED != 0,
        facts: read_facts(rest)?,
    };
    Ok((trace_id, span))
}

fn read_facts(rest: &mut &[u8]) -> Result<Facts, NoExtract> {
    let length = usize::from(u16::from_le_bytes(chunk(rest)?));
    Facts::from_packed(slice(rest, length)?).ok_or(NoExtract)
}

fn chunk<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], NoExtract> {
    let (chunk, tail) = rest.split_first_chunk().ok_or(NoExtract)?;
    *rest = tail;
    Ok(*chunk)
}

fn slice<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], NoExtract> {
    let (slice, tail) = rest.split_at_checked(length).ok_or(NoExtract)?;
    *rest = tail;
    Ok(slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::facts::Field;

    fn extract() -> (Extract, Vec<Received>) {
        let one = Arc::new(Origin { service: Some("bot".into()), scope: "a".into(), ..Origin::default() });
        let other = Arc::new(Origin { namespace: Some("".into()), scope: "".into(), ..Origin::default() });
        let (mut extract, mut spans) = (Extract::default(), Vec::new());
        for (n, kind) in (1..).zip(Kind::ALL) {
            let origin = if n % 3 == 0 { &other } else { &one };
            let collect = |facts: &mut FactsBuilder| {
                facts.text(Field::User, &"ü".repeat(usize::from(n) * 20));
                facts.number(Field::InputTokens, u64::MAX >> n);
            };
            let mut facts = FactsBuilder::default();
            collect(&mut facts);
            let trace_id = TraceId::from_bytes(&[n; 16]).unwrap();
            let parent = (n % 2 == 0).then(|| SpanId::from_bytes(&[n + 1; 8]).unwrap());
            let (start, end) = (Timestamp(n.into()), Timestamp(u64::MAX));
            let id = SpanId::from_bytes(&[n; 8]).unwrap();
            let bare = Span {
                id,
                parent,
                remote_parent: n % 4 == 2,
                kind,
                start,
                end,
                failed: n % 4 == 0,
                facts: Facts::default(),
            };
            extract.push(origin, trace_id, &bare, collect);
            spans.push(Received { trace_id, origin: Arc::clone(origin), span: Span { facts: facts.take(), ..bare } });
        }
        (extract, spans)
    }

    #[test]
    fn spans_go_in_and_come_out() {
        let (extract, spans) = extract();
        assert_eq!(Extract::read(extract.bytes()).unwrap(), spans);
        assert_eq!(extract.len(), spans.len());
        assert_eq!(Extract::read(&[]).unwrap(), []);
    }

    /// Whatever is cut or changed, it is an error or some spans, and never a panic.
    #[test]
    fn damaged_bytes_do_no_harm() {
        let whole = extract().0.into_bytes();
        for end in 0..whole.len() {
            drop(Extract::read(&whole[..end]));
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[end] ^= 1 << bit;
                drop(Extract::read(&flipped));
            }
        }
    }
}
