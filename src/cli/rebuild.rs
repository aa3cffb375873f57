//! `tacho rebuild`: sets accounts that differ from their records to the sum of these, and says which.

use clap::Args;

use super::actor::act;
use super::report::grouped;
use super::verify::account;
use crate::config::Config;
use crate::persist::{Mended, PersistError, Store};
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

async fn mend(store: &Store, arguments: &RebuildArguments, now: Timestamp) -> Result<Vec<Mended>, PersistError> {
    let rebuild = store.rebuild(now).await?;
    let mended = rebuild.mended().to_vec();
    if !arguments.dry_run {
        rebuild.commit(&act(None, now)).await?;
    }
    Ok(mended)
}

fn as_text(mended: &[Mended], dry_run: bool) -> String {
    let mut lines: Vec<String> = mended.iter().map(line).collect();
    let how_many = grouped(i64::try_from(mended.len()).unwrap_or(i64::MAX));
    lines.push(match (mended, dry_run) {
        ([], _) => "every account is the sum of its records; nothing was changed".to_owned(),
        (_, true) => format!("accounts to mend: {how_many}; nothing was changed"),
        (_, false) => format!("accounts mended: {how_many}"),
    });
    lines.join("\n")
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
        assert_eq!(as_text(&mended, false), format!("{lines}accounts mended: 2"));
        assert_eq!(as_text(&mended, true), format!("{lines}accounts to mend: 2; nothing was changed"));
        assert_eq!(as_text(&[], true), "every account is the sum of its records; nothing was changed");
    }
}
