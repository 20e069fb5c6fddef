//! The nudge: a notification after appends, so that readers need not wait for their next poll.

use std::{future::poll_fn, sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, NoTls};

use super::{connect_error, database_error};
use crate::error::Error;

/// Wakes up after appends. A nudge can be lost, so a reader waits with a timeout and polls then.
#[derive(Debug)]
pub struct Listener {
    nudged: Arc<Notify>,
    /// Notifications arrive as long as it is open.
    client: tokio_postgres::Client,
}

impl Listener {
    pub(super) async fn connect(
        config: &tokio_postgres::Config,
        channel: &str,
    ) -> Result<Self, Error> {
        let (client, mut connection) =
            config.connect(NoTls).await.map_err(|error| connect_error(config, error))?;
        let nudged = Arc::new(Notify::new());
        let notify = nudged.clone();
        tokio::spawn(async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    Ok(AsyncMessage::Notification(_)) => notify.notify_one(),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, "listening ended");
                        break;
                    }
                }
            }
        });
        client
            .batch_execute(&format!("listen \"{channel}\""))
            .await
            .map_err(|error| database_error("listen for appends", error))?;
        Ok(Self { nudged, client })
    }

    /// Returns after a nudge, at once if there was one since the last call, or after `timeout`.
    /// Cancellation safe.
    pub async fn wait(&self, timeout: Duration) {
        // A timeout is as good as a nudge: the caller polls.
        let _ = tokio::time::timeout(timeout, self.nudged.notified()).await;
    }

    /// True if the connection is gone and nudges no longer arrive.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}
