//! Telling readers that there is something to read, after commits and never inside one.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::Pool;
use tokio::sync::mpsc;

use super::super::{client::Dialect, connect::Target, database_error};
use crate::error::Error;

/// At most one nudge in this time: a NOTIFY takes a lock that all of the server's share.
const NUDGE_INTERVAL: Duration = Duration::from_millis(5);

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
) {
    let nudge = async || -> Result<(), Error> {
        let client = target.client(&pool, &dialect).await?;
        let notified = client.execute(NUDGE, &[&channel]).await;
        notified.map(drop).map_err(|error| database_error("announce an append", error))
    };
    while nudged.recv().await.is_some() {
        if let Err(error) = nudge().await {
            tracing::debug!(%error, "nudge not sent; readers find the events when they poll");
        }
        tokio::time::sleep(NUDGE_INTERVAL).await;
    }
}
