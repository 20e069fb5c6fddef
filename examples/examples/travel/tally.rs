//! A tally of bookings by destination, every second: made by one of the processes of the booking service, the leader.
//!
//! Each process campaigns, so when the leader is killed another goes on. A leader that was only paused may still believe that
//! it leads: `guard`, in the transaction that writes, keeps its tally out. So the tallies have epochs that never go back.

use std::time::Duration;

use annals::{
    EventStore,
    leader::{Election, Leadership},
    postgres::LeaseOptions,
};
use serde_json::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(1);

const CREATE: &str = "create table if not exists {schema}.tallies (
    number bigint generated always as identity primary key,
    epoch bigint not null,
    made_at timestamptz not null default now(),
    booked bigint not null,
    cancelled bigint not null,
    destinations jsonb not null
)";
const COUNT: &str = "insert into {schema}.tallies (epoch, booked, cancelled, destinations)
    select $1::bigint, coalesce(sum(booked), 0)::bigint, coalesce(sum(cancelled), 0)::bigint,
        coalesce(jsonb_object_agg(destination, booked), '{}')
    from (
        select destination, count(*) filter (where status = 'booked') as booked,
            count(*) filter (where status = 'cancelled') as cancelled
        from booking_overview group by destination
    ) by_destination";
const ALL: &str = "select epoch, booked, cancelled, destinations::text from {schema}.tallies
    order by number";
const IS_THERE: &str = "select to_regclass($1) is not null";

/// How many bookings were booked and cancelled, and who counted them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) epoch: i64,
    pub(crate) booked: u64,
    pub(crate) cancelled: u64,
    /// How many were booked, by destination.
    pub(crate) destinations: Value,
}

/// Makes tallies whenever this process leads, until it is told to stop.
pub(crate) async fn run(
    store: &EventStore,
    lease: LeaseOptions,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let election = Election::new(store, "tally")?.lease(lease);
    loop {
        let Some(leadership) = stop.run_until_cancelled(election.campaign()).await else {
            return Ok(());
        };
        let leadership = leadership?;
        let counting = async {
            loop {
                count(store, &leadership).await?;
                sleep(EVERY).await;
            }
        };
        let leading = stop.run_until_cancelled(leadership.run(counting)).await;
        // The next one need not wait for the lease to end. If it fails, it does.
        let resigned = leadership.resign().await;
        let failed: Option<anyhow::Result<()>> = match leading {
            None => return Ok(resigned?),
            Some(lead) => lead,
        };
        if let Some(Err(error)) = failed {
            // The database may be away, or the read model not be there yet: later, then.
            eprintln!("no tally: {error:#}");
            let _ = stop.run_until_cancelled(sleep(EVERY)).await;
        }
    }
}

async fn count(store: &EventStore, leadership: &Leadership) -> anyhow::Result<()> {
    let schema = store.database()?.schema();
    let unit = store.begin().await?;
    leadership.guard(unit.sql()?).await?;
    // The worker is about to make it.
    if !unit.sql()?.query_one(IS_THERE, &[&"booking_overview"]).await?.try_get::<_, bool>(0)? {
        return Ok(unit.rollback().await?);
    }
    unit.sql()?.batch_execute(&schema.sql(CREATE)).await?;
    unit.sql()?.execute(&schema.sql(COUNT), &[&leadership.epoch()]).await?;
    unit.commit().await?;
    Ok(())
}

/// All tallies, in their order.
pub(crate) async fn all(store: &EventStore) -> anyhow::Result<Vec<Tally>> {
    let database = store.database()?;
    let client = database.client().await?;
    let schema = database.schema();
    let tallies = schema.sql("{schema}.tallies");
    if !client.query_one(IS_THERE, &[&tallies]).await?.try_get::<_, bool>(0)? {
        return Ok(Vec::new());
    }
    let mut tallies = Vec::new();
    for row in client.query(&schema.sql(ALL), &[]).await? {
        let destinations: String = row.try_get(3)?;
        tallies.push(Tally {
            epoch: row.try_get(0)?,
            booked: u64::try_from(row.try_get::<_, i64>(1)?)?,
            cancelled: u64::try_from(row.try_get::<_, i64>(2)?)?,
            destinations: serde_json::from_str(&destinations)?,
        });
    }
    Ok(tallies)
}
