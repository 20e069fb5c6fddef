//! Faults at rates, drawn from a seed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::Seed;
use crate::{
    aggregate::Aggregate,
    command::{Command, Committed, Envelope, Handle},
    error::{Error, ExecuteError},
    store::EventStore,
};

/// What can be made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// An append that expects a version is told that the stream has another one, as if somebody had been faster. Nothing is
    /// recorded.
    Conflict,
    /// It fails before it is done, in a way that passes. Nothing is done.
    Failure,
    /// There is no time left before it has begun. Nothing is done.
    TimedOut,
    /// It is done, and the answer is lost: nobody can tell.
    LostAnswer,
    /// It is done twice, as by somebody who lost the first answer.
    Repetition,
    /// It takes longer: up to what [`Faults::delay`] says.
    Delay,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Conflict,
        Self::Failure,
        Self::TimedOut,
        Self::LostAnswer,
        Self::Repetition,
        Self::Delay,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Failure => "failure",
            Self::TimedOut => "timed out",
            Self::LostAnswer => "lost answer",
            Self::Repetition => "repetition",
            Self::Delay => "delay",
        }
    }
}

/// Faults that happen at rates. Clones share what has happened.
///
/// Whether one happens is drawn from the [`Seed`], what it happens to, and how often it was that one's turn, so it is the same
/// whatever else goes on at the same time. This memory grows with the number of streams and effects; it is for tests.
#[derive(Clone, Debug)]
pub struct Faults {
    seed: Seed,
    rates: HashMap<Fault, f64>,
    delay: Duration,
    happened: Arc<Mutex<Happened>>,
}

#[derive(Debug, Default)]
struct Happened {
    /// How often something was exposed to a fault.
    turns: HashMap<String, u64>,
    injected: HashMap<Fault, u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self::new(Seed::any())
    }
}

impl Faults {
    /// No faults, until [`rate`](Self::rate) says so.
    pub fn new(seed: Seed) -> Self {
        let delay = Duration::from_millis(20);
        Self { seed, rates: HashMap::new(), delay, happened: Arc::default() }
    }

    /// Sets how often something goes wrong: 0 is never, 1 is always. At 1, what is tried again is never done.
    #[must_use]
    pub fn rate(mut self, fault: Fault, rate: f64) -> Self {
        self.rates.insert(fault, rate.clamp(0.0, 1.0));
        self
    }

    /// Sets the longest delay: 20 ms unless set.
    #[must_use]
    pub fn delay(mut self, most: Duration) -> Self {
        self.delay = most;
        self
    }

    /// What the faults are drawn from.
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// How often it happened. A test whose faults never happen tests nothing.
    pub fn injected(&self, fault: Fault) -> u64 {
        self.happened().injected.get(&fault).copied().unwrap_or_default()
    }

    /// Whether a fault happens now to this one of these things: to stand in for a service of the test's own.
    ///
    /// ```
    /// use annals_eventstore::testkit::faults::{Fault, Faults, Seed};
    ///
    /// let hotels = Faults::new(Seed::of(1)).rate(Fault::Failure, 0.5);
    /// let of_ten = (0..10).filter(|_| hotels.happens(Fault::Failure, "hotel", "booking 7")).count();
    /// assert!((1..10).contains(&of_ten));
    /// ```
    pub fn happens(&self, fault: Fault, what: &str, which: &str) -> bool {
        self.draw(fault, what, which).is_some()
    }

    /// As [`happens`](Self::happens); if so, a number from 0 up to and without 1 that is evenly distributed.
    fn draw(&self, fault: Fault, what: &str, which: &str) -> Option<f64> {
        let rate = self.rates.get(&fault).copied().filter(|rate| *rate > 0.0)?;
        let whose = format!("{}\0{what}\0{which}", fault.name());
        let mut happened = self.happened();
        let turn = happened.turns.entry(whose.clone()).or_default();
        let drawn = self.seed.draw(&whose, *turn);
        *turn += 1;
        if drawn >= rate {
            return None;
        }
        *happened.injected.entry(fault).or_default() += 1;
        Some(drawn / rate)
    }

    /// Waits, if a [`Delay`](Fault::Delay) happens to this one of these things.
    pub async fn pause(&self, what: &str, which: &str) {
        if let Some(share) = self.draw(Fault::Delay, what, which) {
            tokio::time::sleep(self.delay.mul_f64(share)).await;
        }
    }

    /// Executes a command as a caller does who may send it twice: at the rate of [`Repetition`](Fault::Repetition) it is
    /// executed again once it is done, and that answer returned. With an idempotency key it is done once all the same.
    ///
    /// # Errors
    /// As [`EventStore::execute`].
    pub async fn execute<C>(
        &self,
        store: &EventStore,
        command: impl Into<Envelope<C>>,
    ) -> Result<Committed, ExecuteError<<C::Aggregate as Aggregate>::Error>>
    where
        C: Command,
        C::Aggregate: Handle<C>,
    {
        let envelope = command.into();
        let done = store.execute(envelope.clone()).await?;
        if self.happens(Fault::Repetition, C::NAME, &envelope.command.stream_key()) {
            return store.execute(envelope).await;
        }
        Ok(done)
    }

    /// Whether something may be done: it has not failed before.
    ///
    /// # Errors
    /// If a [`Failure`](Fault::Failure) happens to this one of these things, or a [time-out](Fault::TimedOut).
    pub fn admit(&self, what: &'static str, which: &str) -> Result<(), Error> {
        if self.happens(Fault::Failure, what, which) {
            return Err(super::Injected::at(what).into());
        }
        if self.happens(Fault::TimedOut, what, which) {
            return Err(Error::TimedOut { action: what, waited: Duration::ZERO });
        }
        Ok(())
    }

    fn happened(&self) -> std::sync::MutexGuard<'_, Happened> {
        // It is whole after each draw.
        self.happened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
