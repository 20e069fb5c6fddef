//! Comparing the tables in use with those that were built.

use std::time::{Duration, Instant};

use annals_eventstore::{
    Position,
    postgres::{Checkpoint, Client, OwnedTransaction},
};

use super::{
    follow::follow,
    place::Place,
    progress::Phase,
    swap::{hold_live, is_locked},
};
use crate::{
    engine::failed, error::Error, fold::Folding, install::tables_fit, page::Page,
    read_model::ReadModel, table::Table, worker::slice_of,
};

/// How many differences are told.
const TOLD: i64 = 100;
/// How many events are folded at once.
const BATCH: usize = 2000;
/// How long the projection may stand still before it is not waited for any more.
const STILL: Duration = Duration::from_secs(30);

/// What a comparison of two tables found, as of one moment of the projection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Up to where the projection had come; of one in slices, the furthest of them.
    pub position: Position,
    /// How many rows the table in use has.
    pub live_rows: u64,
    /// How many rows the new one has.
    pub rebuilt_rows: u64,
    /// How many rows differ.
    pub different: u64,
    /// The first 100 of these, in the order of their keys.
    pub differences: Vec<Difference>,
}

/// A row that differs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// Its key: the columns, as JSON.
    pub key: serde_json::Value,
    /// The row in use, as JSON; `None` if there is none.
    pub live: Option<serde_json::Value>,
    /// The new row.
    pub rebuilt: Option<serde_json::Value>,
}

impl Comparison {
    /// Whether there is no difference.
    pub fn is_same(&self) -> bool {
        self.different == 0
    }
}

/// Compares in a snapshot of both tables, in which the new one comes to exactly where the other one is. What
/// was folded for that is rolled back, and nobody is held up meanwhile.
pub(super) async fn compare<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &mut Checkpoint,
) -> Result<Comparison, Error> {
    must_be_comparable(place).await?;
    follow(place, checkpoint).await?;
    place.reporter.phase(Phase::Comparing);
    let (transaction, positions) = snapshot(place, checkpoint).await?;
    let client = transaction.client()?;
    bring_to(place, client, checkpoint.position(), &positions).await?;
    let comparison = differences(place, client, &positions).await?;
    transaction.rollback().await?;
    Ok(comparison)
}

async fn must_be_comparable<R: ReadModel>(place: &Place<R>) -> Result<(), Error> {
    let (client, live) = (place.database.client().await?, place.database.read_models());
    if tables_fit::<R>(&client, live).await? {
        return Ok(());
    }
    let table = Table::of::<R>(place.database.schema(), live);
    let there = client.query_one(&table.exists(), &[]).await;
    let there = there.map_err(failed::<R>("look for the tables in use"))?;
    Err(match there.get(0) {
        false => Error::NotBuilt { projection: R::TABLE },
        true => Error::Outdated {
            table: format!("{}.{}", live.name(), R::TABLE),
            difference: "its columns are others than those of the new one".to_owned(),
        },
    })
}

/// A transaction that sees the table in use as of a moment at which it is not behind the new one, and where
/// its slices are in it.
async fn snapshot<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &Checkpoint,
) -> Result<(OwnedTransaction, Vec<Position>), Error> {
    let (mut furthest, mut moved) = (Position::START, Instant::now());
    loop {
        let (holding, positions) = match hold_live(place).await {
            Err(error) if is_locked(&error) => continue,
            held => held?,
        };
        let Some(least) = positions.iter().copied().min() else {
            return Err(Error::NotBuilt { projection: R::TABLE });
        };
        if least >= checkpoint.position() {
            let failed = || failed::<R>("compare the tables");
            let transaction = place.database.begin().await?;
            let client = transaction.client()?;
            let isolated = "set transaction isolation level repeatable read";
            client.batch_execute(isolated).await.map_err(failed())?;
            client.batch_execute("select").await.map_err(failed())?;
            holding.rollback().await?;
            return Ok((transaction, positions));
        }
        holding.rollback().await?;
        if least > furthest {
            (furthest, moved) = (least, Instant::now());
        } else if moved.elapsed() > STILL {
            let (projection, needed) = (R::TABLE, checkpoint.position());
            return Err(Error::NotReached { projection, reached: least, needed });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Folds into the new table what each slice of the projection has beyond a position.
async fn bring_to<R: ReadModel>(
    place: &Place<R>,
    client: &Client,
    after: Position,
    positions: &[Position],
) -> Result<(), Error> {
    let end = positions.iter().copied().max().unwrap_or_default();
    let (log, mut after) = (place.pages(), after);
    let slices = positions.len() as u16;
    let mut parked = place.parked().await?;
    while after < end {
        let Page { mut events, to } = log.next(after, end, BATCH).await?;
        after = to;
        events.retain(|event| {
            event.position <= positions[usize::from(slice_of(&event.stream, slices))]
        });
        let mut failure;
        loop {
            events.retain(|event| {
                parked.get(&event.stream).is_none_or(|at| event.position < at.position)
            });
            let mut folding = Folding::default();
            let (steps, undecoded) = place.steps.of(events.clone());
            failure = undecoded;
            if failure.is_none() {
                place.rows.load(client, &mut folding, &steps).await?;
                failure = folding.fold(&steps).err();
            }
            let Some(failure) = failure else {
                place.rows.write(client, &folding).await?;
                break;
            };
            parked.insert(failure.stream.clone(), (&*failure).into());
        }
    }
    Ok(())
}

async fn differences<R: ReadModel>(
    place: &Place<R>,
    client: &Client,
    positions: &[Position],
) -> Result<Comparison, Error> {
    let failed = || failed::<R>("compare the tables");
    let live = Table::of::<R>(place.database.schema(), place.database.read_models());
    let new = place.table();
    let (live_name, new_name) = (&live.name, &new.name);
    let counts =
        format!("select (select count(*) from {live_name}), (select count(*) from {new_name})");
    let counts = client.query_one(&counts, &[]).await.map_err(failed())?;
    let sql = live.differences(new_name);
    let rows = client.query(&sql, &[&TOLD]).await.map_err(failed())?;
    let of = |row: &tokio_postgres::Row| Difference {
        key: row.get(0),
        live: row.get(1),
        rebuilt: row.get(2),
    };
    Ok(Comparison {
        position: positions.iter().copied().max().unwrap_or_default(),
        live_rows: counts.get::<_, i64>(0) as u64,
        rebuilt_rows: counts.get::<_, i64>(1) as u64,
        different: rows.first().map_or(0, |row| row.get::<_, i64>(3) as u64),
        differences: rows.iter().map(of).collect(),
    })
}
