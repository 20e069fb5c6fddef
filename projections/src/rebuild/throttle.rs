//! No more events per second than asked for.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

pub(super) struct Throttle {
    per_second: Option<u32>,
    started: Instant,
    events: AtomicU64,
}

impl Throttle {
    pub(super) fn new(per_second: Option<u32>) -> Self {
        Self { per_second, started: Instant::now(), events: AtomicU64::new(0) }
    }

    /// How many events to take at once, of at most so many: what is due in a short while.
    pub(super) fn at_once(&self, most: usize) -> usize {
        self.per_second.map_or(most, |per_second| most.min(per_second.div_ceil(4) as usize))
    }

    /// Waits until so many more events are due.
    pub(super) async fn took(&self, events: usize) {
        let events = events as u64;
        let all = self.events.fetch_add(events, Ordering::Relaxed) + events;
        if let Some(per_second) = self.per_second {
            let due = Duration::from_secs_f64(all as f64 / f64::from(per_second));
            tokio::time::sleep_until(self.started + due).await;
        }
    }
}
