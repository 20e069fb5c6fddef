//! Gauges of what the database knows. A look from any process shows them, also when no worker runs: that is when they
//! matter most.

use std::{collections::HashSet, time::Duration};

use annals_eventstore::{EventStore, metrics::Metric, postgres::Database};
use metrics::{Unit, gauge};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    control::{ProjectionStatus, State, status, stored},
    error::Error,
    worker::failure::text,
};

const UP: Metric = Metric::gauge(
    "annals_watch_up",
    Unit::Count,
    &[],
    "1 if the last look at the database went well, 0 if the gauges of projections, leases and sagas are old",
);
const LAG: Metric = Metric::gauge(
    "annals_projection_lag_events",
    Unit::Count,
    &["projection"],
    "Positions of the log that a projection has before it",
);
const LAG_TIME: Metric = Metric::gauge(
    "annals_projection_lag_seconds",
    Unit::Seconds,
    &["projection"],
    "Age of the oldest event that a projection has before it",
);
const STATE: Metric = Metric::gauge(
    "annals_projection_state",
    Unit::Count,
    &["projection", "state"],
    "1 for the state that a projection is in: running, inline, stopped, paused or broken",
);
const PARKED: Metric = Metric::gauge(
    "annals_projection_parked_streams",
    Unit::Count,
    &["projection"],
    "Streams that are parked now",
);
const HELD: Metric = Metric::gauge(
    "annals_lease_held",
    Unit::Count,
    &["lease"],
    "1 if some process holds a lease, 0 if none does",
);
const EPOCH: Metric = Metric::gauge(
    "annals_lease_epoch",
    Unit::Count,
    &["lease"],
    "The epoch of a lease: one more with each holder",
);
const SAGAS: Metric = Metric::gauge(
    "annals_saga_instances",
    Unit::Count,
    &["saga", "status"],
    "Sagas that have not ended: running, compensating or stuck",
);
const OVERDUE: Metric = Metric::gauge(
    "annals_saga_overdue_seconds",
    Unit::Seconds,
    &["saga", "what"],
    "For how long the oldest timer, or call, has been due that nobody has taken up",
);

pub(super) const METRICS: &[Metric] =
    &[UP, LAG, LAG_TIME, STATE, PARKED, HELD, EPOCH, SAGAS, OVERDUE];

const STATES: [&str; 5] = ["running", "inline", "stopped", "paused", "broken"];
const LIVE: [&str; 3] = ["running", "compensating", "stuck"];

/// Shows what the database knows in gauges, anew after each interval, until told to stop: of each projection its lag,
/// its state and what is parked; of each lease if it is held, and its epoch; of sagas how many run or are stuck, and
/// what is overdue.
///
/// One process that does so is enough. Where several do, all show the same. A look is a few short statements. Where it
/// fails, `annals_watch_up` is 0 and the gauges stay as they were.
///
/// Cancellation safe: dropped, it shows nothing any more.
///
/// # Errors
/// If the store is in memory. Other failures are logged, and it looks again.
pub async fn watch(
    store: &EventStore,
    interval: Duration,
    stop: CancellationToken,
) -> Result<(), Error> {
    store.database()?;
    super::describe();
    let mut shown = Shown::default();
    let mut is_up = true;
    loop {
        match shown.look(store).await {
            Ok(()) => is_up = true,
            // Said once.
            Err(error) if is_up => {
                warn!(error = text(&error), "the gauges of projections, leases and sagas are old");
                is_up = false;
            }
            Err(error) => debug!(error = text(&error), "no look at the database"),
        }
        gauge!(UP.name).set(if is_up { 1.0 } else { 0.0 });
        if tokio::time::timeout(interval, stop.cancelled()).await.is_ok() {
            return Ok(());
        }
    }
}

/// What was shown before. What is gone since goes to zero.
#[derive(Default)]
struct Shown {
    projections: HashSet<String>,
    leases: HashSet<String>,
    sagas: HashSet<String>,
}

impl Shown {
    async fn look(&mut self, store: &EventStore) -> Result<(), Error> {
        let projections = status(store).await?;
        let database = store.database()?;
        let leases = leases(database).await?;
        let sagas = sagas(database).await?;
        self.projections(&projections);
        self.leases(leases);
        self.sagas(sagas);
        Ok(())
    }

    fn projections(&mut self, all: &[ProjectionStatus]) {
        let now = all.iter().map(|projection| projection.name.clone()).collect();
        for gone in replace(&mut self.projections, now) {
            let label = || gone.clone();
            gauge!(LAG.name, "projection" => label()).set(0.0);
            gauge!(LAG_TIME.name, "projection" => label()).set(0.0);
            gauge!(PARKED.name, "projection" => label()).set(0.0);
            show_state(&gone, "");
        }
        for projection in all {
            let label = || projection.name.clone();
            let waiting = projection.waiting.unwrap_or_default();
            gauge!(LAG.name, "projection" => label()).set(projection.behind as f64);
            gauge!(LAG_TIME.name, "projection" => label()).set(waiting.as_secs_f64());
            gauge!(PARKED.name, "projection" => label()).set(projection.parked as f64);
            let state = match projection.state {
                State::Running => "running",
                State::Inline => "inline",
                State::Stopped => "stopped",
                State::Paused(_) => "paused",
                State::Broken { .. } => "broken",
            };
            show_state(&projection.name, state);
        }
    }

    fn leases(&mut self, all: Vec<(String, bool, i64)>) {
        let now = all.iter().map(|(name, ..)| name.clone()).collect();
        for gone in replace(&mut self.leases, now) {
            gauge!(HELD.name, "lease" => gone).set(0.0);
        }
        for (name, held, epoch) in all {
            gauge!(HELD.name, "lease" => name.clone()).set(f64::from(u8::from(held)));
            gauge!(EPOCH.name, "lease" => name).set(epoch as f64);
        }
    }

    fn sagas(&mut self, all: Vec<OfSaga>) {
        let now = all.iter().map(|of| of.saga.clone()).collect();
        for gone in replace(&mut self.sagas, now) {
            OfSaga { saga: gone, live: [0; 3], timer: 0.0, call: 0.0 }.show();
        }
        all.iter().for_each(OfSaga::show);
    }
}

/// Remembers what is there now. Returns what was there before and is not any more.
fn replace(shown: &mut HashSet<String>, now: HashSet<String>) -> Vec<String> {
    let gone = shown.difference(&now).cloned().collect();
    *shown = now;
    gone
}

fn show_state(projection: &str, is: &str) {
    for state in STATES {
        let value = f64::from(u8::from(state == is));
        gauge!(STATE.name, "projection" => projection.to_owned(), "state" => state).set(value);
    }
}

/// All leases but those by which workers show that they are there: their number has no limit.
async fn leases(database: &Database) -> Result<Vec<(String, bool, i64)>, Error> {
    let failed = |source| Error::Bookkeeping { action: "look at leases", source };
    let sql = database.schema().sql(
        "select name, expires_at > clock_timestamp(), epoch from {schema}.leases
         where not starts_with(name, 'worker:')",
    );
    let rows = database.client().await?.query(&sql, &[]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// How the sagas of a category are doing.
#[derive(Debug)]
struct OfSaga {
    saga: String,
    /// Running, compensating, stuck.
    live: [i64; 3],
    /// For how many seconds a timer, and a call, has been due.
    timer: f64,
    call: f64,
}

impl OfSaga {
    fn show(&self) {
        let label = || self.saga.clone();
        for (status, count) in std::iter::zip(LIVE, self.live) {
            gauge!(SAGAS.name, "saga" => label(), "status" => status).set(count as f64);
        }
        for (what, seconds) in [("timer", self.timer), ("call", self.call)] {
            gauge!(OVERDUE.name, "saga" => label(), "what" => what).set(seconds);
        }
    }
}

async fn sagas(database: &Database) -> Result<Vec<OfSaga>, Error> {
    let failed = |source| Error::Bookkeeping { action: "look at sagas", source };
    let sql = database.schema().sql(include_str!("watch_sagas.sql"));
    let rows = database.client().await?.query(&sql, &[&stored("")]).await.map_err(failed)?;
    let of = |row: &tokio_postgres::Row| OfSaga {
        saga: row.get(0),
        live: [row.get(1), row.get(2), row.get(3)],
        timer: row.get::<_, Option<f64>>(4).unwrap_or_default().max(0.0),
        call: row.get::<_, Option<f64>>(5).unwrap_or_default().max(0.0),
    };
    Ok(rows.iter().map(of).collect())
}
