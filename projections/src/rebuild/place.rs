//! Where a rebuild works: the tables beside those in use, and what is known of them.

use std::{collections::HashMap, sync::Arc};

use annals_eventstore::{
    EventStore, Position, StreamId,
    postgres::{Checkpoint, Database, GenericClient, Schema},
};

use super::progress::{Phase, Reporter};
use crate::{
    engine::{Rows, Steps, failed},
    error::{Error, EventFailure},
    install::{lock, tables_fit},
    read_model::ReadModel,
    table::{Table, checkpoint_name},
    worker::parking,
};

pub(crate) struct Place<R: ReadModel> {
    pub(super) store: EventStore,
    pub(super) database: Database,
    /// The name of the rebuild's checkpoint and lease.
    pub(super) name: String,
    /// That of the checkpoint of the projection.
    pub(super) live_name: String,
    /// Where the new tables are, and where those go that they replace.
    pub(super) next: Schema,
    pub(super) replaced: Schema,
    pub(super) rows: Arc<Rows<R>>,
    pub(super) steps: Arc<Steps<R>>,
    pub(super) categories: Vec<String>,
    max_parked: usize,
}

impl<R: ReadModel> Place<R> {
    pub(super) fn of(store: &EventStore, max_parked: usize) -> Result<Self, Error> {
        let database = store.database()?.clone();
        let store_schema = database.schema();
        let (next, replaced) = (store_schema.beside("rebuild")?, store_schema.beside("replaced")?);
        Ok(Self {
            store: store.clone(),
            name: format!("rebuild:{}", R::TABLE),
            live_name: checkpoint_name::<R>(),
            rows: Arc::new(Rows::of(database.schema(), &next)),
            steps: Arc::new(Steps::new()),
            categories: R::sources().iter().map(|source| source.category().to_owned()).collect(),
            database,
            next,
            replaced,
            max_parked,
        })
    }

    pub(super) fn table(&self) -> &Table {
        &self.rows.table
    }

    /// Creates the tables, or keeps those of an earlier build by the same code.
    pub(super) async fn prepare(&self, checkpoint: &mut Checkpoint) -> Result<(), Error> {
        if self.database.inline_categories(&self.live_name).await?.is_some() {
            return Err(Error::RunsInline { projection: R::TABLE.to_owned() });
        }
        let failed = || failed::<R>("create the tables of a rebuild");
        let transaction = self.database.begin().await?;
        let client = transaction.client()?;
        lock::<R>(client).await?;
        if !self.is_there(client).await? {
            // What was folded by other code is nothing to go on with.
            let restart = self.database.schema().sql(include_str!("../sql/restart.sql"));
            let restart = restart
                .replace("{next}", &self.next.sql("{schema}"))
                .replace("{drop}", &(self.table().drop.clone() + ";" + &self.table().drop_history))
                .replace("{tables}", &self.table().tables)
                .replace("{name}", &self.name)
                .replace("{slices}", &R::SLICES.to_string())
                .replace("{version}", &R::VERSION.to_string());
            client.batch_execute(&restart).await.map_err(failed())?;
            transaction.commit().await?;
            checkpoint.moved(Position::START);
            return Ok(());
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn is_there(&self, client: &impl GenericClient) -> Result<bool, Error> {
        let sql = self.database.schema().sql(
            "select from {schema}.projections where name = $1 and version = $2 and slices = $3",
        );
        let (version, slices) = (R::VERSION as i32, R::SLICES as i16);
        let known = client.query(&sql, &[&self.name, &version, &slices]).await;
        let known = known.map_err(failed::<R>("look for an earlier rebuild"))?;
        Ok(!known.is_empty() && tables_fit::<R>(client, &self.next).await?)
    }

    pub(super) async fn must_be_built(&self) -> Result<(), Error> {
        let client = self.database.client().await?;
        if self.is_there(&client).await? {
            return Ok(());
        }
        Err(Error::NotRebuilt { projection: R::TABLE })
    }

    /// What finds rows in the tables, once they are filled: two indexes at a time.
    pub(super) async fn index(&self, reporter: &Reporter) -> Result<(), Error> {
        reporter.phase(Phase::Indexing);
        let create = |sql: &String| {
            let (database, sql) = (self.database.clone(), sql.clone());
            async move {
                let failed = || failed::<R>("create an index");
                // The sort needs memory, for as long as it lasts.
                let sql = format!("begin; set local maintenance_work_mem = '256MB'; {sql}; commit");
                database.client().await?.batch_execute(&sql).await.map_err(failed())
            }
        };
        let indexes = self.table().indexes.iter().map(create);
        futures::TryStreamExt::try_for_each(
            futures::StreamExt::buffer_unordered(futures::stream::iter(indexes), 2),
            |()| async { Ok(()) },
        )
        .await?;
        let mut analyze = format!("analyze {}", self.table().name);
        if R::HISTORY == crate::History::Kept {
            analyze += &format!("; analyze {}", self.table().history);
        }
        let client = self.database.client().await?;
        client.batch_execute(&analyze).await.map_err(failed::<R>("analyze the tables"))
    }

    /// The streams that are parked in the rebuild.
    pub(super) async fn parked(&self) -> Result<HashMap<StreamId, parking::ParkedAt>, Error> {
        parking::load(&self.database, &self.name, 0, 1).await
    }

    /// Parks a stream, unless there are too many by now.
    pub(super) async fn park(
        &self,
        parked: &mut HashMap<StreamId, parking::ParkedAt>,
        failure: Box<EventFailure>,
    ) -> Result<(), Error> {
        if parked.len() >= self.max_parked {
            return Err(failure.into());
        }
        tracing::error!(error = %failure, "an event failed in a rebuild; its stream is parked");
        let client = self.database.client().await?;
        let at = parking::park(&self.database, &client, &self.name, &failure).await?;
        parked.insert(failure.stream.clone(), at);
        Ok(())
    }

    /// Drops what is beside the tables in use.
    pub(super) async fn discard(&self) -> Result<(), Error> {
        let failed = || failed::<R>("drop the tables of a rebuild");
        let transaction = self.database.begin().await?;
        let client = transaction.client()?;
        lock::<R>(client).await?;
        for schema in [&self.next, &self.replaced] {
            let table = Table::of::<R>(self.database.schema(), schema);
            let drop = format!("{}; {}", table.drop, table.drop_history);
            client.batch_execute(&drop).await.map_err(failed())?;
        }
        for forget in [
            "delete from {schema}.projections where name = $1",
            "delete from {schema}.parked_streams where projection = $1",
        ] {
            let forget = self.database.schema().sql(forget);
            client.execute(&forget, &[&self.name]).await.map_err(failed())?;
        }
        let forget =
            self.database.schema().sql("delete from {schema}.replaced_projections where name = $1");
        client.execute(&forget, &[&self.live_name]).await.map_err(failed())?;
        transaction.commit().await?;
        Ok(())
    }

    /// Leaves no checkpoint where there are no tables: nobody would move it, and it would keep streams
    /// from being archived.
    pub(super) async fn tidy(&self) -> Result<(), Error> {
        let sql = self.database.schema().sql(
            "delete from {schema}.checkpoints where name = $1
             and not exists (select from {schema}.projections where name = $1)",
        );
        let tidied = self.database.client().await?.execute(&sql, &[&self.name]).await;
        tidied.map(drop).map_err(failed::<R>("tidy up after a rebuild"))
    }
}
