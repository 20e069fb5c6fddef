//! Running behaviours and reporting what came of each.

use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::BoxFuture, stream};

use super::{list, stores::Stores};

/// What a behaviour is run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Needs {
    /// One new store with the default options.
    Store,
    /// One new store with a supplied clock.
    SuppliedClock,
    /// As many new stores as it opens, with options of its own.
    Stores,
}

/// Something that every store does, under the name that says it.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Behaviour {
    /// The part of the suite that it belongs to, such as `append`.
    pub theme: &'static str,
    /// What it says, such as `one_of_two_writers_on_a_version_wins`.
    pub name: &'static str,
    /// What it is run on.
    pub needs: Needs,
    pub(super) run: fn(Arc<dyn Stores>) -> BoxFuture<'static, ()>,
}

impl Behaviour {
    /// Runs this behaviour alone.
    ///
    /// It runs as a task of its own, which a dropped future does not stop.
    ///
    /// # Errors
    /// [`Failure`] says what the store did instead, or that it was still at it after `patience`.
    pub async fn check(self, stores: Arc<dyn Stores>, patience: Duration) -> Result<(), Failure> {
        let mut task = tokio::spawn((self.run)(stores));
        match tokio::time::timeout(patience, &mut task).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure {
                hangs: false,
                message: match error.try_into_panic() {
                    Ok(payload) => message(payload.as_ref()),
                    Err(error) => error.to_string(),
                },
            }),
            Err(_) => {
                task.abort();
                let message = format!("it hangs: not done after {patience:?}");
                Err(Failure { message, hangs: true })
            }
        }
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.theme, self.name)
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// How a store broke a behaviour.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
    hangs: bool,
}

impl Failure {
    /// True if the behaviour was not done in time; false if the store did something else.
    pub fn is_hang(&self) -> bool {
        self.hangs
    }
}

/// A selection of behaviours and how to run them. [`suite`] has all.
#[derive(Clone, Debug)]
#[must_use = "a suite does nothing until it is run"]
pub struct Suite {
    behaviours: Vec<Behaviour>,
    patience: Duration,
    at_once: usize,
}

/// The whole suite: two behaviours at a time, each given three minutes.
pub fn suite() -> Suite {
    Suite { behaviours: list::all(), patience: Duration::from_secs(180), at_once: 2 }
}

impl Suite {
    /// The behaviours, in the order in which they are run.
    pub fn behaviours(&self) -> &[Behaviour] {
        &self.behaviours
    }

    /// Keeps only some behaviours.
    pub fn only(mut self, keep: impl FnMut(&Behaviour) -> bool) -> Self {
        self.behaviours.retain(keep);
        self
    }

    /// How long a behaviour may take before it counts as hanging: three minutes unless set. It
    /// bounds a hang; nothing here measures speed.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How many behaviours run at the same time, each on stores of its own: 2 unless set.
    pub fn at_once(mut self, behaviours: usize) -> Self {
        self.at_once = behaviours.max(1);
        self
    }

    /// Runs the behaviours. A failure is an entry of the report and stops nothing.
    ///
    /// Dropping the future stops the run; behaviours that are being run may go on for a while.
    pub async fn run(self, stores: impl Stores) -> Report {
        let stores: Arc<dyn Stores> = Arc::new(stores);
        let runs = self.behaviours.into_iter().map(|behaviour| {
            let stores = Arc::clone(&stores);
            async move {
                let start = Instant::now();
                let result = behaviour.check(stores, self.patience).await;
                Outcome { behaviour, result, elapsed: start.elapsed() }
            }
        });
        let outcomes = stream::iter(runs).buffered(self.at_once).collect().await;
        stores.finish().await;
        Report { outcomes }
    }
}

/// Runs the whole suite over the stores that are opened for it.
pub async fn run(stores: impl Stores) -> Report {
    suite().run(stores).await
}

/// What came of one behaviour.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The behaviour.
    pub behaviour: Behaviour,
    /// Whether the store has it.
    pub result: Result<(), Failure>,
    /// How long it took, beside the other behaviours that ran at the same time.
    pub elapsed: Duration,
}

/// What came of a run. Its text lists what failed and ends with a line of figures.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Of each behaviour that was run, in order.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// True if there were behaviours and the store has them all.
    pub fn is_green(&self) -> bool {
        !self.outcomes.is_empty() && self.failures().next().is_none()
    }

    /// The behaviours that the store does not have.
    pub fn failures(&self) -> impl Iterator<Item = (Behaviour, &Failure)> {
        self.outcomes
            .iter()
            .filter_map(|outcome| Some((outcome.behaviour, outcome.result.as_ref().err()?)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (behaviour, failure) in self.failures() {
            writeln!(f, "FAILED {behaviour}")?;
            for line in failure.message.lines() {
                writeln!(f, "    {line}")?;
            }
        }
        let failed = self.failures().count();
        write!(f, "{} behaviours hold, {failed} do not", self.outcomes.len() - failed)
    }
}
