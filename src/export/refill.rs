//! Sends again what a sink was sent long ago: records of a time, or documents that were set aside. The cursor of the feed does not move.

use super::Export;
use super::delivery::Delivery;
use super::follower::letters;
use super::pace::Hold;
use crate::persist::{ExportDeadLetter, FeedKey, PersistError, Span, Stream};
use tacho_core::domain::call::Key;
use tacho_core::domain::time::Timestamp;

/// Records read at once.
const PAGE: usize = 2_000;
/// Dead letters tried at once.
const LETTERS: u32 = 500;

#[derive(Debug, thiserror::Error)]
pub enum NotSent {
    #[error("records cannot be read")]
    Persist(#[from] PersistError),
    #[error("the sink takes nothing now: {0}")]
    Sink(String),
}

/// All records of a time, on their way to a sink.
pub struct Refill {
    export: Export,
    span: Span,
    after: Option<Key>,
    read_all: bool,
    added: u64,
    delivery: Delivery<Key>,
    done: Refilled,
}

/// What was sent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refilled {
    /// Documents that the sink has, or that were set aside.
    pub finished: u64,
    pub set_aside: u64,
    /// All that started before is finished.
    pub until: Option<Timestamp>,
}

impl Refill {
    pub fn new(export: Export, span: Span) -> Self {
        let delivery = Delivery::new(export.sink.clone(), export.meters.clone());
        Self { export, span, after: None, read_all: false, added: 0, delivery, done: Refilled::default() }
    }

    /// Sends some more; `None` when all is finished. Dropped meanwhile, it can be begun anew from `until`.
    pub async fn step(&mut self) -> Result<Option<Refilled>, NotSent> {
        if self.read_all && self.delivery.is_idle() {
            return Ok(None);
        }
        if self.delivery.has_room() && !self.read_all {
            self.read().await?;
        }
        if !self.delivery.is_idle() {
            self.delivery.step().await;
        }
        if let Some((key, aside)) = self.delivery.take_finished() {
            let dead = letters(self.export.sink.name(), Stream::Usage, aside, (self.export.now)());
            self.export.store.put_export_dead_letters(&dead).await?;
            self.done.finished = self.added - self.delivery.unfinished() as u64;
            self.done.set_aside += dead.len() as u64;
            self.done.until = Some(key.started_at);
        }
        Ok(Some(self.done))
    }

    /// Why the sink takes nothing now, if so. It is tried again.
    pub fn complaint(&self) -> Option<&str> {
        self.delivery.complaint()
    }

    async fn read(&mut self) -> Result<(), NotSent> {
        self.export.sink.prepare(Stream::Usage).await.map_err(|hold| NotSent::from(&hold))?;
        let (states, epoch) = self.export.store.states_between(self.span, self.after.as_ref(), PAGE).await?;
        self.read_all = states.is_empty();
        self.added += states.len() as u64;
        for state in &states {
            self.delivery.add(state.key, self.export.sink.record(state, epoch));
        }
        self.after = states.last().map(|state| state.key).or(self.after);
        Ok(())
    }
}

impl From<&Hold> for NotSent {
    fn from(hold: &Hold) -> Self {
        Self::Sink(hold.reason().to_owned())
    }
}

/// Sends once more what was set aside of this sink, as it is now. What is refused again stays. Tells how many went and how many
/// stay.
pub async fn retry(export: &Export) -> Result<(u64, u64), NotSent> {
    let (mut went, mut stay, mut after) = (0, 0, None);
    loop {
        let some = export.store.export_dead_letters(Some(export.sink.name()), after.as_ref(), LETTERS).await?;
        let Some(last) = some.last().cloned() else { return Ok((went, stay)) };
        let refused = send_letters(export, &some).await?;
        for letter in &some {
            if !refused.contains(&letter.key) {
                export.store.drop_export_dead_letter(letter).await?;
                went += 1;
            }
        }
        stay += refused.len() as u64;
        after = Some(last);
    }
}

/// Those that are refused again.
async fn send_letters(export: &Export, some: &[ExportDeadLetter]) -> Result<Vec<FeedKey>, NotSent> {
    let mut delivery = Delivery::<()>::new(export.sink.clone(), export.meters.clone());
    let keys: Vec<Key> = some.iter().filter_map(|letter| letter.key.record()).collect();
    if !keys.is_empty() {
        export.sink.prepare(Stream::Usage).await.map_err(|hold| NotSent::from(&hold))?;
        let (states, epoch) = export.store.states_of(&keys).await?;
        states.iter().for_each(|state| delivery.add((), export.sink.record(state, epoch)));
    }
    let ids: Vec<i64> = some.iter().filter_map(|letter| letter.key.event()).collect();
    if !ids.is_empty() {
        export.sink.prepare(Stream::Limits).await.map_err(|hold| NotSent::from(&hold))?;
        let events = export.store.limit_events_of(&ids).await?;
        events.iter().for_each(|event| delivery.add((), export.sink.event(event)));
    }
    let mut dead = Vec::new();
    while !delivery.is_idle() {
        delivery.step().await;
        // Somebody waits for it, and can try again.
        if let Some(reason) = delivery.complaint() {
            return Err(NotSent::Sink(reason.to_owned()));
        }
        if let Some(((), aside)) = delivery.take_finished() {
            for letter in aside {
                let stream = if letter.key.record().is_some() { Stream::Usage } else { Stream::Limits };
                dead.extend(letters(export.sink.name(), stream, vec![letter], (export.now)()));
            }
        }
    }
    export.store.put_export_dead_letters(&dead).await?;
    Ok(dead.into_iter().map(|letter| letter.key).collect())
}
