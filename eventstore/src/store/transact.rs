//! Units of work that are done again after a conflict.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio_postgres::error::DbError;

use super::{EventStore, UnitCommitted, UnitOfWork, unit::passes};
use crate::{error::Error, postgres::is_transient};

impl EventStore {
    /// Does a unit of work, and does it again as a whole when it loses to others.
    ///
    /// `work` gets a new unit each time; its statements and events of the time before are undone. What
    /// it does besides is not, so let it do nothing else. It is done again after a version conflict, a
    /// deadlock and what else may pass, up to [`max_attempts`](super::Options::max_attempts) times,
    /// waiting a random time in between (exponential backoff with jitter). An error of its own, such
    /// as a rejected command, ends it at once and leaves nothing behind.
    ///
    /// ```no_run
    /// # use annals_eventstore::*;
    /// # async fn run<C>(store: EventStore, debit: C, credit: C)
    /// #     -> Result<(), ExecuteError<<C::Aggregate as Aggregate>::Error>>
    /// # where C: Command, C::Aggregate: Handle<C> {
    /// let (version, committed) = store
    ///     .transact(async |unit| {
    ///         unit.execute(debit.clone()).await?;
    ///         let credited = unit.execute(credit.clone()).await?;
    ///         Ok::<_, ExecuteError<_>>(credited.version)
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// Not cancellation safe, as [`UnitOfWork::commit`].
    ///
    /// # Errors
    /// What `work` returns, and, as its error, what [`begin`](Self::begin) and
    /// [`commit`](UnitOfWork::commit) do. After [`Error::Indeterminate`] it is done again only if the
    /// unit has an [idempotency key](UnitOfWork::idempotency_key).
    pub async fn transact<T, E>(
        &self,
        mut work: impl AsyncFnMut(&mut UnitOfWork) -> Result<T, E>,
    ) -> Result<(T, UnitCommitted), E>
    where
        E: From<Error> + std::error::Error + 'static,
    {
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(1))
            .with_max_delay(Duration::from_millis(50))
            .with_max_times(self.options.max_attempts - 1)
            .with_jitter()
            .build();
        loop {
            let mut unit = self.begin().await?;
            let (again, failure) = match work(&mut unit).await {
                Ok(value) => {
                    let has_key = unit.has_key();
                    match unit.commit().await {
                        Ok(committed) => return Ok((value, committed)),
                        Err(error) => {
                            let known = has_key && matches!(error, Error::Indeterminate { .. });
                            (known || passes(&error), error.into())
                        }
                    }
                }
                Err(error) => {
                    let again = unit.may_pass()
                        || loses(&error)
                        || unit.was_overtaken(None).await.unwrap_or(false);
                    // Before it is done again: its locks would be in its own way.
                    drop(unit.rollback().await);
                    (again, error)
                }
            };
            match delays.next() {
                Some(delay) if again => tokio::time::sleep(delay).await,
                _ => return Err(failure),
            }
            tracing::debug!(error = %failure, "doing a unit of work again");
        }
    }
}

/// True if a statement of the program's own failed for a reason that passes, or lost its connection.
fn loses(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|cause| {
        // A transparent error stands for its cause and hides it, so both are looked for.
        let state = match cause.downcast_ref::<tokio_postgres::Error>() {
            Some(error) if error.is_closed() => return true,
            Some(error) => error.code(),
            None => cause.downcast_ref::<DbError>().map(DbError::code),
        };
        state.is_some_and(is_transient) || cause.downcast_ref::<Error>().is_some_and(passes)
    })
}
