//! Bodies that are too large to be kept in memory whole, made small while they come: attributes that nobody reads, prompts above all,
//! are left out, and what remains is a body in the same format, which the readers take as any other. Only the attribute that is just
//! coming is held, so that memory is bounded by what is kept.

mod json;
mod protobuf;

use std::sync::Arc;

use super::{Malformed, Rules, Unread};
use crate::domain::span::Origin;

/// The longest field or attribute that is kept. Whatever is read of one is a fraction of this.
const LONGEST: usize = 64 << 10;

/// A body that comes in parts.
pub struct Shrinker<'r> {
    form: Form,
    rules: &'r Rules,
    unread: Unread,
    /// Most bytes that may remain of it.
    most: usize,
}

enum Form {
    Protobuf(protobuf::Shrinker),
    Json(json::Shrinker),
}

/// Why a body cannot be made small.
#[derive(Debug, thiserror::Error)]
pub enum NotShrunk {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("more than {most} bytes remain of the body without its prompts")]
    TooLarge { most: usize },
}

impl<'r> Shrinker<'r> {
    pub fn protobuf(rules: &'r Rules, most: usize) -> Self {
        Self { form: Form::Protobuf(protobuf::Shrinker::default()), rules, unread: Unread::default(), most }
    }

    pub fn json(rules: &'r Rules, most: usize) -> Self {
        Self { form: Form::Json(json::Shrinker::default()), rules, unread: Unread::default(), most }
    }

    /// Takes the next part.
    pub fn push(&mut self, part: &[u8]) -> Result<(), NotShrunk> {
        match &mut self.form {
            Form::Protobuf(shrinker) => shrinker.push(part, self.rules, &mut self.unread)?,
            Form::Json(shrinker) => shrinker.push(part, self.rules, &mut self.unread),
        }
        if self.kept() > self.most { Err(NotShrunk::TooLarge { most: self.most }) } else { Ok(()) }
    }

    /// Bytes that are kept so far.
    pub fn kept(&self) -> usize {
        match &self.form {
            Form::Protobuf(shrinker) => shrinker.kept(),
            Form::Json(shrinker) => shrinker.kept(),
        }
    }

    /// Where the spans come from, as far as is known by now; of JSON nothing is.
    pub fn sender(&self) -> Option<Arc<Origin>> {
        let Form::Protobuf(shrinker) = &self.form else { return None };
        super::wire::read(&shrinker.so_far(), self.rules).ok()?.services.into_iter().next()
    }

    /// What remains of the body, and what of it was too long to be kept although it was wanted.
    pub fn finish(self) -> Result<(Vec<u8>, Unread), Malformed> {
        let body = match self.form {
            Form::Protobuf(shrinker) => shrinker.finish()?,
            Form::Json(shrinker) => shrinker.finish(),
        };
        Ok((body, self.unread))
    }
}

/// Whether any reader looks for this key, wherever it stands.
fn is_listed(key: &[u8], rules: &Rules) -> bool {
    !rules.lookup.span_key(key).is_empty()
        || !rules.lookup.event_key(key).is_empty()
        || super::extract::ResourceReader::wants(key)
}
