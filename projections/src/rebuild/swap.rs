//! Putting tables in the place of others, in one transaction.

use std::time::{Duration, Instant};

use annals_eventstore::{
    Position,
    postgres::{Checkpoint, Client, OwnedTransaction, Schema},
};
use tokio_postgres::error::SqlState;

use super::{
    dependents::Dependents,
    follow::{follow, follow_to},
    place::Place,
    progress::Phase,
};
use crate::{
    engine::failed,
    error::Error,
    fail_points::may_fail,
    install::tables_fit,
    read_model::{History, ReadModel},
    table::Table,
};

/// How long to wait for those who use a table: whoever comes behind waits as long.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '2s'";
/// The same while others wait for what is locked already. They may be those that are waited for: it is shorter
/// than the time after which PostgreSQL would look for a deadlock, and fail one of them.
const SHORT_LOCK_TIMEOUT: &str = "set local lock_timeout = '100ms'";
/// For how long to try for that.
const PATIENCE: Duration = Duration::from_secs(60);
/// For how long others have the table in between.
const BETWEEN: Duration = Duration::from_millis(200);

/// Replaces the tables in use by those that were built, once they are as far.
pub(super) async fn swap<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &mut Checkpoint,
) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        // As far as can be without holding anybody up.
        follow(place, checkpoint).await?;
        match try_swap(place, checkpoint).await {
            Err(error) if is_locked(&error) && started.elapsed() < PATIENCE => {
                tokio::time::sleep(BETWEEN).await;
            }
            outcome => return outcome,
        }
    }
}

/// Whether others were in the way.
pub(super) fn is_locked(error: &Error) -> bool {
    let (Error::Database { source, .. } | Error::Bookkeeping { source, .. }) = error else {
        return false;
    };
    let codes = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
    source.code().is_some_and(|code| codes.contains(code))
}

async fn try_swap<R: ReadModel>(
    place: &Place<R>,
    checkpoint: &mut Checkpoint,
) -> Result<(), Error> {
    place.must_not_be_inline().await?;
    let (transaction, positions) = hold_live(place).await?;
    // From here on the projection stands still. Who has seen its rows must not see older ones.
    let furthest = positions.into_iter().max().unwrap_or_default();
    follow_to(place, checkpoint, furthest, None).await?;
    place.reporter.phase(Phase::Swapping);
    let client = transaction.client()?;
    checkpoint.hold(client).await?;
    let positions = vec![checkpoint.position(); usize::from(R::SLICES)];
    replace(place, client, &positions).await?;
    may_fail!("rebuild-swapping");
    transaction.commit().await?;
    may_fail!("rebuild-swapped");
    Ok(())
}

/// Holds the projection where it is, for as long as the transaction lasts.
pub(super) async fn hold_live<R: ReadModel>(
    place: &Place<R>,
) -> Result<(OwnedTransaction, Vec<Position>), Error> {
    let failed = || failed::<R>("hold the projection");
    let transaction = place.transaction().await?;
    let client = transaction.client()?;
    client.batch_execute(LOCK_TIMEOUT).await.map_err(failed())?;
    let sql = place.sql(
        "select position from {schema}.checkpoints
         where name = any ({schema}.checkpoints_of($1)) order by length(name), name for update",
    );
    let rows = client.query(&sql, &[&place.names.live]).await.map_err(failed())?;
    let positions = rows.iter().map(|row| Position::new(row.get(0))).collect();
    Ok((transaction, positions))
}

/// Puts the new tables, whose slices are at these positions, in the place of those in use, and these away.
async fn replace<R: ReadModel>(
    place: &Place<R>,
    client: &Client,
    positions: &[Position],
) -> Result<(), Error> {
    let run =
        async |sql: &str| client.batch_execute(sql).await.map_err(failed::<R>("swap the tables"));
    let (into, away) = (place.database.read_models(), &place.replaced);
    let of = |schema: &Schema| Table::of::<R>(place.database.schema(), schema);
    let (new, live, old) = (of(&place.next), of(into), of(away));
    place.create(client, away).await?;
    let kept = is_there::<R>(client, &live.has_history()).await?;
    let dependents = match is_there::<R>(client, &live.exists()).await? {
        true => {
            let mut all = Dependents::views::<R>(client, &live).await?;
            all.extend([live.name.clone()].into_iter().chain(kept.then(|| live.history.clone())));
            lock_all::<R>(client, &all).await?;
            Some(Dependents::of::<R>(client, &live, &new, kept).await?)
        }
        false => None,
    };
    run(&format!("{}; {};", old.drop, old.drop_history)).await?;
    if let Some(dependents) = &dependents {
        run(&dependents.drop).await?;
        let fits = tables_fit::<R>(client, into).await?;
        // Functions that stay what they are keep their identity, so that whoever calls them at this moment
        // finds them.
        run(if fits { &live.drop_changes } else { &live.drop_functions }).await?;
        run(&moved(&live.name, away)).await?;
        if kept {
            run(&moved(&live.history, away)).await?;
        }
    }
    run(&moved(&new.name, into)).await?;
    if R::HISTORY == History::Kept {
        run(&moved(&new.history, into)).await?;
    }
    run(&live.functions).await?;
    if let Some(dependents) = &dependents {
        run(&dependents.create).await?;
    }
    let positions: Vec<_> = positions.iter().map(ToString::to_string).collect();
    let sql = place.sql(include_str!("../sql/swapped.sql")).replace("{old}", &old.name);
    run(&sql.replace("{positions}", &format!("{{{}}}", positions.join(",")))).await
}

/// Locks views and tables, in the order in which those who read them do: first the views.
async fn lock_all<R: ReadModel>(client: &Client, all: &[String]) -> Result<(), Error> {
    let lock = |name: &String| format!("lock table {name} in access exclusive mode;");
    let mut all = all.iter().map(lock);
    let first = all.next().unwrap_or_default();
    let sql = format!("{first} {SHORT_LOCK_TIMEOUT}; {}", all.collect::<String>());
    let locked = client.batch_execute(&sql).await;
    locked.map_err(failed::<R>("lock the tables"))
}

async fn is_there<R: ReadModel>(client: &Client, sql: &str) -> Result<bool, Error> {
    let there = client.query_one(sql, &[]).await;
    Ok(there.map_err(failed::<R>("look for tables"))?.get(0))
}

fn moved(table: &str, into: &Schema) -> String {
    format!("alter table {table} set schema {};", into.sql("{schema}"))
}

/// Puts back what was replaced last.
pub(super) async fn rollback<R: ReadModel>(place: &Place<R>) -> Result<(), Error> {
    place.must_not_be_inline().await?;
    let started = Instant::now();
    loop {
        match try_rollback(place).await {
            Err(error) if is_locked(&error) && started.elapsed() < PATIENCE => {
                tokio::time::sleep(BETWEEN).await;
            }
            outcome => return outcome,
        }
    }
}

async fn try_rollback<R: ReadModel>(place: &Place<R>) -> Result<(), Error> {
    let failed = || failed::<R>("roll back");
    let (transaction, _) = hold_live(place).await?;
    let client = transaction.client()?;
    place.lease.hold(client).await?;
    let sql = "select positions from {schema}.replaced_projections where name = $1";
    let replaced = client.query_opt(&place.sql(sql), &[&place.names.live]).await;
    let Some(replaced) = replaced.map_err(failed())? else {
        return Err(Error::NotRebuilt { projection: R::TABLE });
    };
    let positions: Vec<i64> = replaced.get(0);
    let positions: Vec<_> = positions.into_iter().map(Position::new).collect();
    let outdated = |difference: &str| Error::Outdated {
        table: format!("{}.{}", place.replaced.name(), R::TABLE),
        difference: difference.to_owned(),
    };
    if !tables_fit::<R>(client, &place.replaced).await? {
        return Err(outdated("it has the columns of another version of the program"));
    }
    // What was built meanwhile makes room.
    place.create(client, &place.next).await?;
    let old = Table::of::<R>(place.database.schema(), &place.replaced);
    let Table { drop, drop_history, .. } = place.table();
    let mut restore = format!("{drop}; {drop_history}; {}", moved(&old.name, &place.next));
    if R::HISTORY == History::Kept {
        restore += &moved(&old.history, &place.next);
    }
    restore += &place.sql(include_str!("../sql/restored.sql"));
    client.batch_execute(&restore).await.map_err(failed())?;
    replace(place, client, &positions).await?;
    // From now on nothing that is beyond them is archived.
    if is_archived_beyond(place, client, positions.into_iter().min()).await? {
        return Err(outdated("streams were archived that it has not seen"));
    }
    may_fail!("rebuild-rolling-back");
    transaction.commit().await?;
    may_fail!("rebuild-rolled-back");
    Ok(())
}

/// Whether there are archived events beyond a position, which a worker that starts there would not see.
async fn is_archived_beyond<R: ReadModel>(
    place: &Place<R>,
    client: &Client,
    position: Option<Position>,
) -> Result<bool, Error> {
    let sql = "select exists (
             select from {schema}.archived_events e join {schema}.streams s on s.id = e.stream_id
             where e.position > $1 and s.category = any ($2))";
    let sources = R::sources();
    let categories: Vec<_> = sources.iter().map(|source| source.category()).collect();
    let position = position.unwrap_or_default().get();
    let beyond = client.query_one(&place.sql(sql), &[&position, &categories]).await;
    Ok(beyond.map_err(failed::<R>("look for archived events"))?.get(0))
}
