//! Creating a read model's tables and functions, and taking them away.

use annals_eventstore::{EventStore, postgres::Database};

use crate::{
    engine::failed,
    error::Error,
    read_model::{History, ReadModel},
    table::{Table, checkpoint_name},
};

/// Makes sure that the tables are there and fit the struct.
pub(crate) async fn install<R: ReadModel>(database: &Database) -> Result<(), Error> {
    let failed = || failed::<R>("create the tables");
    let mut client = database.client().await?;
    let transaction = client.transaction().await.map_err(failed())?;
    // `create or replace` and `if not exists` are not safe against another worker's.
    transaction
        .execute(
            "select pg_advisory_xact_lock(hashtext('annals read model'), hashtext($1))",
            &[&R::TABLE],
        )
        .await
        .map_err(failed())?;
    for (table, wanted) in tables::<R>(database) {
        let found = columns::<R>(&transaction, &table).await?;
        if !found.is_empty() && found != wanted {
            return Err(Error::ShapeChanged { difference: difference(&found, &wanted), table });
        }
    }
    transaction.batch_execute(&Table::of::<R>(database).create).await.map_err(failed())?;
    transaction.commit().await.map_err(failed())
}

/// The tables of a read model with their columns and types, in order.
fn tables<R: ReadModel>(database: &Database) -> Vec<(String, Vec<String>)> {
    let name = |suffix| format!("{}.{}{suffix}", database.read_models().name(), R::TABLE);
    let columns: Vec<_> = R::COLUMNS
        .iter()
        .map(|c| format!("{} {}{}", c.name, c.sql_type, if c.nullable { "" } else { " not null" }))
        .collect();
    let mut tables = vec![(name(""), columns.clone())];
    if R::HISTORY == History::Kept {
        let range = ["valid_from bigint not null", "valid_to bigint not null"];
        tables.push((
            name("_history"),
            columns.into_iter().chain(range.map(str::to_owned)).collect(),
        ));
    }
    tables
}

async fn columns<R: ReadModel>(
    transaction: &annals_eventstore::postgres::Transaction<'_>,
    table: &str,
) -> Result<Vec<String>, Error> {
    // The types' short names, as they are declared.
    let rows = transaction
        .query(
            "select attname || ' ' || case format_type(atttypid, null)
                 when 'timestamp with time zone' then 'timestamptz'
                 else format_type(atttypid, null) end
                 || case when attnotnull then ' not null' else '' end
             from pg_attribute
             where attrelid = to_regclass($1) and attnum > 0 and not attisdropped
             order by attnum",
            &[&table],
        )
        .await
        .map_err(failed::<R>("read the tables' columns"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn difference(found: &[String], wanted: &[String]) -> String {
    let missing = |from: &[String], of: &[String]| -> String {
        let names: Vec<_> = of.iter().filter(|c| !from.contains(c)).cloned().collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    format!(
        "only the struct has {}; only the table has {}",
        missing(found, wanted),
        missing(wanted, found)
    )
}

/// Takes a read model away: its tables, functions and checkpoint. A worker then builds it anew from
/// the start of the log. Stop its workers first; one that runs fails and stops.
///
/// # Errors
/// If the store is in memory, or the database fails.
pub async fn reset<R: ReadModel>(store: &EventStore) -> Result<(), Error> {
    let failed = || failed::<R>("reset");
    let database = store.database()?;
    let mut client = database.client().await?;
    let transaction = client.transaction().await.map_err(failed())?;
    let forget = database.schema().sql("delete from {schema}.checkpoints where name = $1");
    transaction.execute(&forget, &[&checkpoint_name::<R>()]).await.map_err(failed())?;
    transaction.batch_execute(&Table::of::<R>(database).drop).await.map_err(failed())?;
    transaction.commit().await.map_err(failed())
}
