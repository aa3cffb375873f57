//! Documents on their way to a sink: several requests at once, each answered document by document. What must be sent again is, what
//! can never be taken is set aside, and a place in the source is passed only when all before it is finished.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pace::{Hold, Pace};
use super::pending::Pending;
use super::{ExportMeters, Sink};
use crate::persist::FeedKey;

/// What is held in memory at once for one stream of a sink.
const MAX_PENDING_DOCUMENTS: usize = 8_000;
const MAX_PENDING_BYTES: usize = 12 << 20;

/// A record or an event as the sink is sent it.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub key: FeedKey,
    pub revision: i64,
    pub bytes: Bytes,
}

/// What a sink says of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has it, or a newer state of it.
    Done,
    /// Not now.
    Again(Hold),
    /// It will never take it, for this reason.
    Never(String),
}

/// What a sink says of a request as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Again(Hold),
    TooLarge,
    /// Something in it is wrong, and nobody says what.
    Refused(String),
}

/// A document that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetAside {
    pub key: FeedKey,
    pub revision: i64,
    pub reason: String,
}

type Numbered = (u64, Document);

struct Answer {
    sent: Vec<Numbered>,
    verdict: Result<Vec<Verdict>, Trouble>,
    took: Duration,
}

/// `P` is a place in the source.
pub(super) struct Delivery<P> {
    sink: Sink,
    meters: ExportMeters,
    pace: Pace,
    pending: Pending<P, SetAside>,
    pending_bytes: usize,
    waiting: VecDeque<Numbered>,
    /// To be sent before what waits, each as it is.
    again: VecDeque<Vec<Numbered>>,
    on_the_way: JoinSet<Answer>,
    not_before: Instant,
    complaint: Option<String>,
}

impl<P> Delivery<P> {
    pub(super) fn new(sink: Sink, meters: ExportMeters) -> Self {
        Self {
            sink,
            meters,
            pace: Pace::default(),
            pending: Pending::default(),
            pending_bytes: 0,
            waiting: VecDeque::new(),
            again: VecDeque::new(),
            on_the_way: JoinSet::new(),
            not_before: Instant::now(),
            complaint: None,
        }
    }

    /// More documents may be added: too few wait for the next requests, and memory has room.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < self.pace.documents()
            && self.pending.len() < MAX_PENDING_DOCUMENTS
            && self.pending_bytes < MAX_PENDING_BYTES
    }

    /// Behind this document the source is at `place`.
    pub(super) fn add(&mut self, place: P, document: Document) {
        self.pending_bytes += document.bytes.len();
        self.waiting.push_back((self.pending.push(place), document));
    }

    /// All that was added is finished.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.len() == 0
    }

    /// How many that were added are not taken as finished.
    pub(super) fn unfinished(&self) -> usize {
        self.pending.len()
    }

    /// Nothing can be sent before this time.
    pub(super) fn hold(&mut self, hold: &Hold) {
        let pause = self.pace.held(hold, self.chance());
        self.not_before = Instant::now() + pause;
        if self.complaint.as_deref() != Some(hold.reason()) {
            let (sink, reason) = (self.sink.name(), hold.reason());
            match hold {
                Hold::Operator(_) => tracing::error!(sink, reason, "export stands still until this is mended"),
                _ => tracing::warn!(sink, reason, "sink takes nothing now; it is tried again"),
            }
            self.complaint = Some(reason.to_owned());
        }
    }

    /// Why the sink takes nothing now, if so.
    pub(super) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    pub(super) fn is_held(&self) -> bool {
        Instant::now() < self.not_before
    }

    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }

    /// The place behind all that is finished in one piece, and what of it was set aside.
    pub(super) fn take_finished(&mut self) -> Option<(P, Vec<SetAside>)> {
        self.pending.take_finished()
    }

    /// Sends what can be sent, and waits for an answer or the end of a pause. Nothing is lost when it is dropped meanwhile.
    pub(super) async fn step(&mut self) {
        self.send();
        let (paused, has_more) = (self.is_held(), !self.again.is_empty() || !self.waiting.is_empty());
        let until = self.not_before;
        tokio::select! {
            Some(answer) = self.on_the_way.join_next() => match answer {
                Ok(answer) => self.answered(answer),
                // Only by a panic, whose request is lost to us: what follows would wait for it for ever.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            () = tokio::time::sleep_until(until), if paused && has_more => {}
            else => {}
        }
    }

    /// Waits for what is on its way, and sends nothing more.
    pub(super) async fn settle(&mut self) {
        while let Some(Ok(answer)) = self.on_the_way.join_next().await {
            self.answered(answer);
        }
    }

    fn send(&mut self) {
        while !self.is_held() && self.on_the_way.len() < self.pace.in_flight() {
            let Some(batch) = self.again.pop_front().or_else(|| self.next_batch()) else { return };
            let sink = self.sink.clone();
            self.on_the_way.spawn(async move {
                let began = Instant::now();
                let parts: Vec<Bytes> = batch.iter().map(|(_, document)| document.bytes.clone()).collect();
                let verdict = sink.send(&parts).await;
                Answer { sent: batch, verdict, took: began.elapsed() }
            });
        }
    }

    fn next_batch(&mut self) -> Option<Vec<Numbered>> {
        let mut bytes = 0;
        let fits = |(_, document): &&Numbered| {
            bytes += document.bytes.len();
            bytes <= self.pace.bytes()
        };
        let most = self.waiting.iter().take(self.pace.documents()).take_while(fits).count().max(1);
        let batch: Vec<_> = self.waiting.drain(..most.min(self.waiting.len())).collect();
        (!batch.is_empty()).then_some(batch)
    }

    fn answered(&mut self, answer: Answer) {
        let Answer { sent, verdict, took } = answer;
        match verdict {
            Ok(verdicts) if verdicts.len() == sent.len() => self.judged(sent, verdicts, took),
            Ok(verdicts) => {
                let reason = format!("the answer tells of {} documents, not of {}", verdicts.len(), sent.len());
                self.send_again(sent, &Hold::Away(reason));
            }
            Err(Trouble::Again(hold)) => self.send_again(sent, &hold),
            Err(Trouble::TooLarge) => {
                self.pace.too_large(sent.iter().map(|(_, document)| document.bytes.len()).sum());
                self.divide(sent, "too large for the sink");
            }
            Err(Trouble::Refused(reason)) => self.divide(sent, &reason),
        }
    }

    fn judged(&mut self, sent: Vec<Numbered>, verdicts: Vec<Verdict>, took: Duration) {
        let documents = sent.len();
        let (mut again, mut worst) = (Vec::new(), None::<Hold>);
        for ((number, document), verdict) in sent.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Done => {
                    self.meters.written.inc();
                    self.finished(&document);
                    self.pending.done(number);
                }
                Verdict::Never(reason) => self.set_aside(number, document, reason),
                Verdict::Again(hold) => {
                    worst = Some(match worst {
                        Some(worst) => worst.or_worse(hold),
                        None => hold,
                    });
                    again.push((number, document));
                }
            }
        }
        match worst {
            Some(hold) => self.send_again(again, &hold),
            None => {
                self.pace.taken(documents, took);
                if self.complaint.take().is_some() {
                    tracing::info!(sink = self.sink.name(), "sink takes documents again");
                }
            }
        }
    }

    fn send_again(&mut self, batch: Vec<Numbered>, hold: &Hold) {
        self.meters.failed.inc_by(batch.len() as u64);
        self.again.push_back(batch);
        self.hold(hold);
    }

    /// Sends each half apart, until the one that is at fault is alone.
    fn divide(&mut self, mut batch: Vec<Numbered>, reason: &str) {
        let behind = batch.split_off(batch.len().div_ceil(2));
        if behind.is_empty() {
            return batch
                .into_iter()
                .for_each(|(number, document)| self.set_aside(number, document, reason.to_owned()));
        }
        self.meters.failed.inc_by((batch.len() + behind.len()) as u64);
        self.again.extend([batch, behind]);
    }

    fn set_aside(&mut self, number: u64, document: Document, reason: String) {
        let sink = self.sink.name();
        tracing::warn!(sink, document = %document.key, reason, "sink would never take this document; it is set aside");
        self.meters.dead_letters.inc();
        self.finished(&document);
        let Document { key, revision, .. } = document;
        self.pending.set_aside(number, SetAside { key, revision, reason });
    }

    fn finished(&mut self, document: &Document) {
        self.pending_bytes -= document.bytes.len();
    }

    /// Something between 0 and 1 that differs from instance to instance.
    fn chance(&self) -> f64 {
        f64::from(std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), self.pending.len()) as u32)
            / f64::from(u32::MAX)
    }
}
