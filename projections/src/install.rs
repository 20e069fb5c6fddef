//! Creating a read model's tables and functions, and taking them away.

use annals_eventstore::{
    EventStore,
    postgres::{Database, GenericClient, Schema},
};

use tokio_postgres::Row;

use crate::{
    control::Kind,
    engine::failed,
    error::Error,
    read_model::{History, ReadModel},
    shape::{Shape, mismatch},
    table::{Table, checkpoint_name},
};

/// Makes sure that tables and checkpoints are there, belong together, and fit the struct.
pub(crate) async fn install<R: ReadModel>(database: &Database) -> Result<(), Error> {
    let failed = || failed::<R>("create the tables");
    let mut client = database.client().await?;
    let transaction = client.transaction().await.map_err(failed())?;
    lock::<R>(&transaction).await?;
    let name = checkpoint_name::<R>();
    let sql = database.schema().sql(include_str!("sql/registered.sql"));
    let registered = transaction.query_one(&sql, &[&name]).await.map_err(failed())?;
    let checkpoint = registered.get::<_, Option<i64>>(0);
    if let Some(kind) = registered.get::<_, Option<&str>>(3).map(Kind::of)
        && kind != Kind::Rows
    {
        return Err(Error::NameTaken { projection: R::TABLE.to_owned(), kind });
    }
    let table = format!("{}.{}", database.read_models().name(), R::TABLE);
    if let Some(version) = registered.get::<_, Option<i32>>(1)
        && version > R::VERSION as i32
    {
        return Err(Error::Superseded { table, version: version as u32 });
    }
    let (found, wanted) = shapes::<R>(database.schema(), database.read_models(), &transaction)
        .await
        .map_err(failed())?;
    if let Some((table, difference)) = mismatch(&found, &wanted, checkpoint) {
        // Rows that are not from this store's log are not ours to build anew.
        return Err(match checkpoint {
            Some(_) => Error::Outdated { table, difference },
            None => Error::ShapeChanged { table, difference },
        });
    }
    if let Some(difference) = outdated::<R>(registered.get(1), registered.get(2)) {
        return Err(Error::Outdated { table, difference });
    }
    let table = Table::of::<R>(database.schema(), database.read_models());
    // Only what is missing: to create an index takes a lock on the table, also where there is one.
    let mut create = table.tables.clone();
    let there =
        "select to_regclass(name) is not null from unnest($1::text[]) with ordinality n (name, n)
         order by n";
    let names: Vec<_> = table.all_indexes().map(|index| &*index.name).collect();
    let there = transaction.query(there, &[&names]).await.map_err(failed())?;
    for (index, there) in std::iter::zip(table.all_indexes(), &there) {
        if !there.get::<_, bool>(0) {
            create += &index.create;
        }
    }
    create += &table.functions;
    create += &registration::<R>(database.schema());
    transaction.batch_execute(&create).await.map_err(failed())?;
    transaction.commit().await.map_err(failed())
}

/// The SQL that makes a read model ready for its first worker: its tables, indexes and functions, and its
/// checkpoint at the start of the log. For somebody to look at, or to run: it changes nothing where they
/// are. The schemas are those of the store's tables and of the read models':
///
/// ```
/// # use annals_eventstore::EventStore;
/// # fn print<R: annals_projections::ReadModel>() -> Result<(), annals_eventstore::Error> {
/// let (store, read_models) = EventStore::options().schema("orders").schemas()?;
/// println!("{}", annals_projections::ddl::<R>(&store, &read_models));
/// # Ok(()) }
/// ```
///
/// Of a store that is open they are [`Database::schema`] and [`Database::read_models`].
pub fn ddl<R: ReadModel>(store: &Schema, read_models: &Schema) -> String {
    let table = Table::of::<R>(store, read_models);
    let indexes: String = table.all_indexes().map(|index| &*index.create).collect();
    [&*table.tables, &indexes, &table.functions, &registration::<R>(store)].concat()
}

/// Notes which version of the code makes the rows, and in how many slices, unless that is known.
fn registration<R: ReadModel>(store: &Schema) -> String {
    let sql = store.sql(include_str!("sql/register.sql"));
    sql.replace("{name}", &checkpoint_name::<R>())
        .replace("{slices}", &R::SLICES.to_string())
        .replace("{version}", &R::VERSION.to_string())
}

/// Takes the lock of a projection, by its name.
pub(crate) const LOCK: &str =
    "select pg_advisory_xact_lock(hashtext('annals read model'), hashtext($1))";

/// `create or replace` and `if not exists` are not safe against another worker's.
pub(crate) async fn lock<R: ReadModel>(client: &impl GenericClient) -> Result<(), Error> {
    let locked = client.execute(LOCK, &[&R::TABLE]).await;
    locked.map(drop).map_err(failed::<R>("lock the read model"))
}

/// In what the rows differ from those that this code would make, as far as numbers tell.
fn outdated<R: ReadModel>(version: Option<i32>, slices: Option<i16>) -> Option<String> {
    match (version, slices) {
        (Some(version), _) if version != R::VERSION as i32 => Some(format!(
            "its rows were made by version {version} of the projection, and this is version {}",
            R::VERSION
        )),
        (_, Some(slices)) if slices != R::SLICES as i16 => Some(format!(
            "it is projected in {slices} slices, and this program wants {}",
            R::SLICES
        )),
        _ => None,
    }
}

/// Whether the tables in a schema are those that the struct wants.
pub(crate) async fn tables_fit<R: ReadModel>(
    client: &impl GenericClient,
    schema: &Schema,
) -> Result<bool, Error> {
    let (found, wanted) =
        shapes::<R>(schema, schema, client).await.map_err(failed::<R>("look at the tables"))?;
    Ok(found == wanted)
}

/// The tables as they are, and as the struct wants them.
async fn shapes<R: ReadModel>(
    store: &Schema,
    schema: &Schema,
    transaction: &impl GenericClient,
) -> Result<([Shape; 2], [Shape; 2]), tokio_postgres::Error> {
    let table = Table::of::<R>(store, schema);
    let kept = first(transaction.query(&table.has_history(), &[]).await?);
    let in_history = if R::HISTORY == History::Kept || kept {
        columns(transaction, &table.history).await?
    } else {
        Vec::new()
    };
    let found = [columns(transaction, &table.name).await?, in_history];
    let mut columns = wanted::<R>(transaction).await?;
    let mut in_history = Vec::new();
    if R::HISTORY == History::Kept {
        columns.push("valid_from bigint not null".to_owned());
        in_history = columns.iter().map(|column| column.replace(" key", "")).collect();
        in_history.extend(["valid_to", "node"].map(|name| format!("{name} bigint not null")));
    }
    let shapes = |[main, history]: [Vec<String>; 2]| {
        let name = |suffix| format!("{}.{}{suffix}", schema.name(), R::TABLE);
        [
            Shape { table: name(""), columns: main },
            Shape { table: name("_history"), columns: history },
        ]
    };
    Ok((shapes(found), shapes([columns, in_history])))
}

fn first(rows: Vec<Row>) -> bool {
    rows.first().is_some_and(|row| row.get(0))
}

/// The columns of a table, in order; none if it does not exist.
async fn columns(
    transaction: &impl GenericClient,
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
    transaction: &impl GenericClient,
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
/// [`Rebuild`](crate::Rebuild) does the same beside the tables, while they are in use.
///
/// # Errors
/// If the store is in memory, or the database fails; for example because a view of yours is built on
/// the table.
pub async fn reset<R: ReadModel>(store: &EventStore) -> Result<(), Error> {
    let failed = || failed::<R>("reset");
    let database = store.database()?;
    let name = checkpoint_name::<R>();
    let table = Table::of::<R>(database.schema(), database.read_models());
    let mut client = database.client().await?;
    let transaction = client.transaction().await.map_err(failed())?;
    lock::<R>(&transaction).await?;
    // First, so that no append is under way that projects into it.
    database.forget_inline(&transaction, &name).await?;
    for forget in [
        "delete from {schema}.checkpoints where name = any ({schema}.checkpoints_of($1))",
        "delete from {schema}.parked_streams where projection = $1",
        "delete from {schema}.projections where name = $1",
    ] {
        let forget = database.schema().sql(forget);
        transaction.execute(&forget, &[&name]).await.map_err(failed())?;
    }
    // Kept by this code or by earlier code; a table of another's that only bears the name stays.
    let kept = transaction.query_one(&table.has_history(), &[]).await.map_err(failed())?;
    if kept.get(0) {
        transaction.batch_execute(&table.drop_functions).await.map_err(failed())?;
        transaction.batch_execute(&table.drop_history).await.map_err(failed())?;
    }
    transaction.batch_execute(&table.drop).await.map_err(failed())?;
    transaction.commit().await.map_err(failed())
}
