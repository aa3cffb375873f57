//! Sums that never fail: a sum of many great numbers stops at the greatest that a column can hold, in both databases.
//! SQLite would raise an error instead, Postgres one when its wider number is cast back, and then nobody had a report.

/// Adds up a whole number over rows; NULL where there is none. The upper and the lower half of each number are added for
/// themselves, so that nothing overflows in less than two thousand million rows.
pub(super) fn sum(of: &str) -> String {
    let lower = format!("CAST(SUM(CAST({of} AS BIGINT) & 4294967295) AS BIGINT)");
    let upper = format!("(CAST(SUM(CAST({of} AS BIGINT) >> 32) AS BIGINT) + ({lower} >> 32))");
    format!(
        "CASE WHEN {upper} > 2147483647 THEN 9223372036854775807 WHEN {upper} < -2147483648 THEN \
         -9223372036854775807 - 1 ELSE {upper} * 4294967296 + ({lower} & 4294967295) END"
    )
}

/// As `sum`, and nothing is 0.
pub(super) fn sum_or_zero(of: &str) -> String {
    format!("COALESCE({}, 0)", sum(of))
}

/// One column and another, as `sum` has them. Neither is NULL.
pub(super) fn plus(one: &str, other: &str) -> String {
    format!(
        "CASE WHEN {one} > 0 AND {other} > 9223372036854775807 - {one} THEN 9223372036854775807 \
         WHEN {one} < 0 AND {other} < -9223372036854775807 - 1 - {one} THEN -9223372036854775807 - 1 \
         ELSE {one} + {other} END"
    )
}
