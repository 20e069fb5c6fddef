//! Putting tables in the place of others, in one transaction.

use std::time::Duration;

use annals_eventstore::{
    Position,
    postgres::{Checkpoint, Client, OwnedTransaction, Schema},
};
use tokio_postgres::error::SqlState;

use super::{
    follow::follow,
    place::Place,
    progress::{Phase, Reporter},
    views::Views,
};
use crate::{
    engine::failed,
    error::Error,
    install::{lock, tables_fit},
    read_model::{History, ReadModel},
    table::Table,
};

/// How long to wait for those who use a table: whoever comes behind waits as long.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '2s'";
/// How often to try for that.
const TRIES: u32 = 30;

/// Replaces the tables in use by those that were built, once they are as far.
pub(super) async fn swap<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &mut Checkpoint,
    reporter: &Reporter,
) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        // As far as can be without holding anybody up.
        follow(place, checkpoint, None, reporter).await?;
        match try_swap(place, checkpoint, reporter).await {
            Err(error) if is_locked(&error) && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            outcome => return outcome,
        }
    }
}

fn is_locked(error: &Error) -> bool {
    matches!(error, Error::Database { source, .. } | Error::Bookkeeping { source, .. }
        if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE))
}

async fn try_swap<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &mut Checkpoint,
    reporter: &Reporter,
) -> Result<(), Error> {
    let (transaction, positions) = hold_live(place).await?;
    // From here on the projection stands still. Who has seen its rows must not see older ones.
    let furthest = positions.iter().copied().max().unwrap_or_default().max(checkpoint.position());
    follow(place, checkpoint, Some(furthest), reporter).await?;
    reporter.phase(Phase::Swapping);
    let client = transaction.client()?;
    checkpoint.hold(client).await?;
    let live = place.database.read_models();
    replace::<R>(place, client, &place.next, live, &place.replaced).await?;
    let sql = place.database.schema().sql(include_str!("../sql/swapped.sql"));
    let sql = sql.replace("{live}", &place.live_name).replace("{next}", &place.name);
    let sql = sql.replace("{position}", &checkpoint.position().to_string());
    client.batch_execute(&sql).await.map_err(failed::<R>("note the swap"))?;
    transaction.commit().await?;
    Ok(())
}

/// Holds the projection at where it is, for as long as the transaction lasts.
pub(super) async fn hold_live<R: ReadModel>(
    place: &Place<R>,
) -> Result<(OwnedTransaction, Vec<Position>), Error> {
    let failed = || failed::<R>("hold the projection");
    let transaction = place.database.begin().await?;
    let client = transaction.client()?;
    client.batch_execute(LOCK_TIMEOUT).await.map_err(failed())?;
    lock::<R>(client).await?;
    if place.database.inline_categories(&place.live_name).await?.is_some() {
        return Err(Error::RunsInline { projection: R::TABLE.to_owned() });
    }
    let sql = place.database.schema().sql(
        "select position from {schema}.checkpoints
         where name = any ({schema}.checkpoints_of($1)) order by name for update",
    );
    let rows = client.query(&sql, &[&place.live_name]).await.map_err(failed())?;
    let positions = rows.iter().map(|row| Position::new(row.get(0))).collect();
    Ok((transaction, positions))
}

/// Moves the tables from one schema into another, and those that are there into a third.
async fn replace<R: ReadModel>(
    place: &Place<R>,
    client: &Client,
    from: &Schema,
    into: &Schema,
    away: &Schema,
) -> Result<(), Error> {
    let failed = || failed::<R>("swap the tables");
    let of = |schema: &Schema| Table::of::<R>(place.database.schema(), schema);
    let (new, live, old) = (of(from), of(into), of(away));
    let there: bool = client.query_one(&live.exists(), &[]).await.map_err(failed())?.get(0);
    let kept: bool = client.query_one(&live.has_history(), &[]).await.map_err(failed())?.get(0);
    let views = if there { Some(Views::of::<R>(client, &live).await?) } else { None };
    let mut sql = format!(
        "do $$ begin if to_regnamespace('{0}') is null then create schema {0}; end if; end $$;",
        away.sql("{schema}"),
    );
    sql += &format!("{}; {};", old.drop, old.drop_history);
    if let Some(views) = &views {
        sql += &include_str!("../sql/copy_grants.sql")
            .replace("{from}", &live.name)
            .replace("{to}", &new.name);
        client.batch_execute(&sql).await.map_err(failed())?;
        sql.clear();
        views.drop::<R>(client).await?;
        sql += &live.drop_functions;
        sql += &moved(&live.name, away);
        if kept {
            sql += &moved(&live.history, away);
        }
    }
    sql += &moved(&new.name, into);
    if R::HISTORY == History::Kept {
        sql += &moved(&new.history, into);
    }
    sql += &live.functions;
    client.batch_execute(&sql).await.map_err(failed())?;
    match views {
        Some(views) => views.create::<R>(client).await,
        None => Ok(()),
    }
}

fn moved(table: &str, into: &Schema) -> String {
    format!("alter table {table} set schema {};", into.sql("{schema}"))
}

/// Puts back what was replaced last.
pub(super) async fn rollback<R: ReadModel>(place: &Place<R>) -> Result<(), Error> {
    let (transaction, _) = hold_live(place).await?;
    let client = transaction.client()?;
    let failed = || failed::<R>("roll back");
    let old = Table::of::<R>(place.database.schema(), &place.replaced);
    let there: bool = client.query_one(&old.exists(), &[]).await.map_err(failed())?.get(0);
    if !there {
        return Err(Error::NotRebuilt { projection: R::TABLE });
    }
    if !tables_fit::<R>(client, &place.replaced).await? {
        return Err(Error::Outdated {
            table: old.name.replace('"', ""),
            difference: "it has the columns of another version of the program".to_owned(),
        });
    }
    // Out of the way of what is replaced now.
    let next = &place.next;
    let waiting = Table::of::<R>(place.database.schema(), next);
    let mut sql = format!(
        "do $$ begin if to_regnamespace('{0}') is null then create schema {0}; end if; end $$;",
        next.sql("{schema}"),
    );
    sql += &format!("{}; {};", waiting.drop, waiting.drop_history);
    sql += &moved(&old.name, next);
    if R::HISTORY == History::Kept {
        sql += &moved(&old.history, next);
    }
    client.batch_execute(&sql).await.map_err(failed())?;
    replace::<R>(place, client, next, place.database.read_models(), &place.replaced).await?;
    let sql = place.database.schema().sql(include_str!("../sql/rolled_back.sql"));
    let sql = sql.replace("{live}", &place.live_name).replace("{next}", &place.name);
    client.batch_execute(&sql).await.map_err(failed())?;
    transaction.commit().await?;
    Ok(())
}
