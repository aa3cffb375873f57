//! The few kinds of values that the tables hold, the same in both databases, and the rows that come back.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteRow, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, Postgres, Row as _, Sqlite, Type};

use tacho_core::domain::time::Timestamp;

/// Postgres counts from the year 2000.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Real,
    Flag,
    Time,
    Bytes,
}

impl Kind {
    /// The Postgres type of an array of such values.
    pub(super) fn array(self) -> &'static str {
        match self {
            Self::Text => "text[]",
            Self::Int => "bigint[]",
            Self::Real => "double precision[]",
            Self::Flag => "boolean[]",
            Self::Time => "timestamptz[]",
            Self::Bytes => "bytea[]",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Text(String),
    Int(i64),
    Real(f64),
    Flag(bool),
    Time(Timestamp),
    Bytes(Vec<u8>),
}

impl Value {
    /// Without NUL characters, which Postgres takes in no text.
    pub(super) fn text(text: &str) -> Self {
        Self::Text(if text.contains('\0') { text.replace('\0', "") } else { text.to_owned() })
    }

    pub(super) fn optional(text: Option<&str>) -> Self {
        text.map_or(Self::Null, Self::text)
    }

    /// Saturates.
    pub(super) fn count(count: u64) -> Self {
        Self::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// As the databases keep it: whole microseconds, and no later than they can.
    pub(super) fn time(time: Timestamp) -> Self {
        Self::Time(time.min(Timestamp::LATEST).truncated())
    }
}

/// A time as it is stored: RFC 3339 text in SQLite, `timestamptz` in Postgres.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored(pub Timestamp);

impl Type<Sqlite> for Stored {
    fn type_info() -> SqliteTypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for Stored {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        <String as Encode<'_, Sqlite>>::encode(self.0.to_string(), buffer)
    }
}

impl Decode<'_, Sqlite> for Stored {
    fn decode(value: SqliteValueRef<'_>) -> Result<Self, BoxDynError> {
        let text = <&str as Decode<Sqlite>>::decode(value)?;
        Timestamp::parse(text).map(Self).ok_or_else(|| format!("`{text}` is no time").into())
    }
}

impl Type<Postgres> for Stored {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl PgHasArrayType for Stored {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("_timestamptz")
    }
}

impl Encode<'_, Postgres> for Stored {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<'_, Postgres>>::encode(self.0.to_micros() - POSTGRES_EPOCH_MICROS, buffer)
    }
}

impl Decode<'_, Postgres> for Stored {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() != PgValueFormat::Binary {
            return Err("times are read in binary form only".into());
        }
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        micros
            .checked_add(POSTGRES_EPOCH_MICROS)
            .and_then(Timestamp::from_micros)
            .map(Self)
            .ok_or_else(|| "time before 1970".into())
    }
}

/// A row that came back; columns by their place.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

type Got<T> = Result<T, sqlx::Error>;

impl Row {
    /// How many columns it has.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Sqlite(row) => row.len(),
            Self::Postgres(row) => row.len(),
        }
    }

    pub(super) fn text(&self, column: usize) -> Got<String> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(super) fn maybe_text(&self, column: usize) -> Got<Option<String>> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(super) fn int(&self, column: usize) -> Got<i64> {
        self.maybe_int(column).map(Option::unwrap_or_default)
    }

    pub(super) fn maybe_int(&self, column: usize) -> Got<Option<i64>> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    /// Zero where a count that cannot be negative is.
    pub(super) fn count(&self, column: usize) -> Got<u64> {
        self.int(column).map(|count| u64::try_from(count).unwrap_or(0))
    }

    pub(super) fn maybe_real(&self, column: usize) -> Got<Option<f64>> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(super) fn real(&self, column: usize) -> Got<f64> {
        self.maybe_real(column).map(Option::unwrap_or_default)
    }

    pub(super) fn flag(&self, column: usize) -> Got<bool> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub(super) fn time(&self, column: usize) -> Got<Timestamp> {
        let stored: Stored = match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        };
        Ok(stored.0)
    }

    pub(super) fn maybe_time(&self, column: usize) -> Got<Option<Timestamp>> {
        let stored: Option<Stored> = match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        };
        Ok(stored.map(|stored| stored.0))
    }

    pub(super) fn bytes(&self, column: usize) -> Got<Vec<u8>> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
}
