//! History that is forgotten once it is old enough.

use std::{sync::Arc, time::Duration};

use annals_eventstore::{AsOf, postgres::Lease};
use chrono::{DateTime, TimeDelta, Utc};
use tracing::{debug, info, warn};

use super::{Context, Log};
use crate::{
    error::Error,
    query::forget_history,
    read_model::{History, ReadModel},
};

const OFTEN: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(60 * 60);

/// Forgets what is older than the worker's option says, until told to stop. It holds up no projection, also where it
/// fails.
pub(super) async fn run<R: ReadModel>(context: &Context) {
    let Some(age) = context.options.keep_history else { return };
    if R::HISTORY == History::None || context.log != Log::Ours {
        return;
    }
    let pause = (age / 24).clamp(OFTEN, SELDOM);
    let forgetting = async {
        loop {
            match forget::<R>(context, age).await {
                Ok(0) => {}
                Ok(versions) => info!(read_model = R::TABLE, versions, "forgot history"),
                // Its projection is behind, or has not begun.
                Err(error @ (Error::NotBuilt { .. } | Error::NotReached { .. })) => {
                    debug!(read_model = R::TABLE, %error, "no history is forgotten yet");
                }
                Err(error) => warn!(read_model = R::TABLE, %error, "history was not forgotten"),
            }
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = forgetting => {}
        () = context.stop.cancelled() => {}
    }
}

async fn forget<R: ReadModel>(context: &Context, age: Duration) -> Result<u64, Error> {
    let name = format!("history:{}", R::TABLE);
    let lease = Lease::try_acquire(&context.database, &name, context.options.lease).await?;
    // Another worker is at it.
    let Some(lease) = lease else { return Ok(0) };
    let age = TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
    let before = Utc::now().checked_sub_signed(age).unwrap_or(DateTime::<Utc>::UNIX_EPOCH);
    Arc::new(lease).keep_while(forget_history::<R>(&context.store, AsOf::Time(before))).await
}
