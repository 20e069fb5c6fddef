//! A read model as it was, folded from the log: for those that keep no history, or not for so long.

use std::marker::PhantomData;

use annals_eventstore::{AsOf, EventStore, Position, postgres::Schema};

use super::{
    Rebuild,
    fill::{fill, forget_beyond},
    place::Purpose,
};
use crate::{
    engine::failed,
    error::Error,
    query::{Query, position_of},
    read_model::ReadModel,
    table::Table,
};

impl<R: ReadModel> Rebuild<R> {
    /// Folds the log up to a moment into tables of their own, in a schema beside that of the store
    /// (`annals_past`), and leaves those in use alone. They take the place of what was replayed before. It
    /// works for every read model, also without history, and for moments that history is not kept of.
    ///
    /// ```no_run
    /// # use annals_eventstore::{AsOf, EventStore};
    /// # use annals_projections::{ReadModel, Rebuild};
    /// # async fn run<R: ReadModel<Key = String>>(store: EventStore)
    /// #     -> Result<(), Box<dyn std::error::Error>> {
    /// let new_year = AsOf::Time("2012-01-01T00:00:00Z".parse()?);
    /// let replay = Rebuild::<R>::of(&store).on_progress(|progress| println!("{progress}"));
    /// let then = replay.replay_to(new_year).await?;
    /// let row = then.query().get(&"ada".to_owned()).await?;
    /// println!("or in SQL: select * from {}", then.table());
    /// then.discard().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// Cancellation safe: the next call for that moment or a later one goes on where it was.
    ///
    /// # Errors
    /// [`Error::NotReached`] for a position that is not in the log yet; the store's own for a time that is
    /// not over; [`Error::RebuildRuns`] if another process replays it; else as [`build`](Self::build).
    pub async fn replay_to(&self, moment: AsOf) -> Result<Replayed<R>, Error> {
        let needed = position_of(&self.store, moment).await?;
        let reached = self.store.safe_position().await?;
        if reached < needed {
            return Err(Error::NotReached { projection: R::TABLE, reached, needed });
        }
        self.alone_for(Purpose::Past, async |place| {
            let (mut checkpoint, _) = place.begin(needed).await?;
            place.reporter.begin(checkpoint.position());
            forget_beyond(place, &checkpoint).await?;
            fill(place, &mut checkpoint, needed).await?;
            place.index().await?;
            let parked = place.parked().await?.len() as u64;
            place.finish(&checkpoint).await?;
            Ok(Replayed {
                store: self.store.clone(),
                schema: place.next.clone(),
                position: needed,
                parked,
                row: PhantomData,
            })
        })
        .await
    }

    /// Drops the tables of the last replay, also of one that was stopped or is another process's.
    ///
    /// # Errors
    /// [`Error::RebuildRuns`] while another process replays it, or a failure of the database.
    pub async fn discard_replayed(&self) -> Result<(), Error> {
        self.alone_for(Purpose::Past, async |place| place.discard_past().await).await
    }
}

/// A read model as it was at a moment, in tables of its own.
#[derive(Clone, Debug)]
pub struct Replayed<R> {
    store: EventStore,
    schema: Schema,
    position: Position,
    parked: u64,
    row: PhantomData<fn() -> R>,
}

impl<R: ReadModel> Replayed<R> {
    /// The moment.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many streams are left out from an event on that failed.
    pub fn parked(&self) -> u64 {
        self.parked
    }

    /// The table, quoted, for SQL of your own.
    pub fn table(&self) -> String {
        Table::of::<R>(&self.schema, &self.schema).name
    }

    /// Starts a query on it. With history, it answers for earlier moments too.
    pub fn query(&self) -> Query<'_, R> {
        Query::elsewhere(&self.store, self.schema.clone(), self.position)
    }

    /// Drops the tables.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn discard(self) -> Result<(), Error> {
        let Table { drop, drop_history, .. } = Table::of::<R>(&self.schema, &self.schema);
        let client = self.store.database()?.client().await?;
        let dropped = client.batch_execute(&format!("{drop}; {drop_history}")).await;
        dropped.map_err(failed::<R>("drop what was replayed"))
    }
}
