//! Creating a read model's tables and functions, and taking them away.

use annals_eventstore::{
    EventStore,
    postgres::{Database, Transaction},
};

use crate::{
    engine::failed,
    error::Error,
    read_model::{History, ReadModel},
    shape::{Shape, mismatch},
    table::{Table, checkpoint_name},
};

/// Makes sure that tables and checkpoint are there, belong together, and fit the struct.
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
    let name = checkpoint_name::<R>();
    let checkpoint = database
        .schema()
        .sql("select position from {schema}.checkpoints where name = $1 for update");
    let checkpoint = transaction.query_opt(&checkpoint, &[&name]).await.map_err(failed())?;
    let checkpoint = checkpoint.map(|row| row.get::<_, i64>(0));
    let (found, wanted) = shapes::<R>(database, &transaction).await.map_err(failed())?;
    if let Some((table, difference)) = mismatch(&found, &wanted, checkpoint) {
        return Err(Error::ShapeChanged { table, difference });
    }
    transaction.batch_execute(&Table::of::<R>(database).create).await.map_err(failed())?;
    let begin = database.schema().sql(
        "insert into {schema}.checkpoints (name, position) values ($1, 0) on conflict do nothing",
    );
    transaction.execute(&begin, &[&name]).await.map_err(failed())?;
    transaction.commit().await.map_err(failed())
}

/// The tables as they are, and as the struct wants them.
async fn shapes<R: ReadModel>(
    database: &Database,
    transaction: &Transaction<'_>,
) -> Result<([Shape; 2], [Shape; 2]), tokio_postgres::Error> {
    let table = Table::of::<R>(database);
    let kept = transaction.query_one(&table.has_history(), &[]).await?.get(0);
    let in_history = if R::HISTORY == History::Kept || kept {
        columns(transaction, &table.history).await?
    } else {
        Vec::new()
    };
    let found = [columns(transaction, &table.name).await?, in_history];
    let columns = wanted::<R>(transaction).await?;
    let range = ["valid_from bigint not null key", "valid_to bigint not null"].map(str::to_owned);
    let in_history = match R::HISTORY {
        History::Kept => columns.iter().cloned().chain(range).collect(),
        History::None => Vec::new(),
    };
    let shapes = |[main, history]: [Vec<String>; 2]| {
        let name = |suffix| format!("{}.{}{suffix}", database.read_models().name(), R::TABLE);
        [
            Shape { table: name(""), columns: main },
            Shape { table: name("_history"), columns: history },
        ]
    };
    Ok((shapes(found), shapes([columns, in_history])))
}

/// The columns of a table, in order; none if it does not exist.
async fn columns(
    transaction: &Transaction<'_>,
    table: &str,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = transaction
        .query(
            "select attname || ' ' || format_type(atttypid, null)
                 || case when attnotnull then ' not null' else '' end
                 || case when attnum = any (i.indkey) then ' key' else '' end
             from pg_attribute left join pg_index i on i.indrelid = attrelid and i.indisprimary
             where attrelid = to_regclass($1) and attnum > 0 and not attisdropped
             order by attnum",
            &[&table],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The columns of the struct, with their types named as PostgreSQL names them.
async fn wanted<R: ReadModel>(
    transaction: &Transaction<'_>,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let types: Vec<_> = R::COLUMNS.iter().map(|column| column.sql_type).collect();
    let types = transaction
        .query(
            "select coalesce(format_type(to_regtype(name), null), name)
             from unnest($1::text[]) with ordinality given(name, number) order by number",
            &[&types],
        )
        .await?;
    let columns = R::COLUMNS.iter().zip(types.iter().map(|row| row.get::<_, String>(0)));
    Ok(columns
        .map(|(column, sql_type)| {
            let null = if column.nullable { "" } else { " not null" };
            let key = if column.key { " key" } else { "" };
            format!("{} {sql_type}{null}{key}", column.name)
        })
        .collect())
}

/// Takes a read model away: its tables, functions and checkpoint. A worker then builds it anew from
/// the start of the log. Stop its workers first; one that runs starts anew at its next event.
///
/// # Errors
/// If the store is in memory, or the database fails; for example because a view of yours is built on
/// the table.
pub async fn reset<R: ReadModel>(store: &EventStore) -> Result<(), Error> {
    let failed = || failed::<R>("reset");
    let database = store.database()?;
    let table = Table::of::<R>(database);
    let mut client = database.client().await?;
    let transaction = client.transaction().await.map_err(failed())?;
    // First, so that no append is under way that projects into it.
    database.forget_inline(&transaction, &checkpoint_name::<R>()).await?;
    let forget = database.schema().sql("delete from {schema}.checkpoints where name = $1");
    transaction.execute(&forget, &[&checkpoint_name::<R>()]).await.map_err(failed())?;
    // Kept by this code or by earlier code; a table of another's that only bears the name stays.
    let kept = transaction.query_one(&table.has_history(), &[]).await.map_err(failed())?;
    if kept.get(0) {
        transaction.batch_execute(&table.drop_history).await.map_err(failed())?;
    }
    transaction.batch_execute(&table.drop).await.map_err(failed())?;
    transaction.commit().await.map_err(failed())
}
