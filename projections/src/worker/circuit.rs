//! The circuit of a slice of a projection: its breaker, and what is told of it.

use std::time::{Duration, Instant};

use annals_eventstore::{
    breaker::{Breaker, Outcome, Permit, circuit_state},
    postgres::Database,
};
use rand::Rng;
use tracing::{info, warn};

use super::projection::Terms;
use crate::error::Error;

/// How long to wait before the second attempt, at most. Each one after that may wait twice as long.
const FIRST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(30);

/// How long to wait after so many failures of one event: anything up to a time that grows, so that what failed
/// at the same time is not tried at the same time again.
pub(crate) fn backoff(failures: u32) -> Duration {
    let most = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MOST);
    most.mul_f64(rand::rng().random_range(0.0..=1.0))
}

pub(crate) struct Circuit {
    database: Database,
    /// The projection's stored name.
    name: String,
    label: String,
    breaker: Breaker,
    /// Until when it is said to be open.
    told: Option<Instant>,
    /// The last failure.
    reason: String,
}

impl Circuit {
    pub(crate) fn new(terms: &Terms, name: &str, label: &str) -> Self {
        Self {
            database: terms.database.clone(),
            name: name.to_owned(),
            label: label.to_owned(),
            breaker: Breaker::new(terms.breaker),
            told: None,
            reason: String::new(),
        }
    }

    /// Takes over what an earlier worker has left: if it was open, the first attempt is a trial.
    pub(crate) async fn take_over(&mut self) -> Result<(), Error> {
        let sql = "select broken from {schema}.projections where name = $1";
        let sql = self.database.schema().sql(sql);
        let failed = |source| Error::Bookkeeping { action: "look at a circuit breaker", source };
        let row = self.database.client().await?.query_opt(&sql, &[&self.name]).await;
        if let Some(reason) = row.map_err(failed)?.and_then(|row| row.get::<_, Option<_>>(0)) {
            let now = Instant::now();
            (self.reason, self.told) = (reason, Some(now));
            self.breaker.open(now);
        }
        self.show();
        Ok(())
    }

    /// Closes it.
    pub(crate) fn mended(&mut self) {
        if self.told.take().is_some() {
            info!(projection = self.label, "its circuit breaker was closed");
            self.breaker.reset();
            self.show();
        }
    }

    fn show(&self) {
        circuit_state(&self.name, self.breaker.state(Instant::now()));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.breaker.is_closed()
    }

    pub(crate) fn open_until(&self) -> Option<Instant> {
        self.breaker.open_until()
    }

    pub(crate) fn ask(&mut self) -> Option<Permit> {
        let permit = self.breaker.ask(Instant::now());
        if permit.as_ref().is_some_and(Permit::is_trial) {
            self.show();
        }
        permit
    }

    pub(crate) fn succeeded(&mut self, permit: Permit) {
        self.breaker.report(permit, Outcome::Success, Instant::now());
    }

    /// The attempt was not made after all.
    pub(crate) fn not_tried(&mut self, permit: Permit) {
        self.breaker.report(permit, Outcome::None, Instant::now());
    }

    pub(crate) fn failed(&mut self, permit: Permit, reason: String) {
        self.reason = reason;
        self.breaker.report(permit, Outcome::Failure, Instant::now());
    }

    /// Says in the log and in the database what has become of it, if that is something new.
    pub(crate) async fn tell(&mut self) -> Result<(), Error> {
        let until = self.breaker.open_until();
        if until == self.told || (until.is_none() && !self.breaker.is_closed()) {
            return Ok(());
        }
        let (projection, reason) = (&self.label, &self.reason);
        let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        match wait {
            Some(wait) => warn!(projection, reason, ?wait, "its circuit breaker is open"),
            None => info!(projection, "its circuit breaker is closed again"),
        }
        let broken = wait.map(|_| reason.replace('\0', "\u{fffd}"));
        let seconds = wait.map(|wait| wait.as_secs_f64());
        let sql = self.database.schema().sql(
            "update {schema}.projections
             set broken = $2, broken_until = clock_timestamp() + $3 * interval '1 second'
             where name = $1",
        );
        let failed = |source| Error::Bookkeeping { action: "tell of a circuit breaker", source };
        let client = self.database.client().await?;
        client.execute(&sql, &[&self.name, &broken, &seconds]).await.map_err(failed)?;
        self.told = until;
        self.show();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_up_to_a_limit_and_is_anything_below_it() {
        for failures in 1..40 {
            let limit = (0.1 * 2f64.powi(failures - 1)).min(30.0);
            let waits: Vec<_> = (0..200).map(|_| backoff(failures as u32).as_secs_f64()).collect();
            assert!(waits.iter().all(|wait| *wait <= limit + 1e-9), "{failures}: {waits:?}");
            let (low, high) = (waits.iter().any(|wait| *wait < limit / 3.0), limit / 1.5);
            assert!(low && waits.iter().any(|wait| *wait > high), "{failures}: {waits:?}");
        }
    }
}
