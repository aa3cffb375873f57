//! One stream of one sink: waits for the lease, then sends what the feed tells and moves the cursor behind what the sink has.

use std::time::Duration;

use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivery, SetAside};
use super::pace::Hold;
use super::{Export, Start};
use crate::persist::{Cursor, ExportCursor, ExportDeadLetter, FeedError, FeedKey, LeaseLost, PersistError, Stream};
use crate::telemetry::chain;
use tacho_core::domain::time::Timestamp;

/// How often the feed is asked where nothing was new, and the lease is looked at by who waits for it.
const LOOK: Duration = Duration::from_millis(500);
/// The holder of a lease shows at least so often that it lives.
const BEAT: Duration = Duration::from_secs(2);
/// Whose lease shows no life for so long, by the clock of who waits, has died: a few beats.
const LEASE: Duration = Duration::from_secs(6);
/// Records read at once.
const PAGE: usize = 2_000;
/// After a restore, what is read again begins so long before the last that was done: late spans amend no older trace.
const BEFORE_RESTORE: Duration = Duration::from_secs(24 * 3600);
/// For the answers to what is on its way when Tacho stops.
const LAST_ANSWERS: Duration = Duration::from_millis(1_500);

/// One stream of one sink.
pub(super) struct Follower {
    pub export: Export,
    pub stream: Stream,
    pub start: Start,
    pub stop: CancellationToken,
}

/// Why a follower no longer delivers.
enum Ended {
    Stopped,
    /// Another instance serves the sink.
    Lost,
}

/// Why no page was added.
enum Unread {
    Feed(FeedError),
    Sink(Hold),
}

impl Follower {
    pub(super) async fn run(self) {
        let mut seen: Option<(i64, Instant)> = None;
        while !self.stop.is_cancelled() {
            match self.look(&mut seen).await {
                Ok(Some(cursor)) => {
                    let sink = self.export.sink.name();
                    tracing::info!(sink, stream = %self.stream, "this instance exports");
                    if let Ended::Lost = self.deliver(cursor).await {
                        tracing::warn!(sink, stream = %self.stream, "another instance exports now");
                    }
                    seen = None;
                }
                Ok(None) => {}
                Err(error) if error.passes() => tracing::debug!(%error, "cursor of the sink cannot be read"),
                Err(error) => tracing::error!(error = chain(&error), "cursor of the sink cannot be read"),
            }
            self.pause(LOOK).await;
        }
    }

    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// The cursor, if the lease is ours now.
    async fn look(&self, seen: &mut Option<(i64, Instant)>) -> Result<Option<ExportCursor>, PersistError> {
        let (store, sink) = (&self.export.store, self.export.sink.name());
        let Some(cursor) = store.export_cursor(sink, self.stream).await? else {
            self.begin().await?;
            return Ok(None);
        };
        let is_free = cursor.holder.is_none();
        let now = Instant::now();
        let since = match seen {
            Some((beat, since)) if *beat == cursor.beat => *since,
            _ => {
                *seen = Some((cursor.beat, now));
                now
            }
        };
        if !is_free && now.duration_since(since) < LEASE {
            return Ok(None);
        }
        Ok(store.take_export(sink, self.stream, cursor.beat).await?.then_some(cursor))
    }

    async fn begin(&self) -> Result<(), PersistError> {
        let Export { store, sink, now, .. } = &self.export;
        let (cursor, since) = match self.start {
            Start::Now => (store.head().await?, None),
            Start::All => (store.feed_start().await?, None),
            Start::Since(time) if self.stream == Stream::Usage => (store.feed_since(time).await?, Some(time)),
            Start::Since(time) => (store.feed_start().await?, Some(time)),
        };
        store.begin_export(sink.name(), self.stream, &cursor, since, now()).await
    }

    /// Until told to stop, or until another instance has the lease.
    async fn deliver(&self, began: ExportCursor) -> Ended {
        let ExportCursor { mut cursor, since, .. } = began;
        let mut delivery = Delivery::new(self.export.sink.clone(), self.export.meters.clone());
        let (mut beat, mut look) = (tokio::time::interval(BEAT), Instant::now());
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if delivery.has_room() && !delivery.is_held() && Instant::now() >= look {
                // A sink that does not answer may be asked for longer than the lease lasts.
                let read = self.read(&mut cursor, since, &mut delivery);
                let Ok(read) = self.beating(&mut beat, read).await else { return Ended::Lost };
                match read {
                    Ok(is_last) => look = Instant::now() + if is_last { LOOK } else { Duration::ZERO },
                    Err(hold) => delivery.hold(&hold),
                }
            }
            let (is_idle, next) = (delivery.is_idle(), look.max(delivery.not_before()));
            tokio::select! {
                () = delivery.step(), if !is_idle => {}
                () = tokio::time::sleep_until(next), if is_idle => {}
                _ = beat.tick() => if let Ok(Err(LeaseLost)) = self.keep().await {
                    return Ended::Lost;
                },
                () = self.stop.cancelled() => return self.stop(delivery).await,
            }
            if let Err(LeaseLost) = self.acknowledge(&mut delivery).await {
                return Ended::Lost;
            }
        }
    }

    /// Does this, and shows meanwhile that this instance lives.
    async fn beating<T>(&self, beat: &mut Interval, work: impl Future<Output = T>) -> Result<T, LeaseLost> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                _ = beat.tick() => if let Ok(Err(lost)) = self.keep().await {
                    return Err(lost);
                },
            }
        }
    }

    /// Adds a page; tells whether there is no more now.
    async fn read(
        &self,
        cursor: &mut Cursor,
        since: Option<Timestamp>,
        delivery: &mut Delivery<Cursor>,
    ) -> Result<bool, Hold> {
        match self.page(cursor, since, delivery).await {
            Err(Unread::Feed(FeedError::Epoch { database, .. })) => {
                *cursor = self.rewind(database).await.map_err(|error| away(&error))?;
                Ok(false)
            }
            Err(Unread::Feed(error)) => Err(away(&error)),
            Err(Unread::Sink(hold)) => Err(hold),
            Ok(is_last) => Ok(is_last),
        }
    }

    async fn page(
        &self,
        cursor: &mut Cursor,
        since: Option<Timestamp>,
        delivery: &mut Delivery<Cursor>,
    ) -> Result<bool, Unread> {
        let Export { store, sink, .. } = &self.export;
        let is_last = match self.stream {
            Stream::Usage => {
                let page = store.changes(Some(cursor), since, PAGE).await.map_err(Unread::Feed)?;
                if !page.rows.is_empty() {
                    sink.prepare(self.stream).await.map_err(Unread::Sink)?;
                }
                for change in &page.rows {
                    delivery.add(super::behind(page.epoch, change), sink.record(change, page.epoch));
                }
                *cursor = page.next;
                page.is_last
            }
            Stream::Limits => {
                let page = store.limit_events(Some(cursor), since, PAGE).await.map_err(Unread::Feed)?;
                if !page.rows.is_empty() {
                    sink.prepare(self.stream).await.map_err(Unread::Sink)?;
                }
                for event in &page.rows {
                    let key = FeedKey::Event(event.id);
                    delivery.add(Cursor::behind(page.epoch, event.change_seq, key), sink.event(event));
                }
                *cursor = page.next;
                page.is_last
            }
        };
        Ok(is_last)
    }

    /// The database is another than the cursor was made in. When this one's own cursor moved last tells how old it is: what started a
    /// while before that or later is read again.
    async fn rewind(&self, epoch: i64) -> Result<Cursor, PersistError> {
        let Export { store, sink, .. } = &self.export;
        let moved = store.export_cursor(sink.name(), self.stream).await?.map(|cursor| cursor.updated_at);
        let since = moved.unwrap_or_default().minus(BEFORE_RESTORE);
        let cursor = store.feed_since(since).await?;
        tracing::warn!(
            sink = sink.name(), stream = %self.stream, epoch, %since,
            "database was restored or has failed over; what started since then is exported again"
        );
        Ok(cursor)
    }

    async fn keep(&self) -> Result<Result<(), LeaseLost>, PersistError> {
        self.export.store.keep_export(self.export.sink.name(), self.stream).await
    }

    /// Moves the cursor behind what is finished. While the database does not answer, it is tried again and nothing goes on.
    async fn acknowledge(&self, delivery: &mut Delivery<Cursor>) -> Result<(), LeaseLost> {
        let Some((cursor, aside)) = delivery.take_finished() else { return Ok(()) };
        let Export { store, sink, now, .. } = &self.export;
        let dead = letters(sink.name(), self.stream, aside, now());
        loop {
            match store.acknowledge_export(sink.name(), self.stream, &cursor, &dead, now()).await {
                Ok(held) => return held,
                Err(error) => tracing::debug!(%error, "cursor of the sink cannot be moved"),
            }
            if self.stop.is_cancelled() {
                // What is not acknowledged is sent again.
                return Ok(());
            }
            self.pause(LOOK).await;
        }
    }

    async fn stop(&self, mut delivery: Delivery<Cursor>) -> Ended {
        if tokio::time::timeout(LAST_ANSWERS, delivery.settle()).await.is_err() {
            tracing::debug!("sink has not answered; what was on its way is sent again");
        }
        drop(self.acknowledge(&mut delivery).await);
        if let Err(error) = self.export.store.release_export(self.export.sink.name(), self.stream).await {
            tracing::debug!(%error, "lease of the sink not given back");
        }
        Ended::Stopped
    }
}

pub(super) fn letters(sink: &str, stream: Stream, aside: Vec<SetAside>, now: Timestamp) -> Vec<ExportDeadLetter> {
    let letter = |SetAside { key, revision, reason }| ExportDeadLetter {
        sink: sink.to_owned(),
        stream,
        key,
        revision,
        reason,
        created_at: now,
    };
    aside.into_iter().map(letter).collect()
}

fn away(error: &dyn std::error::Error) -> Hold {
    Hold::Away(format!("the feed cannot be read: {}", chain(error)))
}
