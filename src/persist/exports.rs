//! How far each sink has come, who serves it, and what it would never take.

use std::fmt;
use std::str::FromStr;

use super::PersistError;
use super::cursor::{Cursor, FeedKey};
use super::store::Store;
use super::value::{Kind, Row, Value};
use tacho_core::domain::time::Timestamp;

/// What a sink is told of: records, or refusals and thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    Usage,
    Limits,
}

/// How far a sink has come in a stream.
#[derive(Clone, Debug)]
pub struct ExportCursor {
    pub sink: String,
    pub stream: Stream,
    pub cursor: Cursor,
    /// What started earlier is left out.
    pub since: Option<Timestamp>,
    /// The instance that exports.
    pub holder: Option<String>,
    /// The holder raises it while it lives.
    pub beat: i64,
    /// When the cursor moved last.
    pub updated_at: Timestamp,
}

/// A document that a sink would never take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportDeadLetter {
    pub sink: String,
    pub stream: Stream,
    /// Names the record or the event.
    pub key: FeedKey,
    /// That was refused.
    pub revision: i64,
    /// What the sink said.
    pub reason: String,
    pub created_at: Timestamp,
}

/// Another instance serves the sink now, or the database is another.
#[derive(Debug, PartialEq, Eq)]
pub struct LeaseLost;

const CURSOR_COLUMNS: &str = "sink, stream, position, since, holder, beat, updated_at";

impl Store {
    /// All sinks that ever began, by name.
    pub async fn export_cursors(&self) -> Result<Vec<ExportCursor>, PersistError> {
        let sql = format!("SELECT {CURSOR_COLUMNS} FROM export_cursors ORDER BY sink, stream DESC");
        Ok(self.fetch(&sql, &[]).await?.iter().map(to_cursor).collect::<Result<_, _>>()?)
    }

    pub async fn export_cursor(&self, sink: &str, stream: Stream) -> Result<Option<ExportCursor>, PersistError> {
        let sql = format!("SELECT {CURSOR_COLUMNS} FROM export_cursors WHERE sink = $1 AND stream = $2");
        let found = self.fetch(&sql, &name(sink, stream)).await?;
        Ok(found.first().map(to_cursor).transpose()?)
    }

    /// Where a new sink begins. One that has begun already stays where it is.
    pub async fn begin_export(
        &self,
        sink: &str,
        stream: Stream,
        cursor: &Cursor,
        since: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), PersistError> {
        const KINDS: &[Kind] = &[Kind::Text, Kind::Text, Kind::Text, Kind::Time, Kind::Int, Kind::Time];
        let sql = "INSERT INTO export_cursors (sink, stream, position, since, beat, updated_at) {rows} \
                   ON CONFLICT (sink, stream) DO NOTHING";
        let mut values = name(sink, stream);
        let since = since.map_or(Value::Null, Value::time);
        values.extend([Value::Text(cursor.to_string()), since, Value::Int(0), Value::time(now)]);
        let mut tx = self.writing().await?;
        tx.bulk(sql, KINDS, vec![values]).await?;
        tx.commit().await
    }

    /// Takes the lease of a sink whose beat is still this one: whoever held it has not raised it since it was read.
    pub async fn take_export(&self, sink: &str, stream: Stream, beat: i64) -> Result<bool, PersistError> {
        let sql = "UPDATE export_cursors SET holder = $3, beat = beat + 1 WHERE sink = $1 AND stream = $2 AND beat = $4 \
                   RETURNING beat";
        let mut values = name(sink, stream);
        values.extend([Value::text(&self.own().instance), Value::Int(beat)]);
        Ok(!self.write(sql, &values).await?.is_empty())
    }

    /// Says that this instance still serves the sink.
    pub async fn keep_export(&self, sink: &str, stream: Stream) -> Result<Result<(), LeaseLost>, PersistError> {
        let sql = "UPDATE export_cursors SET beat = beat + 1 WHERE sink = $1 AND stream = $2 AND holder = $3 \
                   RETURNING beat";
        let mut values = name(sink, stream);
        values.push(Value::text(&self.own().instance));
        Ok(lease(&self.write(sql, &values).await?))
    }

    /// Gives the lease back, so that another instance need not wait for its end.
    pub async fn release_export(&self, sink: &str, stream: Stream) -> Result<(), PersistError> {
        let sql =
            "UPDATE export_cursors SET holder = NULL, beat = beat + 1 WHERE sink = $1 AND stream = $2 AND holder = $3";
        let mut values = name(sink, stream);
        values.push(Value::text(&self.own().instance));
        self.write(sql, &values).await.map(drop)
    }

    /// Moves the cursor behind what is done, together with what of it was set aside. Only for the instance that has the lease, and only
    /// in the epoch of the cursor: a database that was restored meanwhile keeps the cursor that it had.
    pub async fn acknowledge_export(
        &self,
        sink: &str,
        stream: Stream,
        cursor: &Cursor,
        dead: &[ExportDeadLetter],
        now: Timestamp,
    ) -> Result<Result<(), LeaseLost>, PersistError> {
        let mut tx = self.writing().await?;
        let sql = format!(
            "UPDATE export_cursors SET position = $4, updated_at = $5, beat = beat + 1 WHERE sink = $1 AND stream = $2 \
             AND holder = $3 AND EXISTS (SELECT 1 FROM feed WHERE epoch = $6{}) RETURNING beat",
            tx.same_cluster(self.own())
        );
        let mut values = name(sink, stream);
        values.extend([Value::text(&self.own().instance), Value::Text(cursor.to_string()), Value::time(now)]);
        values.push(Value::Int(cursor.epoch()));
        let held = lease(&tx.fetch(&sql, &values).await?);
        if held.is_ok() {
            for letter in dead {
                tx.fetch(PUT_LETTER, &letter_values(letter)).await?;
            }
            tx.commit().await?;
        }
        Ok(held)
    }

    pub async fn put_export_dead_letters(&self, dead: &[ExportDeadLetter]) -> Result<(), PersistError> {
        let mut tx = self.writing().await?;
        for letter in dead {
            tx.fetch(PUT_LETTER, &letter_values(letter)).await?;
        }
        tx.commit().await
    }

    /// The next of them behind this one, of this sink or of all.
    pub async fn export_dead_letters(
        &self,
        sink: Option<&str>,
        after: Option<&ExportDeadLetter>,
        most: u32,
    ) -> Result<Vec<ExportDeadLetter>, PersistError> {
        let sql = format!(
            "SELECT {LETTER_COLUMNS} FROM export_dead_letters WHERE ($1 = '' OR sink = $1) \
             AND (sink, stream, document) > ($2, $3, $4) ORDER BY sink, stream, document LIMIT $5"
        );
        let (of, stream, key) = after.map_or(("", "", String::new()), |letter| {
            (letter.sink.as_str(), letter.stream.label(), letter.key.to_string())
        });
        let values = [
            Value::text(sink.unwrap_or_default()),
            Value::text(of),
            Value::text(stream),
            Value::Text(key),
            Value::Int(most.into()),
        ];
        Ok(self.fetch(&sql, &values).await?.iter().map(to_letter).collect::<Result<_, _>>()?)
    }

    pub async fn export_dead_letter(
        &self,
        sink: &str,
        key: &FeedKey,
    ) -> Result<Option<ExportDeadLetter>, PersistError> {
        let sql = format!("SELECT {LETTER_COLUMNS} FROM export_dead_letters WHERE sink = $1 AND document = $2");
        let found = self.fetch(&sql, &[Value::text(sink), Value::Text(key.to_string())]).await?;
        Ok(found.first().map(to_letter).transpose()?)
    }

    /// How many a sink has.
    pub async fn count_export_dead_letters(&self, sink: &str, stream: Stream) -> Result<u64, PersistError> {
        let sql = "SELECT COUNT(*) FROM export_dead_letters WHERE sink = $1 AND stream = $2";
        let found = self.fetch(sql, &name(sink, stream)).await?;
        Ok(found.first().map(|row| row.count(0)).transpose()?.unwrap_or_default())
    }

    /// The sink has taken it after all, or what it was about has gone.
    pub async fn drop_export_dead_letter(&self, letter: &ExportDeadLetter) -> Result<(), PersistError> {
        let sql = "DELETE FROM export_dead_letters WHERE sink = $1 AND stream = $2 AND document = $3";
        let mut values = name(&letter.sink, letter.stream);
        values.push(Value::Text(letter.key.to_string()));
        self.write(sql, &values).await.map(drop)
    }

    async fn write(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, PersistError> {
        let mut tx = self.writing().await?;
        let found = tx.fetch(sql, values).await?;
        tx.commit().await?;
        Ok(found)
    }
}

const LETTER_COLUMNS: &str = "sink, stream, document, revision, reason, created_at";
const PUT_LETTER: &str = "INSERT INTO export_dead_letters (sink, stream, document, revision, reason, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (sink, stream, document) DO UPDATE SET \
    revision = excluded.revision, reason = excluded.reason, created_at = excluded.created_at";

fn letter_values(letter: &ExportDeadLetter) -> Vec<Value> {
    let mut values = name(&letter.sink, letter.stream);
    values.extend([
        Value::Text(letter.key.to_string()),
        Value::Int(letter.revision),
        Value::text(&letter.reason),
        Value::time(letter.created_at),
    ]);
    values
}

fn name(sink: &str, stream: Stream) -> Vec<Value> {
    vec![Value::text(sink), Value::text(stream.label())]
}

fn lease(found: &[Row]) -> Result<(), LeaseLost> {
    if found.is_empty() { Err(LeaseLost) } else { Ok(()) }
}

fn to_cursor(row: &Row) -> Result<ExportCursor, sqlx::Error> {
    Ok(ExportCursor {
        sink: row.text(0)?,
        stream: parsed(&row.text(1)?)?,
        cursor: parsed(&row.text(2)?)?,
        since: row.maybe_time(3)?,
        holder: row.maybe_text(4)?,
        beat: row.int(5)?,
        updated_at: row.time(6)?,
    })
}

fn to_letter(row: &Row) -> Result<ExportDeadLetter, sqlx::Error> {
    Ok(ExportDeadLetter {
        sink: row.text(0)?,
        stream: parsed(&row.text(1)?)?,
        key: parsed(&row.text(2)?)?,
        revision: row.int(3)?,
        reason: row.text(4)?,
        created_at: row.time(5)?,
    })
}

/// What we wrote ourselves; anything else is a fault of the database.
fn parsed<T: FromStr>(text: &str) -> Result<T, sqlx::Error> {
    text.parse().map_err(|_| sqlx::Error::Decode(format!("`{text}` is not what Tacho writes there").into()))
}

impl Stream {
    pub const ALL: [Self; 2] = [Self::Usage, Self::Limits];

    pub fn label(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Limits => "limits",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl FromStr for Stream {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|stream| stream.label() == text).ok_or(())
    }
}
