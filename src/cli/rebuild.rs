//! `tacho rebuild`: sets accounts and counters of quotas that differ from their records to the sum of these, and says which.

use clap::Args;

use super::actor::act;
use super::report::grouped;
use super::verify::{account, plain};
use crate::config::Config;
use crate::persist::{Mended, MendedCounter, PersistError, Store};
use tacho_core::domain::time::Timestamp;

#[derive(Args)]
pub(super) struct RebuildArguments {
    /// Only say what would be changed.
    #[arg(long)]
    dry_run: bool,
}

/// What was changed, a line for each account.
pub(super) async fn rebuild(
    config: &Config,
    arguments: &RebuildArguments,
    now: Timestamp,
) -> Result<String, PersistError> {
    let store = Store::open_existing(config.database(), "rebuild").await?.with_plans(config.plans.clone());
    let mended = mend(&store, arguments, now).await;
    store.close().await;
    Ok(as_text(&mended?, arguments.dry_run))
}

#[derive(Default)]
struct Found {
    accounts: Vec<Mended>,
    counters: Vec<MendedCounter>,
    charges: usize,
}

async fn mend(store: &Store, arguments: &RebuildArguments, now: Timestamp) -> Result<Found, PersistError> {
    let rebuild = store.rebuild(now).await?;
    let (accounts, counters) = (rebuild.mended().to_vec(), rebuild.counters().to_vec());
    let mended = Found { accounts, counters, charges: rebuild.charges() };
    if !arguments.dry_run {
        rebuild.commit(&act(None, now)).await?;
    }
    Ok(mended)
}

fn as_text(found: &Found, dry_run: bool) -> String {
    let Found { accounts, counters, charges } = found;
    let mut lines: Vec<String> = accounts.iter().map(line).chain(counters.iter().map(counter_line)).collect();
    let parts =
        [("accounts", accounts.len()), ("counters of quotas", counters.len()), ("charges of records", *charges)];
    let mended = parts.into_iter().filter(|(_, many)| *many > 0);
    let mended: Vec<String> =
        mended.map(|(what, many)| format!("{what}: {}", grouped(i64::try_from(many).unwrap_or(i64::MAX)))).collect();
    lines.push(match (&mended[..], dry_run) {
        ([], _) => "every account is the sum of its records; nothing was changed".to_owned(),
        (mended, true) => format!("to mend: {}; nothing was changed", mended.join(", ")),
        (mended, false) => format!("mended: {}", mended.join(", ")),
    });
    lines.join("\n")
}

fn counter_line(mended: &MendedCounter) -> String {
    let before = mended.before.map_or_else(|| "nothing".to_owned(), grouped);
    format!("limit {} {}: {before} -> {}", plain(&mended.limit), plain(&mended.subject), grouped(mended.after))
}

fn line(mended: &Mended) -> String {
    let (before, after) = (&mended.before, &mended.after);
    let counters = [
        ("free_requests", before.free_requests, after.free_requests),
        ("requests", before.requests, after.requests),
        ("tokens", before.tokens, after.tokens),
        ("cost_nanousd", before.cost_nanousd, after.cost_nanousd),
    ];
    let changed = counters.into_iter().filter(|(_, before, after)| before != after);
    let changed: Vec<String> =
        changed.map(|(name, before, after)| format!("{name} {} -> {}", grouped(before), grouped(after))).collect();
    let created = if mended.created { "created, " } else { "" };
    format!("{}: {created}{}", account(&mended.account.tenant, &mended.account.user), changed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tacho_core::domain::account::{AccountId, Used};

    #[test]
    fn each_account_has_a_line_that_names_what_changed() {
        let id = |user: &str| AccountId { tenant: "acme".into(), user: user.into() };
        let (before, after) = (Used::default(), Used { free_requests: 0, requests: 1, tokens: 2000, cost_nanousd: 3 });
        let mended = [
            Mended { account: id("ann"), created: false, before: Used { tokens: 1, ..after }, after },
            Mended { account: id("bob"), created: true, before, after },
        ];
        let lines = "acme/ann: tokens 1 -> 2_000\n\
                     acme/bob: created, requests 0 -> 1, tokens 0 -> 2_000, cost_nanousd 0 -> 3\n";
        let found = Found { accounts: mended.to_vec(), ..Found::default() };
        assert_eq!(as_text(&found, false), format!("{lines}mended: accounts: 2"));
        assert_eq!(as_text(&found, true), format!("{lines}to mend: accounts: 2; nothing was changed"));
        let nothing = "every account is the sum of its records; nothing was changed";
        assert_eq!(as_text(&Found::default(), true), nothing);
        let counter = |before| MendedCounter { limit: "t".into(), subject: "{}".into(), before, after: 600 };
        let counters = vec![counter(Some(3600)), counter(None)];
        assert_eq!(
            as_text(&Found { counters, charges: 1, ..Found::default() }, false),
            "limit t {}: 3_600 -> 600\nlimit t {}: nothing -> 600\nmended: counters of quotas: 2, charges of records: 1"
        );
    }
}
