//! A reader that keeps its place in memory, as one outside of the database does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{Error, EventStore, Position, Recorded};
use tokio::task::JoinHandle;

/// Reads what is appended, and goes on through failures. It passes gaps, as workers do.
pub(crate) struct Follower {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Recorded>>,
}

impl Follower {
    pub(crate) fn start(store: EventStore) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let (mut seen, mut place) = (Vec::new(), Position::START);
            loop {
                // What was appended before it was told to stop is read.
                let last = stopped.load(Ordering::SeqCst);
                match read(&store, &mut seen, &mut place).await {
                    Ok(()) if last => return seen,
                    Ok(()) => tokio::task::yield_now().await,
                    Err(error) => {
                        assert!(error.is_retryable(), "{error:?}");
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
        });
        Self { stop, task }
    }

    /// Reads to the end, and returns all that it has seen, in that order.
    pub(crate) async fn stop(self) -> Vec<Recorded> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

async fn read(
    store: &EventStore,
    seen: &mut Vec<Recorded>,
    place: &mut Position,
) -> Result<(), Error> {
    loop {
        let safe = store.safe_position().await?;
        if safe <= *place {
            return Ok(());
        }
        let page = store.read_page(None, *place, safe, 500).await?;
        *place = match page.last() {
            Some(last) if page.len() == 500 => last.position,
            _ => safe,
        };
        seen.extend(page);
    }
}
