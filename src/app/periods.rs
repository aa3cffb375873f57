//! Periods of accounts end when their time has come, whether or not anybody comes.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{AppError, now};
use crate::persist::{PersistError, Store};

/// One look into an index where nothing has ended.
const EVERY: Duration = Duration::from_secs(10);

/// At the start and from time to time, until `no_more`. What fails is done at the next look.
pub(super) async fn keep(store: Store, no_more: CancellationToken) -> Result<(), AppError> {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut adopted = false;
    loop {
        let look = async {
            tick.tick().await;
            look(&store, &mut adopted).await
        };
        tokio::select! {
            looked = look => if let Err(error) = looked {
                tracing::debug!(%error, "periods that are over not ended");
            },
            () = no_more.cancelled() => return Ok(()),
        }
    }
}

async fn look(store: &Store, adopted: &mut bool) -> Result<(), PersistError> {
    if !*adopted {
        let accounts = store.adopt_plans(now()).await?;
        if accounts > 0 {
            tracing::info!(accounts, "accounts follow their plan into other periods");
        }
        *adopted = true;
    }
    let accounts = store.end_periods(now()).await?;
    if accounts > 0 {
        tracing::info!(accounts, "periods ended");
    }
    Ok(())
}
