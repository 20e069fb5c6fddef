//! What leaders write, and whether it was one after the other.

use annals_eventstore::{Error, EventStore, leader::Leadership};
use tokio_postgres::Client;

use crate::support::database::value;

/// Rows have the numbers in whose order they were written.
pub(crate) const TABLE: &str = "create table if not exists writes (
    number bigserial primary key, epoch bigint not null, writer text not null)";

/// Whether a leader guards what it writes. One that does not shows that the judge can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    Guarded,
    Missing,
}

/// A place in the transaction that writes, where a process may be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    BeforeGuard,
    BehindGuard,
    Written,
}

/// Writes a row in the epoch of a leadership, whatever that knows of its end.
pub(crate) async fn write(
    store: &EventStore,
    leadership: &Leadership,
    writer: &str,
    fence: Fence,
    at: impl Fn(Step),
) -> Result<(), Error> {
    let failed = |source: tokio_postgres::Error| Error::Database {
        action: "write a row",
        source: source.into(),
        retryable: true,
    };
    let transaction = store.database()?.begin().await?;
    let client = transaction.client()?;
    at(Step::BeforeGuard);
    if fence == Fence::Guarded {
        leadership.guard(client).await?;
    }
    at(Step::BehindGuard);
    let insert = "insert into writes (epoch, writer) values ($1, $2)";
    client.execute(insert, &[&leadership.epoch(), &writer]).await.map_err(failed)?;
    at(Step::Written);
    transaction.commit().await
}

/// How many rows there are of an epoch.
pub(crate) async fn rows_of(client: &Client, epoch: i64) -> i64 {
    let sql = "select count(*) from writes where epoch = $1";
    client.query_one(sql, &[&epoch]).await.unwrap().get(0)
}

/// The rows that were written when a later leader had written before, and the epochs that two have written in.
pub(crate) async fn interleaved(client: &Client) -> i64 {
    value(
        client,
        "select (
             select count(*) from (
                 select epoch, max(epoch) over (order by number) as highest from writes) w
             where epoch < highest)
         + (select count(*) from (
                select epoch from writes group by epoch having count(distinct writer) > 1) e)",
    )
    .await
}
