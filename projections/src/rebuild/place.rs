//! Where a rebuild works: the tables beside those in use, and what is known of them.

use std::sync::Arc;

use annals_eventstore::{
    Archived, EventStore, Position,
    postgres::{Checkpoint, Client, Database, GenericClient, Lease, OwnedTransaction, Schema},
};

use futures::future::{join_all, try_join_all};
use tokio::sync::Semaphore;
use tokio_postgres::error::SqlState;

use super::{
    NEAR, Options,
    progress::{Phase, Reporter},
    throttle::Throttle,
};
use crate::{
    engine::{Rows, Steps, failed},
    error::{Error, EventFailure},
    install::{lock, tables_fit},
    page::Pages,
    read_model::{History, ReadModel},
    table::{Index, Table, checkpoint_name},
    worker::parking::{self, Parked},
};

/// Whoever is paused in a transaction holds up others, until the database ends it.
pub(super) const PATIENCE: &str = "set local idle_in_transaction_session_timeout = '10s'";

async fn patience(client: &Client) -> Result<(), Error> {
    let failed = |source| Error::Bookkeeping { action: "limit a transaction", source };
    client.batch_execute(PATIENCE).await.map_err(failed)
}

pub(super) struct Place<R: ReadModel> {
    pub(super) store: EventStore,
    pub(super) database: Database,
    pub(super) lease: Arc<Lease>,
    pub(super) options: Options,
    pub(super) reporter: Arc<Reporter>,
    pub(super) throttle: Throttle,
    pub(super) names: Names,
    purpose: Purpose,
    /// Whoever writes all rows or creates an index has one of these: two processes of the server are enough for
    /// that, since a rebuild is to be noticed by nobody.
    pub(super) at_once: Semaphore,
    /// Where the new tables are, and where those go that they replace.
    pub(super) next: Schema,
    pub(super) replaced: Schema,
    pub(super) rows: Arc<Rows<R>>,
    pub(super) steps: Arc<Steps<R>>,
}

/// Under which names the state of tables is kept: those in use, the new ones, and those that were replaced.
/// That of the new ones is also the name of the rebuild's lease.
pub(super) struct Names {
    pub(super) live: String,
    pub(super) next: String,
    pub(super) replaced: String,
}

/// What the new tables are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To replace those in use.
    Rebuild,
    /// To show what was at a moment of the past.
    Past,
}

/// Forgets how tables came to be.
const FORGET: &str = "delete from {schema}.checkpoints where name = '{next}';
    delete from {schema}.parked_streams where projection = '{next}';
    delete from {schema}.projections where name = '{next}'";

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Rebuild => "rebuild",
            Self::Past => "past",
        }
    }
}

impl Names {
    pub(super) fn of<R: ReadModel>(purpose: Purpose) -> Self {
        let of = |what| format!("{what}:{}", R::TABLE);
        Self { live: checkpoint_name::<R>(), next: of(purpose.name()), replaced: of("replaced") }
    }

    /// Puts them into SQL.
    pub(super) fn sql(&self, template: &str) -> String {
        let Self { live, next, replaced } = self;
        let sql = template.replace("{live}", live).replace("{next}", next);
        sql.replace("{replaced}", replaced)
    }
}

/// How far the tables of a rebuild are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// They lack rows or indexes.
    Begun,
    /// They are as they would be in use, up to their checkpoint.
    Built,
}

impl<R: ReadModel> Place<R> {
    pub(super) fn of(
        store: &EventStore,
        lease: Arc<Lease>,
        options: Options,
        reporter: Arc<Reporter>,
        purpose: Purpose,
    ) -> Result<Self, Error> {
        let database = store.database()?.clone();
        let beside = |what| database.schema().beside(what);
        let (next, replaced) = (beside(purpose.name())?, beside("replaced")?);
        Ok(Self {
            store: store.clone(),
            lease,
            options,
            reporter,
            throttle: Throttle::new(options.events_per_second),
            names: Names::of::<R>(purpose),
            purpose,
            at_once: Semaphore::new(2),
            rows: Arc::new(Rows::of(database.schema(), &next)),
            steps: Arc::new(Steps::new()),
            database,
            next,
            replaced,
        })
    }

    pub(super) fn table(&self) -> &Table {
        &self.rows.table
    }

    /// SQL on the store's own tables, with the names of this place.
    pub(super) fn sql(&self, template: &str) -> String {
        self.database.schema().sql(&self.names.sql(template))
    }

    /// The events that are folded: what is archived too, since the tables in use have it.
    pub(super) fn pages(&self) -> Pages {
        let categories: Vec<_> =
            R::sources().iter().map(|source| source.category().to_owned()).collect();
        Pages::of(&self.store, &categories).with(Archived::Included)
    }

    /// A transaction in which nobody else changes which tables there are.
    pub(super) async fn transaction(&self) -> Result<OwnedTransaction, Error> {
        let transaction = self.database.begin().await?;
        let client = transaction.client()?;
        patience(client).await?;
        lock::<R>(client).await?;
        Ok(transaction)
    }

    /// A transaction in which nobody takes the rebuild over.
    pub(super) async fn holding(&self, checkpoint: &Checkpoint) -> Result<OwnedTransaction, Error> {
        let transaction = self.database.begin().await?;
        let client = transaction.client()?;
        patience(client).await?;
        checkpoint.hold(client).await?;
        Ok(transaction)
    }

    /// Ends whoever had the lease before and is still writing or indexing. One that is paused in the middle of a
    /// COPY would hold its locks for as long: no limit of the database ends that.
    async fn end_predecessors(&self) -> Result<(), Error> {
        let Table { name, history, .. } = self.table();
        let client = self.database.client().await?;
        let ended = client.query(include_str!("../sql/end_writers.sql"), &[name, history]).await;
        match ended {
            // Another role's, which an administrator has to end.
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(()),
            ended => ended.map(drop).map_err(failed::<R>("end an earlier rebuild")),
        }
    }

    /// Begins a rebuild, or goes on with one by the same code that has not passed a position.
    pub(super) async fn begin(&self, end: Position) -> Result<(Checkpoint, Stage), Error> {
        self.end_predecessors().await?;
        let transaction = self.transaction().await?;
        let client = transaction.client()?;
        self.lease.hold(client).await?;
        let mut checkpoint = self.take_over(client).await?;
        let stage = match self.stage(client).await? {
            Some(stage) if checkpoint.position() <= end => stage,
            _ => {
                self.restart(client).await?;
                checkpoint.moved(Position::START);
                Stage::Begun
            }
        };
        transaction.commit().await?;
        Ok((checkpoint, stage))
    }

    /// Takes up what was built before.
    pub(super) async fn take_up(&self) -> Result<Checkpoint, Error> {
        self.end_predecessors().await?;
        let transaction = self.transaction().await?;
        let client = transaction.client()?;
        self.lease.hold(client).await?;
        if self.stage(client).await? != Some(Stage::Built) {
            return Err(Error::NotRebuilt { projection: R::TABLE });
        }
        let checkpoint = self.take_over(client).await?;
        transaction.commit().await?;
        Ok(checkpoint)
    }

    async fn take_over(&self, client: &Client) -> Result<Checkpoint, Error> {
        let (name, epoch) = (&self.names.next, self.lease.epoch());
        Ok(Checkpoint::take_over_in(&self.database, client, name, epoch).await?)
    }

    /// Notes how far the tables are.
    pub(super) async fn mark(&self, checkpoint: &Checkpoint, stage: Stage) -> Result<(), Error> {
        let transaction = self.holding(checkpoint).await?;
        let client = transaction.client()?;
        let mark = "update {schema}.projections set unfinished = $2 where name = $1";
        let (mark, unfinished) = (self.sql(mark), stage == Stage::Begun);
        let marked = client.execute(&mark, &[&self.names.next, &unfinished]).await;
        marked.map_err(failed::<R>("note how far a rebuild is"))?;
        Ok(transaction.commit().await?)
    }

    pub(super) async fn must_not_be_inline(&self) -> Result<(), Error> {
        match self.database.inline_categories(&self.names.live).await? {
            Some(_) => Err(Error::RunsInline { projection: R::TABLE.to_owned() }),
            None => Ok(()),
        }
    }

    /// Creates empty tables. What was folded by other code is nothing to go on with.
    async fn restart(&self, client: &Client) -> Result<(), Error> {
        self.create(client, &self.next).await?;
        let Table { drop, drop_history, tables, .. } = self.table();
        let restart = self.sql(include_str!("../sql/restart.sql"));
        let restart = restart
            .replace("{slices}", &R::SLICES.to_string())
            .replace("{version}", &R::VERSION.to_string());
        let restart = format!("{drop}; {drop_history}; {tables} {restart}");
        let restarted = client.batch_execute(&restart).await;
        restarted.map_err(failed::<R>("create the tables of a rebuild"))
    }

    /// Creates a schema, unless an administrator has done so or it is there from before.
    pub(super) async fn create(&self, client: &Client, schema: &Schema) -> Result<(), Error> {
        // One after the other, also those of different read models.
        let create = format!(
            "do $$ begin
                 if to_regnamespace('{0}') is null then
                     perform pg_advisory_xact_lock(hashtext('annals read model'), hashtext('{0}'));
                     create schema if not exists {0};
                 end if;
             end $$",
            schema.sql("{schema}"),
        );
        let created = client.batch_execute(&create).await;
        created.map_err(failed::<R>("create the schema of a rebuild"))
    }

    /// How far the tables of a rebuild by this code are; `None` if there are none.
    async fn stage(&self, client: &impl GenericClient) -> Result<Option<Stage>, Error> {
        let sql = "select unfinished from {schema}.projections
             where name = $1 and version = $2 and slices = $3";
        let (sql, version, slices) = (self.sql(sql), R::VERSION as i32, R::SLICES as i16);
        let known = client.query(&sql, &[&self.names.next, &version, &slices]).await;
        let known = known.map_err(failed::<R>("look for an earlier rebuild"))?;
        let stage = known.first().map(|row| match row.get(0) {
            true => Stage::Begun,
            false => Stage::Built,
        });
        Ok(if tables_fit::<R>(client, &self.next).await? { stage } else { None })
    }

    /// Up to where tables are to be filled that are filled up to `end`; `None` if they are full, but for what is
    /// followed batch by batch.
    pub(super) async fn goes_on_to(&self, end: Position) -> Result<Option<Position>, Error> {
        if self.purpose == Purpose::Past {
            return Ok(None);
        }
        // What came meanwhile may be much, too.
        let now = self.store.safe_position().await?;
        Ok((now.get() - end.get() > NEAR).then_some(now))
    }

    /// What finds versions in the history, once it is filled. Rows may be written meanwhile.
    pub(super) async fn index_history(&self) -> Result<(), Error> {
        self.create_indexes(&self.table().history_indexes).await
    }

    /// What finds rows in their table, once it is filled, and what the planner knows of both tables.
    pub(super) async fn index(&self) -> Result<(), Error> {
        let table = self.table();
        self.create_indexes(&table.indexes).await?;
        let analyze = |table: &String| {
            let sql = format!("analyze {table}");
            async move {
                let client = self.database.client().await?;
                client.batch_execute(&sql).await.map_err(failed::<R>("analyze the tables"))
            }
        };
        let history = (R::HISTORY == History::Kept).then_some(&table.history);
        try_join_all([&table.name].into_iter().chain(history).map(analyze)).await.map(drop)
    }

    async fn create_indexes(&self, indexes: &[Index]) -> Result<(), Error> {
        if indexes.is_empty() {
            return Ok(());
        }
        self.reporter.phase(Phase::Indexing);
        let create = |index: &Index| {
            // The sort needs memory, for as long as it lasts.
            let sql = format!(
                "set local maintenance_work_mem = '256MB'; \
                 set local max_parallel_maintenance_workers = 0; {}",
                index.create,
            );
            async move {
                let _permit = self.at_once.acquire().await;
                let transaction = self.database.begin().await?;
                let client = transaction.client()?;
                patience(client).await?;
                let created = client.batch_execute(&sql).await;
                created.map_err(failed::<R>("create an index"))?;
                Ok::<_, Error>(transaction.commit().await?)
            }
        };
        // All of them, also behind one that fails, so that nothing is under way afterwards.
        join_all(indexes.iter().map(create)).await.into_iter().collect()
    }

    /// The streams that are parked in the rebuild.
    pub(super) async fn parked(&self) -> Result<Parked, Error> {
        parking::load(&self.database, &self.names.next, 0, 1).await
    }

    /// Parks a stream, unless there are too many by now.
    pub(super) async fn park(
        &self,
        checkpoint: &Checkpoint,
        parked: &mut Parked,
        failure: Box<EventFailure>,
    ) -> Result<(), Error> {
        let is_known = parked.contains_key(&failure.stream);
        if !is_known && parked.len() >= self.options.max_parked {
            return Err(failure.into());
        }
        tracing::error!(error = %failure, "an event failed in a rebuild; its stream is parked");
        let transaction = self.holding(checkpoint).await?;
        let client = transaction.client()?;
        let at = parking::park(&self.database, client, &self.names.next, &failure, None).await?;
        transaction.commit().await?;
        parked.insert(failure.stream.clone(), at);
        Ok(())
    }

    /// Forgets how the tables came to be: they stay as they are.
    pub(super) async fn finish(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let transaction = self.holding(checkpoint).await?;
        let client = transaction.client()?;
        let forget = self.sql(FORGET);
        client.batch_execute(&forget).await.map_err(failed::<R>("finish a replay"))?;
        Ok(transaction.commit().await?)
    }

    /// Drops what was replayed, and leaves what was replaced.
    pub(super) async fn discard_past(&self) -> Result<(), Error> {
        self.end_predecessors().await?;
        let transaction = self.transaction().await?;
        let client = transaction.client()?;
        self.lease.hold(client).await?;
        let Table { drop, drop_history, .. } = self.table();
        let sql = self.sql(FORGET);
        let discarded = client.batch_execute(&format!("{sql}; {drop}; {drop_history}")).await;
        discarded.map_err(failed::<R>("drop what was replayed"))?;
        Ok(transaction.commit().await?)
    }

    /// Drops what is beside the tables in use.
    pub(super) async fn discard(&self) -> Result<(), Error> {
        self.end_predecessors().await?;
        let transaction = self.transaction().await?;
        let client = transaction.client()?;
        self.lease.hold(client).await?;
        let mut sql = self.sql(include_str!("../sql/discarded.sql"));
        for schema in [&self.next, &self.replaced] {
            let Table { drop, drop_history, .. } = Table::of::<R>(self.database.schema(), schema);
            sql += &format!("{drop}; {drop_history};");
        }
        let discarded = client.batch_execute(&sql).await;
        discarded.map_err(failed::<R>("drop the tables of a rebuild"))?;
        Ok(transaction.commit().await?)
    }
}
