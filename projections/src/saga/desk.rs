//! The desk: what a worker does for sagas beside feeding them. It makes their calls, records what comes of these, and
//! looks after timers and what people ask.
//!
//! Every process has one. A call is taken by a claim on the saga's row, which lasts as a lease does and is renewed
//! while the call is made. Whoever is replaced while it sleeps does no harm when it wakes up: the call has the same
//! id, and what comes of it counts once.

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::{
    Perform, Process,
    due::Claim,
    ledger::{Ledger, News, Unsettled, loses},
    making::Making,
};
use crate::{
    error::Error,
    fail_points::may_fail,
    guard::panicked,
    metrics,
    worker::failure::{Interruptions, text},
};

/// How long to wait at most before looking what is due: others may have made it so.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait at least, where what is due is in another's hands.
const PAUSE: Duration = Duration::from_millis(10);
/// How much is recorded in one transaction.
const AT_ONCE: usize = 64;

/// How a desk works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeskOptions {
    /// How long a worker that died holds up its calls.
    pub(crate) time_to_live: Duration,
    /// How long calls may go on when it is told to stop.
    pub(crate) stop_within: Duration,
}

pub(crate) struct Desk<S: Process, P> {
    ledger: Arc<Ledger<S>>,
    performer: Arc<P>,
    wake: Arc<Notify>,
    options: DeskOptions,
    /// Under what name it claims.
    me: Uuid,
    making: JoinSet<(String, News<S>)>,
    /// The sagas whose calls it has.
    claimed: HashSet<String>,
    /// What is to be recorded.
    news: Vec<(String, News<S>)>,
    renewed: Instant,
}

impl<S: Process, P: Perform<S>> Desk<S, P> {
    pub(crate) fn new(
        ledger: Arc<Ledger<S>>,
        performer: Arc<P>,
        wake: Arc<Notify>,
        options: DeskOptions,
    ) -> Self {
        Self {
            ledger,
            performer,
            wake,
            options,
            me: Uuid::now_v7(),
            making: JoinSet::new(),
            claimed: HashSet::new(),
            news: Vec::new(),
            renewed: Instant::now(),
        }
    }

    /// Works until told to stop, and gives its calls back.
    ///
    /// # Errors
    /// The first failure that does not pass.
    pub(crate) async fn run(mut self, stop: &CancellationToken) -> Result<(), Error> {
        metrics::begin_saga(S::CATEGORY);
        let mut interruptions = Interruptions::default();
        while !stop.is_cancelled() {
            let started = Instant::now();
            let Err(error) = self.work(stop).await else { break };
            if !loses(&error) {
                return Err(error);
            }
            let delay = interruptions.delay(started);
            warn!(saga = S::CATEGORY, error = text(&error), ?delay, "making calls interrupted");
            let _ = tokio::time::timeout(delay, stop.cancelled()).await;
        }
        self.close().await;
        Ok(())
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        while !stop.is_cancelled() {
            self.gather();
            self.renew().await?;
            let due = self.ledger.due(AT_ONCE as i64).await?;
            let more = due.len() == AT_ONCE;
            if !due.is_empty() {
                may_fail!("saga-timer-due");
            }
            self.news.extend(due.into_iter().map(|key| (key, News::Look)));
            self.record().await?;
            self.claim().await?;
            if !more {
                self.rest(stop).await?;
            }
        }
        Ok(())
    }

    /// Takes in the calls that have ended.
    fn gather(&mut self) {
        while let Some(ended) = self.making.try_join_next() {
            self.take(ended);
        }
    }

    fn take(&mut self, ended: Result<(String, News<S>), JoinError>) {
        // It does not panic, and is not aborted before the end.
        let Ok((key, news)) = ended else { return };
        if matches!(news, News::Look) {
            self.claimed.remove(&key);
        }
        self.news.push((key, news));
    }

    async fn renew(&mut self) -> Result<(), Error> {
        if self.renewed.elapsed() > self.options.time_to_live / 3 && !self.claimed.is_empty() {
            let keys: Vec<_> = self.claimed.iter().cloned().collect();
            self.ledger.renew(self.me, &keys, self.options.time_to_live).await?;
            self.renewed = Instant::now();
        }
        Ok(())
    }

    /// Records what there is to be recorded. What cannot be is kept.
    async fn record(&mut self) -> Result<(), Error> {
        while !self.news.is_empty() {
            let count = self.news.len().min(AT_ONCE);
            let mut at_once: Vec<_> = self.news[..count].iter().collect();
            // A saga that cannot take its news does not hold the others up.
            while !at_once.is_empty() {
                match self.ledger.record(&at_once, self.options.time_to_live, None).await {
                    Ok(()) => {
                        may_fail!("saga-outcome-recorded");
                        break;
                    }
                    Err(Unsettled::Failed { index, source }) => {
                        let (key, reason) = (at_once[index].0.clone(), text(&*source));
                        warn!(saga = S::CATEGORY, key, reason, "a saga is stuck");
                        self.ledger.damaged(&key, &reason).await?;
                        at_once.retain(|(other, _)| *other != key);
                    }
                    Err(Unsettled::Error(error)) => return Err(error),
                }
            }
            for (key, news) in self.news.drain(..count) {
                if !matches!(news, News::Look) {
                    self.claimed.remove(&key);
                }
            }
        }
        Ok(())
    }

    /// How many calls it can make beside those that it makes.
    fn free(&self) -> usize {
        self.performer.concurrency().max(1).saturating_sub(self.making.len())
    }

    /// Begins calls that are due, as many as it makes at the same time.
    async fn claim(&mut self) -> Result<(), Error> {
        let free = self.free();
        if free == 0 {
            return Ok(());
        }
        if self.claimed.is_empty() {
            self.renewed = Instant::now();
        }
        for Claim { key, attempt } in
            self.ledger.claim(self.me, free, self.options.time_to_live).await?
        {
            debug!(saga = S::CATEGORY, key, attempt, "making a call");
            self.claimed.insert(key.clone());
            let making = Making { ledger: self.ledger.clone(), performer: self.performer.clone() };
            self.making.spawn(async move {
                let news = AssertUnwindSafe(making.make(&key, attempt)).catch_unwind().await;
                let damaged = |payload: Box<_>| News::Damaged(panicked(&*payload).to_string());
                (key, news.unwrap_or_else(damaged))
            });
        }
        Ok(())
    }

    /// Waits until something is due, a call has ended, or it is told that there is something.
    async fn rest(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let (look, call) = self.ledger.next().await?;
        let call = call.filter(|_| self.free() > 0);
        let wait = look.into_iter().chain(call).min().unwrap_or(LOOK);
        let wait = wait.clamp(PAUSE, LOOK.min(self.options.time_to_live / 3));
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.wake.notified() => {}
            Some(ended) = self.making.join_next() => self.take(ended),
            () = tokio::time::sleep(wait) => {}
        }
        Ok(())
    }

    /// Lets calls end, for a while, and gives the others back.
    async fn close(&mut self) {
        let until = tokio::time::Instant::now() + self.options.stop_within;
        loop {
            self.gather();
            let recorded = async {
                self.renew().await?;
                self.record().await
            };
            if let Err(error) = recorded.await {
                debug!(saga = S::CATEGORY, error = text(&error), "not recorded, to be done again");
                break;
            }
            let wait = self.options.time_to_live / 3;
            tokio::select! {
                ended = self.making.join_next() => match ended {
                    Some(ended) => self.take(ended),
                    None => break,
                },
                () = tokio::time::sleep(wait) => {}
                () = tokio::time::sleep_until(until) => {
                    warn!(saga = S::CATEGORY, "calls are cut off, to be made again");
                    break;
                }
            }
        }
        self.making.shutdown().await;
        if let Err(error) = self.ledger.release(self.me).await {
            debug!(saga = S::CATEGORY, error = text(&error), "calls not given back; claims end");
        }
    }
}
