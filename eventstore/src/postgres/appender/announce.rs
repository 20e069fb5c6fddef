//! Telling readers that there is something to read, after commits and never inside one.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::Pool;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::super::{connect::Target, database_error, dialect::Dialect};
use crate::error::Error;

/// At most one nudge in this time: a NOTIFY takes a lock that all of the server's share.
const NUDGE_INTERVAL: Duration = Duration::from_millis(5);
/// How long it may take.
const NUDGE_LIMIT: Duration = Duration::from_secs(10);

/// A NOTIFY takes a transaction id, so its commit would flush the log, which appends wait for meanwhile.
/// A nudge may be lost, so it need not be durable.
const NUDGE: &str = "select set_config('synchronous_commit', 'off', true), pg_notify($1, '')";

/// Sends a nudge for what was recorded since the last. Ends when there is nobody left to record.
pub(super) async fn announce(
    target: Target,
    dialect: Arc<Dialect>,
    pool: Pool,
    channel: String,
    mut nudged: mpsc::Receiver<()>,
    cut: CancellationToken,
) {
    let nudge = async || -> Result<(), Error> {
        let busy = target.busy(&pool, &dialect).await?;
        let notified = busy.client()?.execute(NUDGE, &[&channel]).await;
        busy.done();
        notified.map(drop).map_err(|error| database_error("announce an append", error))
    };
    while nudged.recv().await.is_some() {
        match cut.run_until_cancelled(timeout(NUDGE_LIMIT, nudge())).await {
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => {
                tracing::debug!(%error, "nudge not sent; readers find the events when they poll");
            }
            Some(Err(_)) => {
                tracing::debug!("nudge not answered; readers find the events when they poll");
            }
            // Nobody waits for readers any more.
            None => return,
        }
        sleep(NUDGE_INTERVAL).await;
    }
}
