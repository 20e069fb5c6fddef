//! The coordinator of a projection: it gets leases for slices, and starts a runner for each.
//!
//! Of a projection in several slices, each process takes its share: as many as there are slices for each of
//! the processes that are there. Each shows that it is there by a lease of its own. A process that comes
//! finds the others above their share, and they give slices up after the batch that they are at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use annals_eventstore::{Error as StoreError, postgres::Lease};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{
    Context, Log, Projection, Rebuilding,
    failure::{Interruptions, text},
    runner,
    sharing::Sharing,
    slice::slice_name,
};
use crate::error::Error;

/// How often to look whether tables that another version of the program made are this one's again.
const STAND_BY: Duration = Duration::from_secs(1);
/// How often to ask for the lease of a slice that is to be taken over.
const HANDOVER: Duration = Duration::from_millis(50);

pub(super) async fn run(
    context: Arc<Context>,
    projection: Arc<dyn Projection>,
) -> Result<(), Error> {
    let mut coordinator = Coordinator {
        context,
        projection,
        there: None,
        runners: JoinSet::new(),
        slices: BTreeMap::new(),
        has_worked: false,
        sharing: Sharing::default(),
    };
    let outcome = coordinator.supervise().await;
    // What runs ends with its batch, and gives its leases back.
    coordinator.slices.values().for_each(|running| running.stop.cancel());
    if let Some(There { lease, .. }) = coordinator.there.take() {
        give_back(lease, coordinator.projection.label()).await;
    }
    let mut outcomes = vec![outcome];
    while let Some(ended) = coordinator.runners.join_next().await {
        if let Ok((_, outcome)) = ended {
            outcomes
                .push(outcome.or_else(|error| if passes(&error) { Ok(()) } else { Err(error) }));
        }
    }
    coordinator.sharing.leave().await;
    outcomes.into_iter().collect()
}

struct Coordinator {
    /// Shows that this process is there.
    there: Option<There>,
    context: Arc<Context>,
    projection: Arc<dyn Projection>,
    runners: JoinSet<(u16, Result<(), Error>)>,
    slices: BTreeMap<u16, Running>,
    /// The tables were those of this program before.
    has_worked: bool,
    sharing: Sharing,
}

/// The lease of a process, under a number that no other process has.
struct There {
    name: String,
    lease: Lease,
}

/// A slice that this process works on.
struct Running {
    task: Id,
    since: Instant,
    stop: CancellationToken,
}

/// True if the work can be taken up again.
fn passes(error: &Error) -> bool {
    matches!(error, Error::Store(StoreError::Fenced { .. })) || error.is_retryable()
}

impl Coordinator {
    /// Coordinates again after each failure that may pass.
    async fn supervise(&mut self) -> Result<(), Error> {
        let mut interruptions = Interruptions::default();
        while !self.context.stop.is_cancelled() {
            let mut started = Instant::now();
            let error = match self.coordinate(&mut started).await {
                Ok(()) => continue,
                Err(error) => error,
            };
            if !passes(&error) && !self.is_replaced(&error) {
                return Err(error);
            }
            let delay = interruptions.delay(started);
            let (projection, cause) = (self.projection.label(), text(&error));
            warn!(projection, error = cause, ?delay, "projection interrupted");
            let _ = tokio::time::timeout(delay, self.context.stop.cancelled()).await;
        }
        Ok(())
    }

    /// Gets leases and starts runners, until told to stop or something fails. `since` is when what failed
    /// was begun.
    async fn coordinate(&mut self, since: &mut Instant) -> Result<(), Error> {
        self.context.check_log().await?;
        self.install().await?;
        let slices = self.projection.slices();
        let context = self.context.clone();
        // It may have been told to stop in the middle of a rebuild, or while it stood by.
        while !context.stop.is_cancelled() {
            self.sharing.settle(&context, &*self.projection).await?;
            let mut wait = context.options.lease.time_to_live / 5;
            if let Some(mine) = self.sharing.mine().cloned() {
                self.give_up(|slice| !mine.contains(&slice));
                self.take(mine.iter().copied(), mine.len()).await?;
                if mine.iter().any(|slice| !self.slices.contains_key(slice)) {
                    // Its former worker has not given its lease back yet.
                    wait = wait.min(HANDOVER);
                }
            } else {
                let share = if slices == 1 { 1 } else { self.share(slices).await? };
                self.give_up_above(share);
                self.take_up_to(share).await?;
            }
            let works_on = |slice| self.slices.contains_key(&slice);
            self.sharing.hand_over(&context, &*self.projection, works_on);
            let ended = tokio::select! {
                () = context.stop.cancelled() => break,
                () = tokio::time::sleep(wait) => continue,
                changed = self.sharing.changed() => {
                    changed?;
                    continue;
                }
                Some(ended) = self.runners.join_next_with_id() => ended,
            };
            match ended {
                Ok((task, (slice, outcome))) => {
                    if let Some(ended) = self.slices.get(&slice).filter(|one| one.task == task) {
                        *since = ended.since;
                        self.slices.remove(&slice);
                    }
                    outcome?;
                }
                // The code of projections is guarded; this is a fault here, and of one runner.
                Err(error) => {
                    self.slices.retain(|_, running| running.task != error.id());
                    warn!(projection = self.projection.label(), %error, "a runner died");
                }
            }
        }
        Ok(())
    }

    /// Shows that this process is there, and says how many slices are its part.
    async fn share(&mut self, slices: u16) -> Result<u16, Error> {
        let there = match self.there.take() {
            Some(there) => match there.lease.renew().await {
                Ok(()) => Some(there),
                // It ended, while this process was paused say, and another has taken the number.
                Err(StoreError::Fenced { .. }) => None,
                Err(error) => {
                    self.there = Some(there);
                    return Err(error.into());
                }
            },
            None => None,
        };
        let there = match there {
            Some(there) => there,
            None => self.appear().await?,
        };
        let share = self.part(slices, &there.name).await;
        self.there = Some(there);
        share
    }

    /// Takes the first number that is free.
    async fn appear(&self) -> Result<There, Error> {
        let Context { database, options, .. } = &*self.context;
        let mut number = 0_u64;
        loop {
            let name = format!("{}{number}", self.prefix());
            if let Some(lease) = Lease::try_acquire(database, &name, options.lease).await? {
                return Ok(There { name, lease });
            }
            number += 1;
        }
    }

    fn prefix(&self) -> String {
        format!("worker:{}:", self.projection.name())
    }

    /// Shares the slices out among the processes that are there; what is left over, one each to the first.
    async fn part(&self, slices: u16, me: &str) -> Result<u16, Error> {
        let sql = self.context.database.schema().sql(
            "select count(*), count(*) filter (where name < $2) from {schema}.leases
             where starts_with(name, $1) and expires_at > clock_timestamp()",
        );
        let failed = |source| Error::Bookkeeping { action: "count workers", source };
        let client = self.context.database.client().await?;
        let row = client.query_one(&sql, &[&self.prefix(), &me]).await.map_err(failed)?;
        Ok(part(slices, row.get(0), row.get(1)))
    }

    /// Whether another version of the program has put its tables in the place of those of this one. To
    /// rebuild them back would only make the two do so in turn, for as long as both run.
    fn is_replaced(&self, error: &Error) -> bool {
        self.has_worked && matches!(error, Error::Outdated { .. } | Error::Superseded { .. })
    }

    /// Makes sure that the tables are there, and are those of this program.
    async fn install(&mut self) -> Result<(), Error> {
        let Context { store, options, stop, .. } = &*self.context;
        let (projection, mut told) = (self.projection.label(), false);
        while !stop.is_cancelled() {
            match self.projection.install(&self.context).await {
                Err(error) if self.is_replaced(&error) => {
                    if !std::mem::replace(&mut told, true) {
                        let cause = text(&error);
                        warn!(projection, cause, "another version of the program took over");
                    }
                    let _ = tokio::time::timeout(STAND_BY, stop.cancelled()).await;
                }
                Err(Error::Outdated { table, difference })
                    if options.rebuilding == Rebuilding::Allowed
                        && self.context.log == Log::Ours =>
                {
                    info!(projection, table, difference, "rebuilding");
                    tokio::select! {
                        rebuilt = self.projection.rebuild(store) => rebuilt?,
                        () = stop.cancelled() => {}
                    }
                }
                outcome => {
                    outcome?;
                    self.has_worked = true;
                    break;
                }
            }
        }
        Ok(())
    }

    fn give_up_above(&mut self, share: u16) {
        let working = self.slices.iter().filter(|(_, running)| !running.stop.is_cancelled());
        let surplus: BTreeSet<_> =
            working.map(|(slice, _)| *slice).skip(usize::from(share)).collect();
        self.give_up(|slice| surplus.contains(&slice));
    }

    fn give_up(&self, is_others: impl Fn(u16) -> bool) {
        let working = self.slices.iter().filter(|(_, running)| !running.stop.is_cancelled());
        for (slice, running) in working.filter(|(slice, _)| is_others(**slice)) {
            info!(
                projection = self.projection.label(),
                slice, "giving a slice up to another worker"
            );
            running.stop.cancel();
        }
    }

    async fn take_up_to(&mut self, share: u16) -> Result<(), Error> {
        let slices = self.projection.slices();
        // Each process begins elsewhere, so that they do not all ask for the same.
        let first = Uuid::now_v7().as_bytes()[15];
        let all = (0..slices).map(|n| (n + u16::from(first)) % slices);
        self.take(all, usize::from(share)).await
    }

    /// Takes those of some slices that nobody works on, until it works on so many.
    async fn take(&mut self, wanted: impl Iterator<Item = u16>, most: usize) -> Result<(), Error> {
        let (slices, name) = (self.projection.slices(), self.projection.name().to_owned());
        let Context { database, options, .. } = &*self.context.clone();
        for slice in wanted {
            if self.slices.len() >= most {
                break;
            }
            if self.slices.contains_key(&slice) {
                continue;
            }
            let lease = slice_name(&name, slice, slices);
            match Lease::try_acquire(database, &lease, options.lease).await? {
                Some(lease) => self.start(slice, lease),
                None => debug!(name = lease, "standing by: another worker holds the lease"),
            }
        }
        Ok(())
    }

    fn start(&mut self, slice: u16, lease: Lease) {
        let (context, projection) = (self.context.clone(), self.projection.clone());
        let stop = self.context.stop.child_token();
        let told = stop.clone();
        info!(projection = projection.label(), slice, epoch = lease.epoch(), "working");
        let running = async move {
            let epoch = lease.epoch();
            let work = runner::run(&context, &*projection, slice, epoch, &told);
            (slice, Arc::new(lease).keep_while(work).await)
        };
        let task = self.runners.spawn(running).id();
        self.slices.insert(slice, Running { task, since: Instant::now(), stop });
    }
}

/// How many slices are for one of so many processes, before which there are some.
fn part(slices: u16, processes: i64, before: i64) -> u16 {
    let (slices, processes) = (i64::from(slices), processes.max(1));
    let part = slices / processes + i64::from(before < slices % processes);
    u16::try_from(part).unwrap_or(u16::MAX)
}

async fn give_back(lease: Lease, projection: &str) {
    if let Err(error) = lease.release().await {
        debug!(projection, %error, "lease not given back; it ends by itself");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_parts_are_all_slices_and_differ_by_one_at_most(
            slices in 1_u16..=256,
            processes in 1_i64..300,
        ) {
            let parts: Vec<_> = (0..processes).map(|n| part(slices, processes, n)).collect();
            prop_assert_eq!(parts.iter().sum::<u16>(), slices);
            let (most, least) = (parts.iter().max(), parts.iter().min());
            prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1));
        }
    }
}
