//! Executing commands: load, decide, append; again after a version conflict.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use super::{EventStore, lot::Lot};
use crate::{
    aggregate::Aggregate,
    backend::{Outcome, Range},
    command::{Command, Committed, Envelope, Handle},
    error::{Error, ExecuteError},
    ids::Position,
};

type ErrorOf<C> = <<C as Command>::Aggregate as Aggregate>::Error;

impl EventStore {
    /// Executes a command: loads its aggregate, lets it decide, appends the events.
    ///
    /// When the stream changed meanwhile, it loads and decides again, up to
    /// [`max_attempts`](super::Options::max_attempts) times, waiting a random time in between
    /// (exponential backoff with jitter). Takes a bare command or an [`Envelope`].
    ///
    /// Not cancellation safe: if the future is dropped, the events may still be recorded; with an
    /// idempotency key, executing the command again settles it.
    ///
    /// # Errors
    /// [`ExecuteError::Rejected`] with the domain's reason, [`ExecuteError::Failed`] with the store's.
    pub async fn execute<C>(
        &self,
        command: impl Into<Envelope<C>>,
    ) -> Result<Committed, ExecuteError<ErrorOf<C>>>
    where
        C: Command,
        C::Aggregate: Handle<C>,
    {
        let mut outcomes = self.execute_all([command]).await?;
        outcomes.pop().unwrap_or(Err(ExecuteError::Failed(Error::Closed)))
    }

    /// Executes many commands in order in one go: one load and one append for the lot.
    ///
    /// Each command has its own outcome, in the order given; a rejected one does not hinder the
    /// others. Later commands see the events of earlier ones. All events are recorded together or,
    /// if the store fails, none of them.
    ///
    /// # Errors
    /// If the store fails; then nothing is recorded, except after [`Error::Indeterminate`], where it
    /// is not known.
    pub async fn execute_all<C, I>(
        &self,
        commands: I,
    ) -> Result<Vec<Result<Committed, ExecuteError<ErrorOf<C>>>>, Error>
    where
        C: Command,
        C::Aggregate: Handle<C>,
        I: IntoIterator,
        I::Item: Into<Envelope<C>>,
    {
        let lot = Lot::new(commands.into_iter().map(Into::into).collect());
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(1))
            .with_max_delay(Duration::from_millis(50))
            .with_max_times(self.options.max_attempts - 1)
            .with_jitter()
            .build();
        loop {
            let failure = match self.try_execute(&lot).await {
                Ok(outcomes) => return Ok(outcomes),
                Err(failure) => failure,
            };
            let again = match &failure {
                Error::Conflict { .. } | Error::KeyInFlight => true,
                // It may be recorded. Deciding again is safe where that would be noticed.
                failure => failure.is_retryable() && lot.all_have_keys(),
            };
            match delays.next() {
                Some(delay) if again => tokio::time::sleep(delay).await,
                _ => return Err(failure),
            }
            tracing::debug!(error = %failure, "deciding again");
        }
    }

    async fn try_execute<C>(
        &self,
        lot: &Lot<C>,
    ) -> Result<Vec<Result<Committed, ExecuteError<ErrorOf<C>>>>, Error>
    where
        C: Command,
        C::Aggregate: Handle<C>,
    {
        let keys = lot.keys();
        let known =
            if keys.is_empty() { Vec::new() } else { self.backend.known_keys(&keys).await? };
        let streams = lot.streams_without(&known);
        let states = self.fold::<C::Aggregate>(&streams, Range::ALL).await?;
        let decided = lot.decide(&known, streams, states, &self.options);
        if decided.request.events.is_empty() && decided.request.keys.is_empty() {
            return Ok(decided.outcomes(Position::START));
        }
        match self.record(decided.request.clone()).await? {
            Outcome::Recorded { first, .. } => Ok(decided.outcomes(first)),
            Outcome::Conflict { stream, actual } => {
                let (stream, expected) = decided.request.streams[stream].clone();
                Err(Error::Conflict { stream, expected, actual })
            }
            Outcome::NotLive { stream, state } => {
                Err(state.refusal(decided.request.streams[stream].0.clone()))
            }
            Outcome::KeyTaken => Err(Error::KeyInFlight),
        }
    }
}
