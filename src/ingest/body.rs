//! A body from its first frame to bytes that can be read: whole where it is small; where it is large, without the attributes that
//! nobody reads, which are never in memory all at once.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;

use super::coming::{Metered, NotHere};
use super::inflate::Encoding;
use super::{BODY_TIMEOUT, Intake, Malformed, NotKept, Protocol, Refused};
use tacho_core::decode::{NotShrunk, Shrinker, Unread};
use tacho_core::domain::span::Origin;

/// So many times `ingest.max_body` a body may be where most of it is not kept. It bounds the work, not the memory.
const MOST_TIMES: usize = 8;
/// Bodies up to this are read whole, which is quicker. Nearly all are much smaller.
const LARGE: usize = 4 << 20;
/// Bytes inflated at once.
const PART: usize = 64 << 10;
/// Most bytes made ready for a body that says how long it is.
const READY: usize = 1 << 20;
/// So many parts are inflated before others have their turn.
const PARTS_A_TURN: usize = 16;

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{what}; send smaller batches, or raise ingest.max_body")]
    TooLarge { what: String, sender: Option<Arc<Origin>> },
    #[error("body is no valid {0} stream")]
    Inflate(&'static str),
    #[error("{0}")]
    Encoding(String),
    #[error("the body broke off")]
    Broken,
    #[error("the body did not come within {} s", BODY_TIMEOUT.as_secs())]
    Slow,
}

impl Refusal {
    fn too_large(most: usize, when: &str) -> Self {
        Self::TooLarge { what: format!("body is larger than {most} bytes{when}"), sender: None }
    }

    /// Metric label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.label(),
            Self::TooLarge { .. } => "too_large",
            Self::Inflate(_) | Self::Encoding(_) => "encoding",
            Self::Broken | Self::Slow => "incomplete",
        }
    }
}

impl From<NotKept> for Refusal {
    fn from(why: NotKept) -> Self {
        Self::Refused(why.into())
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Refused(malformed.into())
    }
}

/// A body that is here.
pub struct Received {
    pub(super) bytes: Bytes,
    /// What was left out although it was wanted.
    pub(super) unread: Unread,
}

/// The bytes of a body as they come.
pub(super) struct Parts {
    body: Metered,
    /// What has come ahead of its turn.
    ahead: Bytes,
    /// What is still to come of a message that said how long it is.
    left: Option<usize>,
}

impl Parts {
    /// All of the body.
    pub(super) fn new(body: Metered) -> Self {
        Self { body, ahead: Bytes::new(), left: None }
    }

    /// The first message of a body of gRPC, and whether it says that it is compressed.
    pub(super) async fn message(body: Metered) -> Result<(Self, bool), Refusal> {
        let mut parts = Self::new(body);
        let mut head = Vec::new();
        while head.len() < 5 {
            let mut part = parts.next().await?.ok_or(Refusal::Broken)?;
            let wanted = part.split_to(part.len().min(5 - head.len()));
            head.extend_from_slice(&wanted);
            parts.ahead = part;
        }
        let [flag, length @ ..] = <[u8; 5]>::try_from(head).expect("five bytes were waited for");
        if flag > 1 {
            return Err(Refusal::Encoding(format!("a message of gRPC begins with 0 or 1, and not with {flag}")));
        }
        parts.left = Some(usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX));
        Ok((parts, flag == 1))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        if self.left == Some(0) {
            // Up to the end of the body: who is still sending may not hear the answer.
            while self.frame().await?.is_some() {}
            return Ok(None);
        }
        let mut part = std::mem::take(&mut self.ahead);
        while part.is_empty() {
            part = match self.frame().await? {
                None if self.left.is_some() => return Err(Refusal::Broken),
                None => return Ok(None),
                Some(data) => data,
            };
        }
        if let Some(left) = &mut self.left {
            part.truncate(*left);
            *left -= part.len();
        }
        Ok(Some(part))
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, Refusal> {
        match self.body.frame().await {
            None => Ok(None),
            Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
            Some(Err(NotHere::NotKept(why))) => Err(why.into()),
            Some(Err(NotHere::Broken(_))) => Err(Refusal::Broken),
        }
    }

    /// How long it is, if it says so.
    fn expected(&self) -> usize {
        self.left.unwrap_or_else(|| usize::try_from(self.body.size_hint().lower()).unwrap_or(usize::MAX))
    }

    /// Reads to the end and keeps nothing.
    pub(super) async fn pass(mut self, intake: &Intake) -> Result<(), Refusal> {
        let (most, mut length) = (most(intake), 0);
        while let Some(part) = self.next().await? {
            length += part.len();
            if length > most {
                return Err(Refusal::too_large(most, ""));
            }
            self.body.holds(0).await?;
        }
        Ok(())
    }

    /// The body as bytes that can be read.
    pub(super) async fn receive(
        mut self,
        intake: &Intake,
        protocol: Protocol,
        encoding: Encoding,
    ) -> Result<Received, Refusal> {
        if encoding != Encoding::Identity {
            return self.inflated(intake, protocol, encoding).await;
        }
        if self.expected() > most(intake) {
            return Err(Refusal::too_large(most(intake), ""));
        }
        let mut growing = Growing::new(intake, protocol, "", self.expected().min(READY));
        while let Some(part) = self.next().await? {
            growing.push(&part)?;
            self.body.holds(growing.held()).await?;
        }
        growing.finish()
    }

    /// What is compressed is here before it is inflated.
    async fn inflated(mut self, intake: &Intake, protocol: Protocol, encoding: Encoding) -> Result<Received, Refusal> {
        let mut compressed = Vec::with_capacity(self.expected().min(READY));
        while let Some(part) = self.next().await? {
            compressed.extend_from_slice(&part);
            if compressed.len() > intake.max_body {
                return Err(Refusal::too_large(intake.max_body, " before decompression"));
            }
        }
        let broken = || Refusal::Inflate(encoding.name());
        let came = compressed.len();
        let mut growing = Growing::new(intake, protocol, " after decompression", 0);
        let mut reader = encoding.reader(compressed.into()).map_err(|_| broken())?;
        let mut part = vec![0; PART];
        for parts in 1_usize.. {
            let length = reader.read(&mut part).map_err(|_| broken())?;
            if length == 0 {
                break;
            }
            growing.push(&part[..length])?;
            if parts.is_multiple_of(PARTS_A_TURN) {
                self.body.holds(came + growing.held()).await?;
                tokio::task::yield_now().await;
            }
        }
        growing.finish()
    }
}

/// The greatest body that is looked at.
fn most(intake: &Intake) -> usize {
    intake.max_body.saturating_mul(MOST_TIMES)
}

/// A body that is coming, and is made small once it is large.
struct Growing<'i> {
    intake: &'i Intake,
    protocol: Protocol,
    /// How its length is measured.
    when: &'static str,
    length: usize,
    held: Held<'i>,
}

enum Held<'i> {
    Whole(Vec<u8>),
    Small(Shrinker<'i>),
}

impl<'i> Growing<'i> {
    fn new(intake: &'i Intake, protocol: Protocol, when: &'static str, expected: usize) -> Self {
        Self { intake, protocol, when, length: 0, held: Held::Whole(Vec::with_capacity(expected)) }
    }

    /// Bytes in memory.
    fn held(&self) -> usize {
        match &self.held {
            Held::Whole(whole) => whole.len(),
            Held::Small(shrinker) => shrinker.kept(),
        }
    }

    fn push(&mut self, part: &[u8]) -> Result<(), Refusal> {
        self.length += part.len();
        if self.length > most(self.intake) {
            return Err(self.too_large(format!("body is larger than {} bytes{}", most(self.intake), self.when)));
        }
        if let Held::Whole(whole) = &mut self.held {
            if self.length <= LARGE.min(self.intake.max_body) {
                whole.extend_from_slice(part);
                return Ok(());
            }
            let whole = std::mem::take(whole);
            self.held = Held::Small(self.shrinker());
            self.shrink(&whole)?;
        }
        self.shrink(part)
    }

    fn shrinker(&self) -> Shrinker<'i> {
        let Intake { rules, max_body, .. } = self.intake;
        match self.protocol {
            Protocol::HttpJson => Shrinker::json(rules, *max_body),
            Protocol::Grpc | Protocol::HttpProtobuf => Shrinker::protobuf(rules, *max_body),
        }
    }

    fn shrink(&mut self, part: &[u8]) -> Result<(), Refusal> {
        let Held::Small(shrinker) = &mut self.held else { return Ok(()) };
        shrinker.push(part).map_err(|why| match why {
            NotShrunk::Malformed(malformed) => malformed.into(),
            NotShrunk::TooLarge { .. } => self.too_large(why.to_string()),
        })
    }

    /// Names the sender, if what has come says who it is.
    fn too_large(&self, what: String) -> Refusal {
        let sender = if let Held::Small(shrinker) = &self.held { shrinker.sender() } else { None };
        Refusal::TooLarge { what, sender }
    }

    fn finish(self) -> Result<Received, Refusal> {
        match self.held {
            Held::Whole(whole) => Ok(Received { bytes: whole.into(), unread: Unread::default() }),
            Held::Small(shrinker) => {
                let (bytes, unread) = shrinker.finish()?;
                Ok(Received { bytes: bytes.into(), unread })
            }
        }
    }
}
