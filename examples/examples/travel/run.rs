//! All of it in one go: processes, load, kills, and the checker.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use annals::{
    EventStore, ProjectionError, QueryReadModels, Saga,
    saga::{SagaStatus, control},
};
use tokio::time::sleep;

use crate::{
    args::RunArgs,
    check::{self, Books, Verdict},
    databases::{BOOKING, Databases},
    faults::{Faults, STALL},
    follower::Follower,
    fulfilment::Fulfilment,
    load::{self, Sent},
    overview::BookingOverview,
    processes::{Keys, Processes},
    progress::Progress,
    rude,
    shop::Shop,
    tally,
};

/// One call in ten fails, and some stall or are heard twice.
const FAULTS: Faults = Faults { errors: 0.1, stalls: 0.02, repeats: 0.05 };
/// How often to look how many bookings have ended.
const LOOK: Duration = Duration::from_millis(500);
/// How long to wait for bookings while none ends.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a run led to, to be printed.
pub(crate) struct Finished {
    pub(crate) sent: Sent,
    pub(crate) books: Books,
    pub(crate) verdict: Verdict,
}

/// Runs it all on databases of its own.
pub(crate) async fn run(args: &RunArgs) -> anyhow::Result<Finished> {
    let databases = Databases::of(&args.databases);
    databases.create().await?;
    let played = play(args, &databases).await;
    let is_sound = played.as_ref().is_ok_and(|finished| finished.verdict.is_sound());
    if is_sound && !args.keep {
        databases.remove().await?;
    } else {
        eprintln!("the databases are kept; their names begin with {}_", databases.prefix());
    }
    played
}

async fn play(args: &RunArgs, databases: &Databases) -> anyhow::Result<Finished> {
    let pace = args.pace();
    let progress = Progress::of(u64::from(pace.rate) * u64::from(pace.seconds));
    let keys = Keys::drawn();
    let limit = (pace.rate * 3 / 2).max(50);
    let mut processes = Processes::start(databases, FAULTS, &keys, limit).await?;
    let gateways = processes.gateways()?;
    let follower = Follower::start(&gateways, &keys.polite)?;
    let rude_to = gateways[0].clone();
    let shop = Shop::new(gateways, &keys.polite)?;
    let store = EventStore::connect(&databases.url(BOOKING)).await?;
    let (sent, rude) = {
        let time = Duration::from_secs(pace.seconds.into());
        let loading = load::run(shop, follower, pace, |accepted| progress.accepted(accepted));
        let killing = processes.kill_each_within(time, |line| progress.line(line));
        let asking = rude::run(rude_to, &keys.rude, time, |line| progress.line(line));
        tokio::select! {
            done = async { tokio::try_join!(loading, asking, killing) } => {
                let (sent, rude, ()) = done?;
                (sent, rude)
            }
            never = look(&store, &progress) => match never? {},
        }
    };
    settle(&store, &mut processes, &sent, &progress).await?;
    store.close().await;
    // What stalled comes late: it must not have an effect that nobody knows of.
    sleep(STALL).await;
    drop(processes);
    progress.clear();
    let (books, mut verdict) = check::check(databases, &sent.accepted).await?;
    verdict.unanswered(&sent.failed);
    verdict.wrong(&sent.wrong);
    verdict.wrong(&rude);
    // Each process that may lead was killed.
    verdict.led_by_turns(&books);
    Ok(Finished { sent, books, verdict })
}

/// Shows how many bookings have ended.
async fn look(store: &EventStore, progress: &Progress) -> anyhow::Result<Infallible> {
    loop {
        progress.ended(ended(store).await?);
        sleep(LOOK).await;
    }
}

/// How many bookings have ended, according to the read model.
async fn ended(store: &EventStore) -> Result<u64, ProjectionError> {
    let overview = store.query::<BookingOverview>().filter("status <> 'requested'", &[]);
    match overview.count().await {
        // The worker is about to make it.
        Err(ProjectionError::NotBuilt { .. }) => Ok(0),
        count => count,
    }
}

/// Waits until all that was accepted has ended, or nothing moves any more. What is wrong then, the checker tells.
async fn settle(
    store: &EventStore,
    processes: &mut Processes,
    sent: &Sent,
    progress: &Progress,
) -> anyhow::Result<()> {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        processes.must_run()?;
        let now = ended(store).await?;
        progress.ended(now);
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        let live = control::list(store, Some(Fulfilment::CATEGORY)).await?;
        let moves = live.iter().any(|saga| saga.status != SagaStatus::Stuck);
        let tallied = tally::all(store).await?.pop();
        let tallied = tallied.map_or(0, |tally| tally.booked + tally.cancelled);
        if now >= sent.accepted.len() as u64 && tallied == now && !moves {
            return Ok(());
        }
        if moved.elapsed() > PATIENCE {
            progress.line(&format!("{} bookings do not end, {tallied} are tallied", live.len()));
            return Ok(());
        }
        sleep(LOOK).await;
    }
}
