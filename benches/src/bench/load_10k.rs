//! Loading an aggregate of 10,000 events, with snapshots against without.

use annals::{Aggregate, Append, Apply, EventStore, ExpectedVersion, NewEvent, StreamId, Version};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    bank::{AccountEvent, Balance, Refused},
    contestant::{About, annals::Account},
    measure::{Effort, Summary, Worker, drive},
    report::{Entry, Side},
    server::Server,
};

const EVENTS: usize = 10_000;
/// How many came after the last snapshot: half of what lies between two.
const TAIL: usize = 50;
const KEY: &str = "busy";

/// The same account, of whose state a snapshot is kept each 100 events.
#[derive(Aggregate, Default, Serialize, Deserialize)]
#[aggregate(category = "account", event = AccountEvent, error = Refused)]
#[snapshot(every = 100)]
struct Kept(Balance);

impl Apply<AccountEvent> for Kept {
    fn apply(&mut self, event: &AccountEvent) {
        self.0.apply(event);
    }
}

pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Entry> {
    let url = server.database("load_10k").await?;
    // A cache would leave nothing to load.
    let store = EventStore::options().cache_bytes(0).connect(&url).await?;
    fill(&store).await?;
    server.checkpoint().await?;

    let mut with = vec![Loader(store.clone(), load::<Kept>)];
    let mut without = vec![Loader(store, load::<Account>)];
    drive(&mut with, effort.warm_up).await?;
    drive(&mut without, effort.warm_up).await?;
    let (mut kept, mut folded) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        kept.push(drive(&mut with, effort.time).await?);
        folded.push(drive(&mut without, effort.time).await?);
    }
    let about = |name, setup| About { name, version: env!("CARGO_PKG_VERSION"), setup };
    let annals = about("annals, snapshots", "a snapshot and 50 events after it, no cache");
    let other = about("annals, none", "10,000 events, no cache");
    Ok(Entry::new(
        "load_10k",
        "loads/s",
        Side::of(annals, Summary::of(&kept)),
        vec![Side::of(other, Summary::of(&folded))],
    ))
}

async fn fill(store: &EventStore) -> Result<()> {
    let stream = StreamId::new(Account::CATEGORY, KEY)?;
    let reference = "for the rent of the month".to_owned();
    let deposited = AccountEvent::Deposited { amount: 1, reference };
    for (count, is_tail) in [(EVENTS - TAIL, false), (TAIL, true)] {
        for chunk in (0..count).collect::<Vec<_>>().chunks(500) {
            let events = chunk.iter().map(|_| NewEvent::of(&deposited));
            let events = events.collect::<Result<Vec<_>, _>>()?;
            store.append(Append::to(stream.clone(), ExpectedVersion::Any, events)).await?;
        }
        if !is_tail {
            store.snapshot::<Kept>(KEY).await?;
        }
    }
    Ok(())
}

/// Loads the aggregate; returns what it holds.
type Load = fn(&EventStore) -> futures::future::BoxFuture<'_, Result<(Version, Option<i64>)>>;

struct Loader(EventStore, Load);

fn load<A>(store: &EventStore) -> futures::future::BoxFuture<'_, Result<(Version, Option<i64>)>>
where
    A: Aggregate + AsRef<Balance>,
{
    Box::pin(async {
        let loaded = store.load::<A>(KEY).await?;
        let held = loaded.map(|loaded| (loaded.version, loaded.state.as_ref().0));
        Ok(held.unwrap_or_default())
    })
}

impl AsRef<Balance> for Kept {
    fn as_ref(&self) -> &Balance {
        &self.0
    }
}

impl AsRef<Balance> for Account {
    fn as_ref(&self) -> &Balance {
        &self.0
    }
}

impl Worker for Loader {
    async fn step(&mut self) -> Result<u64> {
        let (version, balance) = self.1(&self.0).await?;
        ensure!(version == Version::new(EVENTS as i64), "it was loaded at version {version}");
        ensure!(balance == Some(EVENTS as i64), "it was loaded with {balance:?}");
        Ok(1)
    }
}
