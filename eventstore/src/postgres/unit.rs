//! A unit of work on PostgreSQL: one transaction, in which positions are drawn at the very end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;

use super::{
    Client, Database, OwnedTransaction, SqlProjection, Use,
    appender::{CLOCK_WENT_BACK, Failure, KEY_TAKEN_MEANWHILE, record_on},
    database_error,
    inline::Running,
    is_lost, loader, read,
};
#[cfg(feature = "fail-points")]
use crate::testkit::faults::Injected;
use crate::{
    backend::{KnownKey, Load, Outcome, Part, Request, Session},
    error::Error,
    fail_points::fail_point,
};

/// How often an append is tried that lost to another through no fault of its own.
const ATTEMPTS: usize = 5;

/// A unit under way.
pub(super) struct Unit {
    database: Database,
    transaction: OwnedTransaction,
    /// True once the program has asked for the connection.
    is_shared: AtomicBool,
}

impl Unit {
    pub(super) async fn begin(database: &Database) -> Result<Self, Error> {
        // Of a pool of its own: a unit may be open for long, and may wait for a load.
        let transaction = database.using(Use::Unit).begin().await?;
        Ok(Self { database: database.clone(), transaction, is_shared: AtomicBool::new(false) })
    }

    /// Records the request. From here to the commit it is registered as in flight, so nothing may come
    /// in between that waits for the program.
    async fn record(&self, request: &Request) -> Result<Outcome, Error> {
        let client = self.transaction.client()?;
        let clock = &self.database.0.clock;
        let sql = &self.database.0.statements.append;
        let patience = self.database.0.lock_timeout;
        // Another append may come first with the time that a supplied clock showed a moment later.
        // The time is asked for again then, as often as for an append that goes alone.
        let own_times = clock.is_supplied()
            && request.events.iter().all(|(_, event)| event.recorded_at.is_none());
        for _ in 1..if own_times { ATTEMPTS } else { 1 } {
            run(client, "savepoint annals_append").await?;
            match record_on(client, sql, clock, &[request], patience).await {
                Err(Failure::Statement(error))
                    if error.code().is_some_and(|state| state.code() == CLOCK_WENT_BACK) =>
                {
                    run(client, "rollback to savepoint annals_append").await?;
                }
                result => return outcome(result, request),
            }
        }
        outcome(record_on(client, sql, clock, &[request], patience).await, request)
    }
}

async fn run(client: &Client, sql: &str) -> Result<(), Error> {
    client.batch_execute(sql).await.map_err(|error| database_error("append", error))
}

/// The outcome of one append in an open transaction: if it failed, nothing is recorded.
fn outcome(result: Result<Vec<Outcome>, Failure>, request: &Request) -> Result<Outcome, Error> {
    match result {
        Ok(mut outcomes) => outcomes.pop().ok_or(Error::Closed),
        Err(Failure::Statement(error)) if is_lost(&error) => {
            Err(Error::Database { action: "append", source: Box::new(error), retryable: true })
        }
        Err(Failure::Statement(error))
            if error.code().is_some_and(|state| state.code() == KEY_TAKEN_MEANWHILE) =>
        {
            Err(Error::KeyInFlight)
        }
        Err(failure) => Err(failure.to_error(request)),
    }
}

#[async_trait]
impl Session for Unit {
    async fn load(&self, loads: Vec<Load>) -> Result<Vec<Part>, Error> {
        // On this connection and not through the loader, whose connections may all be taken by units.
        let loads: Vec<_> = loads.iter().collect();
        let sql = &self.database.0.statements.load;
        let parts = loader::fetch_on(self.transaction.client()?, sql, &loads).await;
        parts.map_err(|error| database_error("load streams", error))
    }

    async fn known_keys(&self, keys: &[String]) -> Result<Vec<KnownKey>, Error> {
        let sql = &self.database.0.statements.outcomes;
        read::known_keys_on(self.transaction.client()?, sql, keys).await
    }

    fn sql(&self) -> Result<&Client, Error> {
        self.is_shared.store(true, Ordering::Relaxed);
        self.transaction.client()
    }

    async fn commit(
        self: Box<Self>,
        request: Request,
        inline: &[Arc<dyn SqlProjection>],
    ) -> Result<Outcome, Error> {
        // A failed statement of the program's own would turn the commit into a rollback without an
        // error, and an ended transaction would let the events be recorded without the rest.
        if self.is_shared.load(Ordering::Relaxed) {
            self.transaction.check().await?;
        }
        let mut outcome = Outcome::Recorded { before: Vec::new(), first: Default::default() };
        if !request.streams.is_empty() {
            let running = Running::of(&self.database, &self.transaction, inline, &request);
            // Before positions are drawn: see there.
            running.lock().await?;
            outcome = self.record(&request).await?;
            if let Outcome::Recorded { first, .. } = &outcome {
                running.apply(*first).await?;
            }
        }
        if let Outcome::Recorded { .. } = outcome {
            fail_point!("unit-committing", |_| Err(Injected::at("unit-committing").into()));
            self.transaction.commit().await?;
            fail_point!("unit-committed", |_| Err(Injected::at("unit-committed").answer_lost()));
            if !request.events.is_empty() {
                self.database.0.appender.nudge();
            }
        } else {
            self.transaction.rollback().await?;
        }
        Ok(outcome)
    }

    async fn rollback(self: Box<Self>) -> Result<(), Error> {
        self.transaction.rollback().await
    }
}
