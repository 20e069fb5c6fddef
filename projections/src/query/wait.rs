//! Reading one's own writes.

use std::time::Duration;

use annals_eventstore::{Appended, Committed, EventStore, Position};

use super::moment;
use crate::{error::Error, read_model::ReadModel};

/// Waiting until a read model shows what a command did.
pub trait WaitForReadModel: Sized {
    /// Returns itself once the events are in the read model; from then on every query shows them.
    ///
    /// ```no_run
    /// # use annals_eventstore::{Command, EventStore, Handle};
    /// # use annals_projections::{QueryReadModels, ReadModel, WaitForReadModel};
    /// # use std::time::Duration;
    /// # async fn run<R: ReadModel, C: Command>(store: EventStore, command: C)
    /// #     -> Result<(), Box<dyn std::error::Error>> where C::Aggregate: Handle<C> {
    /// let patience = Duration::from_secs(5);
    /// store.execute(command).await?.wait_for::<R>(&store, patience).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::TimedOut`] if the read model does not come so far within `timeout`: the events are
    /// recorded all the same.
    fn wait_for<R: ReadModel>(
        self,
        store: &EventStore,
        timeout: Duration,
    ) -> impl Future<Output = Result<Self, Error>> + Send;
}

async fn wait<R: ReadModel>(
    store: &EventStore,
    position: Position,
    timeout: Duration,
) -> Result<(), Error> {
    moment::wait::<R>(store.database()?, position, timeout).await
}

impl WaitForReadModel for Committed {
    async fn wait_for<R: ReadModel>(
        self,
        store: &EventStore,
        timeout: Duration,
    ) -> Result<Self, Error> {
        wait::<R>(store, self.position, timeout).await?;
        Ok(self)
    }
}

impl WaitForReadModel for Appended {
    async fn wait_for<R: ReadModel>(
        self,
        store: &EventStore,
        timeout: Duration,
    ) -> Result<Self, Error> {
        wait::<R>(store, self.last_position, timeout).await?;
        Ok(self)
    }
}
