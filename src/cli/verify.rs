//! `tacho verify`: whether accounts are the sum of their records, records the sum of their calls and counters of quotas what
//! records are charged; what is not, line by line.

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use super::report::grouped;
use crate::config::Config;
use crate::persist::{Checked, Difference, PersistError, RowKey, Store, Verification};

/// Differences that are listed; a store that differs in more is not mended by reading on.
const MOST_LINES: u32 = 1_000;

#[derive(Args)]
pub(super) struct VerifyArguments {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum VerifyError {
    #[error("database")]
    Database(#[from] PersistError),
    #[error("differences could not be written")]
    Json(#[from] serde_json::Error),
}

/// What was found as text, and whether all is right.
pub(super) struct Verdict {
    pub text: String,
    pub clean: bool,
}

pub(super) async fn verify(config: &Config, arguments: &VerifyArguments) -> Result<Verdict, VerifyError> {
    let store = Store::open_existing(config.database(), "verify").await?;
    let found = store.verify(MOST_LINES).await;
    store.close().await;
    let found = found?;
    let text = if arguments.json { serde_json::to_string_pretty(&found)? } else { as_text(&found) };
    Ok(Verdict { text, clean: found.is_clean() })
}

/// A table of what differs, or one line where nothing does.
fn as_text(found: &Verification) -> String {
    let Checked { accounts, records, calls, counters } = found.checked;
    let [accounts, records, calls, counters] = [accounts, records, calls, counters].map(grouped);
    let checked =
        format!("checked {accounts} accounts, {records} records, {calls} calls, {counters} counters of quotas");
    if found.is_clean() {
        return format!("all is right; {checked}");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["kind", "key", "column", "stored", "computed"]);
    table.add_rows(found.differences.iter().map(cells));
    table.column_iter_mut().skip(3).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let more = if found.not_listed > 0 { format!("\nand {} more", grouped(found.not_listed)) } else { String::new() };
    let listed = i64::try_from(found.differences.len()).unwrap_or(i64::MAX);
    let all = grouped(listed.saturating_add(found.not_listed));
    format!("{}{more}\ndifferences: {all}; {checked}", table.trim_fmt())
}

fn cells(difference: &Difference) -> [String; 5] {
    let number = |number: Option<i64>| number.map_or_else(|| "null".to_owned(), grouped);
    let key = match &difference.key {
        RowKey::Account { tenant, user_id } => account(tenant, user_id),
        RowKey::Span { started_at, trace_id, span_id } => format!("{started_at} {trace_id} {span_id}"),
        RowKey::Limit { limit, subject, period_started_at, key } => {
            let since = period_started_at.as_deref().unwrap_or(key);
            format!("{} {} {since}", plain(limit), plain(subject))
        }
    };
    let (stored, computed) = (number(difference.stored), number(difference.computed));
    [difference.kind.label().to_owned(), key, difference.column.clone(), stored, computed]
}

/// How an account is named to people.
pub(super) fn account(tenant: &str, user: &str) -> String {
    format!("{}/{}", plain(tenant), plain(user))
}

/// Others choose these names: none may break a line or steer a terminal.
pub(super) fn plain(name: &str) -> String {
    let turns =
        |letter: char| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |letter: char| {
        if letter.is_control() || turns(letter) { letter.escape_default().to_string() } else { letter.into() }
    };
    name.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::What;

    fn found(differences: Vec<Difference>, not_listed: i64) -> Verification {
        Verification { checked: Checked { accounts: 2, records: 3000, calls: 4, counters: 5 }, differences, not_listed }
    }

    fn two() -> Vec<Difference> {
        let account = RowKey::Account { tenant: "acme".into(), user_id: "a\nb\u{1b}".into() };
        let span = RowKey::Span {
            started_at: "2026-05-19T10:00:00.000000Z".into(),
            trace_id: "0a".into(),
            span_id: "0b".into(),
        };
        let cost =
            |kind, key, column: &str, stored| Difference { kind, key, column: column.into(), stored, computed: None };
        vec![
            Difference { computed: Some(0), ..cost(What::MissingAccount, account, "accounts", Some(-1234)) },
            cost(What::Record, span, "cost_nanousd", None),
        ]
    }

    #[test]
    fn what_is_right_is_said_with_how_much_was_looked_at() {
        assert_eq!(
            as_text(&found(vec![], 0)),
            "all is right; checked 2 accounts, 3_000 records, 4 calls, 5 counters of quotas"
        );
    }

    #[test]
    fn each_difference_has_a_line_of_its_own() {
        expect_test::expect![[r"
             kind             key                                column        stored  computed
             missing account  acme/a\nb\u{1b}                    accounts      -1_234         0
             record           2026-05-19T10:00:00.000000Z 0a 0b  cost_nanousd    null      null
            and 7 more
            differences: 9; checked 2 accounts, 3_000 records, 4 calls, 5 counters of quotas"]]
        .assert_eq(&as_text(&found(two(), 7)));
    }

    #[test]
    fn json_names_the_parts_of_a_key() {
        let json = serde_json::to_value(found(two(), 7)).unwrap();
        assert_eq!(json["checked"]["records"], 3000);
        assert_eq!(json["not_listed"], 7);
        assert_eq!(json["differences"][0]["kind"], "missing_account");
        assert_eq!(json["differences"][0]["key"], serde_json::json!({"tenant": "acme", "user_id": "a\nb\u{1b}"}));
        assert_eq!(json["differences"][1]["key"]["trace_id"], "0a");
        assert_eq!(json["differences"][1]["stored"], serde_json::Value::Null);
    }
}
