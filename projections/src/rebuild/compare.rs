//! Comparing the tables in use with those that were built.

use annals_eventstore::{Position, postgres::Checkpoint};

use super::{
    follow::follow,
    place::Place,
    progress::{Phase, Reporter},
    swap::hold_live,
};
use crate::{
    engine::failed, error::Error, install::tables_fit, read_model::ReadModel, table::Table,
};

/// How many differences are told.
const TOLD: i64 = 100;

/// What a comparison of two tables found, as of one position.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// The position.
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

pub(super) async fn compare<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &mut Checkpoint,
    reporter: &Reporter,
) -> Result<Comparison, Error> {
    let (database, live) = (&place.database, place.database.read_models());
    let client = database.client().await?;
    if !tables_fit::<R>(&client, live).await? {
        return Err(Error::Outdated {
            table: format!("{}.{}", live.name(), R::TABLE),
            difference: "its columns are others than those of the new one".to_owned(),
        });
    }
    drop(client);
    // The new tables may be further; then the projection has to come to where they are.
    let (holding, position) = loop {
        let (holding, positions) = hold_live(place).await?;
        let (least, most) = (positions.iter().min().copied(), positions.iter().max().copied());
        match (least, most) {
            (Some(least), Some(most)) if least == most && least >= checkpoint.position() => {
                break (holding, least);
            }
            (None, _) | (_, None) => return Err(Error::NotBuilt { projection: R::TABLE }),
            _ => {}
        }
        drop(holding);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    follow(place, checkpoint, Some(position), reporter).await?;
    reporter.phase(Phase::Comparing);
    // A snapshot of both tables; once it is there, the projection may go on.
    let failed = || failed::<R>("compare the tables");
    let mut client = database.client().await?;
    let transaction = client.transaction().await.map_err(failed())?;
    let snapshot = "set transaction isolation level repeatable read, read only; select";
    transaction.batch_execute(snapshot).await.map_err(failed())?;
    transaction.query("select 1", &[]).await.map_err(failed())?;
    holding.rollback().await?;
    let table = Table::of::<R>(database.schema(), live);
    let counts = format!(
        "select (select count(*) from {}), (select count(*) from {})",
        table.name,
        place.table().name
    );
    let counts = transaction.query_one(&counts, &[]).await.map_err(failed())?;
    let sql = table.differences(&place.table().name);
    let rows = transaction.query(&sql, &[&TOLD]).await.map_err(failed())?;
    let differences: Vec<_> = rows
        .iter()
        .map(|row| Difference { key: row.get(0), live: row.get(1), rebuilt: row.get(2) })
        .collect();
    Ok(Comparison {
        position,
        live_rows: counts.get::<_, i64>(0) as u64,
        rebuilt_rows: counts.get::<_, i64>(1) as u64,
        different: rows.first().map_or(0, |row| row.get::<_, i64>(3) as u64),
        differences,
    })
}
