//! The steps of a transaction, on the producer's thread.
//!
//! A transaction that does not come to its end is not repaired: it is aborted as far as that is possible at
//! once, and the term ends. The next producer's `init_transactions` settles what is left, and the progress
//! topic says what became of it; this also holds where the answer to a commit was lost.

use std::time::{Duration, Instant};

use rdkafka::{
    error::{KafkaError, RDKafkaError},
    producer::{Producer as _, PurgeConfig},
};

use super::{
    metrics,
    producer::{Failure, Step, broker_error},
    receipts::is_permanent,
    settle::Before,
    worker::{STEP, Worker},
};
#[cfg(feature = "fail-points")]
use crate::error::Error;
use crate::fail_points::fail_point;

/// How long a call waits at once. One that has not come to its end is resumed by calling it again.
pub(super) const CALL: Duration = Duration::from_millis(500);
/// After a commit the coordinator has its markers to write yet. It refuses what begins meanwhile, and
/// librdkafka then waits for 20 ms, whatever is left to do. On one broker the markers take 1 to 2 ms.
const MARKERS: Duration = Duration::from_millis(2);
/// How long it may take to abort. What is not aborted then is by the next producer.
const ABORT: Duration = Duration::from_millis(400);

impl Worker {
    /// Ends the transaction that an earlier producer of the store has left, fences that producer, and
    /// waits until that is done.
    pub(super) fn init_transactions(&mut self) -> Result<(), Failure> {
        loop {
            let Err(error) = self.producer.init_transactions(CALL) else { return Ok(()) };
            if !may_be_resumed(&error) {
                return Err(failure("begin to publish in transactions", error));
            }
            self.reaches_broker();
            self.check(&[])?;
        }
    }

    /// Publishes a step in a transaction. How many events are published by it.
    pub(super) fn in_transaction(&mut self, step: &Step) -> Result<usize, Failure> {
        if self.producer.context().take_doubt() {
            self.settle(Before::Own)?;
        }
        self.await_markers();
        let began = Instant::now();
        let begun = self.producer.begin_transaction();
        begun.map_err(|error| failure("begin a transaction", error))?;
        fail_point!("publisher-begun");
        let done = match self.fill(step) {
            Ok(published) => self.commit().map(|()| published),
            Err(failure) => {
                self.abort();
                Err(failure)
            }
        };
        metrics::transaction(&self.settings.context, &done, began.elapsed());
        done
    }

    /// Lets the last transaction come to its end.
    fn await_markers(&self) {
        let Some(committed) = self.committed else { return };
        let left = (committed + MARKERS).saturating_duration_since(Instant::now());
        if !left.is_zero() {
            self.hear_after(left);
        }
    }

    fn fill(&mut self, step: &Step) -> Result<usize, Failure> {
        let published = self.deliver_events(&step.events)?;
        self.send_progress(step)?;
        self.await_all(&[])?;
        fail_point!("publisher-before-commit");
        Ok(published)
    }

    pub(super) fn commit(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            // Nothing is in flight, or this would wait in steps of 100 ms.
            let Err(error) = self.producer.commit_transaction(CALL) else { break };
            if let KafkaError::Transaction(told) = &error
                && told.txn_requires_abort()
            {
                self.abort();
                return Err(failure("commit a transaction", error));
            }
            let in_time = began.elapsed() < self.settings.transaction_timeout;
            if !may_be_resumed(&error) || !in_time {
                return Err(failure("learn whether a transaction is committed", error));
            }
            self.producer.context().doubt();
            self.reaches_broker();
            self.check(&[])?;
        }
        self.committed = Some(Instant::now());
        fail_point!("publisher-committed", |_| {
            let lost = "the answer is lost".into();
            let action = "learn whether a transaction is committed".to_owned();
            Err(Failure::Interrupted(Error::Broker { action, source: lost }))
        });
        Ok(())
    }

    /// Ends a transaction without effect, if that can be done at once.
    fn abort(&mut self) {
        let until = Instant::now() + ABORT;
        // What is on its way is waited for: it must not come behind the end of the transaction.
        self.producer.purge(PurgeConfig::default().queue());
        while self.producer.in_flight_count() > 0 && Instant::now() < until {
            self.hear_after(STEP);
        }
        let left = until.saturating_duration_since(Instant::now());
        let aborted = match self.producer.in_flight_count() {
            0 => self.producer.abort_transaction(left.max(STEP)).map_err(|error| error.to_string()),
            left => Err(format!("{left} messages are on their way")),
        };
        if let Err(error) = aborted {
            tracing::debug!(error, "the transaction is left for the next publisher to end");
        }
    }
}

/// Whether calling the same again goes on with it.
pub(super) fn may_be_resumed(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable() && !error.is_fatal())
}

/// What a call has failed with, if it is not resumed. One that is fatal for the producer is not for the next.
pub(super) fn failure(action: &str, error: KafkaError) -> Failure {
    let permanent = match &error {
        KafkaError::Transaction(error) => is_permanent(RDKafkaError::code(error)),
        _ => false,
    };
    let error = broker_error(action, error);
    if permanent { Failure::Refused(error) } else { Failure::Interrupted(error) }
}
