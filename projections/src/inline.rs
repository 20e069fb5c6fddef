//! Inline projections: what is up to date when the command returns.

use std::{sync::Arc, time::Duration};

use annals_eventstore::{
    EventStore, Position, Recorded,
    postgres::{Checkpoint, Client, Database, InlineLocks, Lease, LeaseOptions, SqlProjection},
};
use async_trait::async_trait;
use tracing::{info, warn};

use crate::{
    control::stored,
    engine::Engine,
    error::Error,
    guard::Cause,
    install::install,
    read_model::ReadModel,
    register::Wanted,
    sql_projection::{install as install_sql, wanted},
    table::checkpoint_name,
};

/// How many events are applied in one transaction while a projection catches up.
const BATCH: usize = 2000;
/// More rows than this in one append lock the read model as a whole.
const MAX_ROWS: usize = 64;

/// Opens a store with projections that run inline: in the transaction of every append, also of
/// [`execute`](EventStore::execute) and of units of work, so that they are never behind.
///
/// That has its price: each such append is a transaction of its own, without group commit, and appends
/// that touch the same rows go one after the other. Use it for what must be read back at once.
///
/// From its registration on, *every* append to its categories must go through a store that was opened
/// with it. One from another store is refused
/// ([`BypassesInline`](annals_eventstore::Error::BypassesInline)), so rows are never silently behind.
/// [`reset`](crate::reset) ends the registration.
///
/// ```no_run
/// # use annals_eventstore::{EventStore, Handle, Command};
/// # use annals_projections::{Consistency, InlineProjections, QueryReadModels, ReadModel};
/// # async fn run<R: ReadModel<Key = String>, C: Command>(command: C)
/// #     -> Result<(), Box<dyn std::error::Error>> where C::Aggregate: Handle<C> {
/// let store = EventStore::connect("postgres://localhost/app").await?.with_inline::<R>().await?;
/// store.execute(command).await?;
/// let strong = Consistency::Strong;
/// let row = store.query::<R>().consistency(strong).get(&"ada".to_owned()).await?;
/// # Ok(()) }
/// ```
pub trait InlineProjections: Sized {
    /// This store with a read model that runs inline.
    ///
    /// The first time, it creates the tables, brings them up to date, and registers the read model; for
    /// the last events, appends are held up. Meanwhile others may do the same: one works, the others
    /// wait. While a worker runs the projection, it waits for the worker to stop.
    ///
    /// Cancellation safe: what was caught up stays, and the next call goes on from there.
    ///
    /// # Errors
    /// [`Error::ShapeChanged`], an event that cannot be projected, or a failure of the database.
    fn with_inline<R: ReadModel>(&self) -> impl Future<Output = Result<Self, Error>> + Send;

    /// This store with a projection in SQL that runs inline.
    ///
    /// # Errors
    /// As [`with_inline`](Self::with_inline). [`Error::Outdated`] if what is there was made by another version:
    /// [`reset_sql`](crate::reset_sql) ends the registration and takes that away.
    fn with_inline_sql(
        &self,
        projection: impl SqlProjection,
    ) -> impl Future<Output = Result<Self, Error>> + Send;
}

impl InlineProjections for EventStore {
    async fn with_inline<R: ReadModel>(&self) -> Result<Self, Error> {
        let database = self.database()?;
        install::<R>(database).await?;
        let engine = Engine::<R>::new(database, LeaseOptions::default().time_to_live);
        let mut categories = Engine::<R>::categories();
        categories.sort_unstable();
        let rows = Rows { name: checkpoint_name::<R>(), categories, engine };
        open(self, Arc::new(rows)).await
    }

    async fn with_inline_sql(&self, projection: impl SqlProjection) -> Result<Self, Error> {
        let (database, wanted) = (self.database()?, Wanted { slices: 1, ..wanted(&projection) });
        let projection = Named { name: stored(&wanted.name), projection };
        install_sql(database, &projection.projection, &wanted).await?;
        open(self, Arc::new(projection)).await
    }
}

/// A projection in SQL under the name by which it is stored.
struct Named<P> {
    name: String,
    projection: P,
}

#[async_trait]
impl<P: SqlProjection> SqlProjection for Named<P> {
    fn name(&self) -> &str {
        &self.name
    }

    fn categories(&self) -> &[String] {
        self.projection.categories()
    }

    async fn locks(&self, events: &[Recorded], sql: &Client) -> Result<InlineLocks, Cause> {
        self.projection.locks(events, sql).await
    }

    async fn apply(&self, events: &[Recorded], sql: &Client) -> Result<(), Cause> {
        self.projection.apply(events, sql).await
    }
}

/// A read model that runs inline.
struct Rows<R: ReadModel> {
    name: String,
    categories: Vec<String>,
    engine: Engine<R>,
}

#[async_trait]
impl<R: ReadModel> SqlProjection for Rows<R> {
    fn name(&self) -> &str {
        &self.name
    }

    fn categories(&self) -> &[String] {
        &self.categories
    }

    async fn locks(&self, events: &[Recorded], sql: &Client) -> Result<InlineLocks, Cause> {
        let numbers = self.engine.lock_numbers(sql, events, MAX_ROWS).await?;
        Ok(numbers.map_or(InlineLocks::All, InlineLocks::Rows))
    }

    async fn apply(&self, events: &[Recorded], sql: &Client) -> Result<(), Cause> {
        Ok(self.engine.apply_inline(sql, events).await?)
    }
}

/// Sees to it that a projection is registered and up to date.
async fn open(store: &EventStore, projection: Arc<dyn SqlProjection>) -> Result<EventStore, Error> {
    let database = store.database()?;
    let name = projection.name();
    let mut waited = 0u32;
    let lease = loop {
        if is_registered(database, &*projection).await? {
            return Ok(store.running_inline(projection));
        }
        if let Some(lease) = Lease::try_acquire(database, name, LeaseOptions::default()).await? {
            break lease;
        }
        if waited.is_multiple_of(100) {
            warn!(projection = name, "waiting: a worker or another program holds the projection");
        }
        waited += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let epoch = lease.epoch();
    Arc::new(lease).keep_while(catch_up(store, database, &*projection, epoch)).await?;
    Ok(store.running_inline(projection))
}

async fn is_registered(database: &Database, projection: &dyn SqlProjection) -> Result<bool, Error> {
    let Some(mut registered) = database.inline_categories(projection.name()).await? else {
        return Ok(false);
    };
    let mut wanted = projection.categories().to_vec();
    registered.sort_unstable();
    wanted.sort_unstable();
    if registered == wanted {
        return Ok(true);
    }
    let projection = projection.name().to_owned();
    Err(Error::OtherCategories { projection, registered, wanted })
}

/// Projects what there is, as a worker would, and the last of it while no append is under way.
async fn catch_up(
    store: &EventStore,
    database: &Database,
    projection: &dyn SqlProjection,
    epoch: i64,
) -> Result<(), Error> {
    // Another may have registered it just before the lease was got.
    if is_registered(database, projection).await? {
        return Ok(());
    }
    let categories = Some(projection.categories());
    let mut checkpoint = Checkpoint::take_over(database, projection.name(), epoch).await?;
    loop {
        let safe = store.safe_position().await?;
        let events = store.read_page(categories, checkpoint.position(), safe, BATCH).await?;
        let full = events.len() == BATCH;
        let to = events.last().map_or(safe, |last| if full { last.position } else { safe });
        if to <= checkpoint.position() {
            break;
        }
        let transaction = database.begin().await?;
        checkpoint.advance(transaction.client()?, to).await?;
        apply(projection, &events, transaction.client()?, checkpoint.position()).await?;
        transaction.commit().await?;
        checkpoint.moved(to);
        if !full {
            break;
        }
    }
    let transaction = database.begin().await?;
    // From here to the commit, every append of these categories has either ended or will be refused or
    // see the projection: what is recorded now is all there is before.
    database.register_inline(&transaction, projection).await?;
    checkpoint.close(transaction.client()?).await?;
    let mut after = checkpoint.position();
    loop {
        // On this connection: others of the pool may be taken by appends that wait for this.
        let client = transaction.client()?;
        let events = database.read_page_on(client, projection.categories(), after, BATCH).await?;
        apply(projection, &events, client, after).await?;
        match events.last() {
            Some(last) if events.len() == BATCH => after = last.position,
            _ => break,
        }
    }
    transaction.commit().await?;
    info!(projection = projection.name(), "runs inline");
    Ok(())
}

async fn apply(
    projection: &dyn SqlProjection,
    events: &[Recorded],
    client: &Client,
    after: Position,
) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    projection.apply(events, client).await.map_err(|source| {
        match source.downcast::<Error>() {
            // A read model's own.
            Ok(error) => *error,
            Err(source) => {
                Error::CatchUp { projection: projection.name().to_owned(), after, source }
            }
        }
    })
}
