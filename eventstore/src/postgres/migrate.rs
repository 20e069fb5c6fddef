//! Brings the schema to the version that this code needs: numbered migrations, each applied once,
//! under a lock, and remembered with its checksum.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use super::{Schema, database_error};
use crate::{error::Error, store::Migrating};

/// A migration is never edited once it has landed; a change is a new one.
const MIGRATIONS: &[&str] = &[
    include_str!("sql/migrations/0001_store.sql"),
    include_str!("sql/migrations/0002_snapshots.sql"),
    include_str!("sql/migrations/0003_life.sql"),
    include_str!("sql/migrations/0004_inline_projections.sql"),
    include_str!("sql/migrations/0005_recovery.sql"),
    include_str!("sql/migrations/0006_append.sql"),
    include_str!("sql/migrations/0007_projections.sql"),
    include_str!("sql/migrations/0008_feeds.sql"),
    include_str!("sql/migrations/0009_sagas.sql"),
    include_str!("sql/migrations/0010_append.sql"),
];

pub(super) async fn migrate(
    client: &mut Client,
    schema: &Schema,
    migrating: Migrating,
) -> Result<(), Error> {
    let failed = |error| database_error("migrate the schema", error);
    // All in transactions: a pooler gives each statement outside of one another session.
    let looking = client.transaction().await.map_err(failed)?;
    // A program whose role may not create schemas starts on one that is up to date.
    let known = applied(&looking, schema).await?.len();
    looking.commit().await.map_err(failed)?;
    if known == MIGRATIONS.len() {
        return Ok(());
    }
    if migrating == Migrating::Refused {
        let (schema, needed) = (schema.name().to_owned(), MIGRATIONS.len() as i32);
        return Err(match known as i32 {
            0 => Error::SchemaMissing { schema },
            found => Error::SchemaOutdated { schema, found, needed },
        });
    }
    let transaction = client.transaction().await.map_err(failed)?;
    transaction
        .execute(
            "select pg_advisory_xact_lock(hashtext('annals migrations'), hashtext($1))",
            &[&schema.name()],
        )
        .await
        .map_err(failed)?;
    transaction
        .batch_execute(&schema.sql(
            // Not `if not exists`: that takes the right to create schemas also where there is one.
            "do $$ begin
                 if to_regnamespace('{schema}') is null then create schema {schema}; end if;
             end $$;
             create table if not exists {schema}.migrations (
                 number integer primary key,
                 checksum bytea not null,
                 applied_at timestamptz not null default clock_timestamp()
             )",
        ))
        .await
        .map_err(failed)?;
    let done = applied(&transaction, schema).await?.len();
    for (migration, number) in MIGRATIONS.iter().zip(1i32..).skip(done) {
        tracing::info!(schema = schema.name(), number, "applying migration");
        transaction.batch_execute(&schema.sql(migration)).await.map_err(failed)?;
        transaction
            .execute(
                &schema.sql("insert into {schema}.migrations (number, checksum) values ($1, $2)"),
                &[&number, &checksum(migration).as_slice()],
            )
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

/// The numbers of the migrations applied, after checking that this code knows them all.
async fn applied(
    client: &impl tokio_postgres::GenericClient,
    schema: &Schema,
) -> Result<Vec<i32>, Error> {
    let failed = |error| database_error("read the applied migrations", error);
    let table = schema.sql("{schema}.migrations");
    let exists = client
        .query_one("select to_regclass($1) is not null", &[&table])
        .await
        .map_err(failed)?
        .get::<_, bool>(0);
    if !exists {
        return Ok(Vec::new());
    }
    let sql = format!("select number, checksum from {table} order by number");
    let rows = client.query(&sql, &[]).await.map_err(failed)?;
    let mut numbers = Vec::with_capacity(rows.len());
    for row in rows {
        let number: i32 = row.get(0);
        let known = usize::try_from(number - 1).ok().and_then(|index| MIGRATIONS.get(index));
        match known {
            None => {
                return Err(Error::SchemaTooNew {
                    schema: schema.name().to_owned(),
                    found: number,
                    supported: MIGRATIONS.len() as i32,
                });
            }
            Some(migration) if row.get::<_, &[u8]>(1) != checksum(migration) => {
                return Err(Error::MigrationChanged { schema: schema.name().to_owned(), number });
            }
            Some(_) => numbers.push(number),
        }
    }
    Ok(numbers)
}

/// The checksums of all migrations, from number 1.
pub(super) fn checksums() -> Vec<Vec<u8>> {
    MIGRATIONS.iter().map(|migration| checksum(migration)).collect()
}

/// The functions that the migrations leave behind, each with its body as it stands in the last of them.
pub(super) fn functions(schema: &Schema) -> BTreeMap<&'static str, String> {
    let mut functions = BTreeMap::new();
    for migration in MIGRATIONS {
        for (at, _) in migration.match_indices("function {schema}.") {
            let (before, after) = (&migration[..at], &migration[at + "function {schema}.".len()..]);
            let name = after.split(['(', ';']).next().unwrap_or_default();
            if before.ends_with("create ") || before.ends_with("create or replace ") {
                if let Some(body) = after.split("$$").nth(1) {
                    functions.insert(name, schema.sql(body));
                }
            } else if before.ends_with("drop ") {
                functions.remove(name);
            }
        }
    }
    functions
}

fn checksum(migration: &str) -> Vec<u8> {
    Sha256::digest(migration.as_bytes()).to_vec()
}
