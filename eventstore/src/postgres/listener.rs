//! The nudge: a notification after appends, so that readers need not wait for their next poll.

use std::{future::poll_fn, sync::Arc, time::Duration};

use tokio::sync::{Mutex, Notify, watch};
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;

use super::{connect::Target, database_error};
use crate::error::Error;

/// Wakes up after appends. A nudge can be lost, so a reader waits with a timeout and polls then.
#[derive(Debug)]
pub struct Listener {
    nudged: Arc<Notify>,
    /// What this process itself records, of which it knows sooner.
    recorded: Mutex<watch::Receiver<()>>,
    /// Nudges no longer arrive.
    ended: CancellationToken,
    /// Notifications arrive as long as it is open. `None` where there is no way to listen.
    _client: Option<tokio_postgres::Client>,
}

impl Listener {
    /// It ends by itself when its connection does, or when the store is closed.
    pub(super) async fn connect(
        target: &Target,
        channel: &str,
        closed: &CancellationToken,
        recorded: watch::Receiver<()>,
    ) -> Result<Self, Error> {
        let (client, mut connection) = target.connect().await?;
        let (nudged, ended) = (Arc::new(Notify::new()), CancellationToken::new());
        let (notify, end, closed) = (nudged.clone(), ended.clone().drop_guard(), closed.clone());
        tokio::spawn(closed.run_until_cancelled_owned(async move {
            let _end = end;
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
        }));
        client
            .batch_execute(&format!("listen \"{channel}\""))
            .await
            .map_err(|error| database_error("listen for appends", error))?;
        Ok(Self { nudged, recorded: Mutex::new(recorded), ended, _client: Some(client) })
    }

    /// One that hears nothing from other processes: who waits with it polls.
    pub(super) fn deaf(recorded: watch::Receiver<()>) -> Self {
        let (nudged, ended) = (Arc::default(), CancellationToken::new());
        Self { nudged, recorded: Mutex::new(recorded), ended, _client: None }
    }

    /// Returns after a nudge, at once if there was one since the last call, after `timeout`, or when
    /// the connection is lost: look for events then, and whether it [is closed](Self::is_closed).
    /// Cancellation safe.
    pub async fn wait(&self, timeout: Duration) {
        // A timeout is as good as a nudge: the caller polls.
        let _ = tokio::time::timeout(timeout, async {
            let mut recorded = self.recorded.lock().await;
            let recorded = async {
                // Without a store there is nobody who records here.
                if recorded.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = self.nudged.notified() => {}
                () = recorded => {}
                () = self.ended.cancelled() => {}
            }
        })
        .await;
    }

    /// True if the connection is gone and nudges no longer arrive.
    pub fn is_closed(&self) -> bool {
        self.ended.is_cancelled()
    }
}
