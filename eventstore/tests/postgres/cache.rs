//! What the cache spares, and what travels together: seen by what is folded and by what the database is asked.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use annals_eventstore::{
    Aggregate, Append, Apply, AsOf, Command, Envelope, EventStore, ExpectedVersion, Handle,
    NewEvent, Version,
};
use futures::{future::join_all, poll};
use serde::Serialize;
use tokio_postgres::Client;

use crate::{
    limits::until_blocked,
    support::{
        TestDatabase,
        counter::{Change, Counter, CounterEvent, counter},
        eventually, in_time, patient,
    },
};

/// A counter that tells how many events were folded since it was copied or decided on.
#[derive(Aggregate, Default, Debug)]
#[aggregate(category = "counter", event = CounterEvent)]
struct Meter {
    events: usize,
    folded: AtomicUsize,
}

impl Clone for Meter {
    fn clone(&self) -> Self {
        Self { events: self.events, folded: AtomicUsize::new(0) }
    }
}

impl Apply<CounterEvent> for Meter {
    fn apply(&mut self, _: &CounterEvent) {
        self.events += 1;
        *self.folded.get_mut() += 1;
    }
}

/// Counts one event, and notes what was folded for the decision.
#[derive(Command, Serialize, Clone)]
#[command(aggregate = Meter)]
struct Count {
    #[command(id)]
    counter: &'static str,
    #[serde(skip)]
    folded: Arc<Mutex<Vec<usize>>>,
}

impl Handle<Count> for Meter {
    fn handle(&self, command: Count) -> Result<Vec<CounterEvent>, Self::Error> {
        command.folded.lock().unwrap().push(self.folded.swap(0, Ordering::Relaxed));
        Ok(vec![CounterEvent::Changed { by: 1 }])
    }
}

/// The same state, which cannot be copied.
#[derive(Aggregate, Default, Debug)]
#[aggregate(category = "counter", event = CounterEvent)]
struct Unique {
    events: usize,
}

impl Apply<CounterEvent> for Unique {
    fn apply(&mut self, _: &CounterEvent) {
        self.events += 1;
    }
}

/// Appends as another process does, past the cache.
async fn append_elsewhere(store: &EventStore, key: impl std::fmt::Display, events: usize) {
    let event = || NewEvent::of(&CounterEvent::Changed { by: 1 }).unwrap();
    let events: Vec<_> = (0..events).map(|_| event()).collect();
    store.append(Append::to(counter(key), ExpectedVersion::Any, events)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_and_loads_fold_only_what_is_newer() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    append_elsewhere(&store, "a", 10).await;
    let folded = Arc::<Mutex<Vec<usize>>>::default();
    let count = || Count { counter: "a", folded: Arc::clone(&folded) };
    store.execute(count()).await.unwrap();
    // Of a command, its own event is folded once it is recorded.
    store.execute(count()).await.unwrap();
    // What others appended makes a conflict, and is all that is fetched after it.
    append_elsewhere(&store, "a", 3).await;
    let committed = store.execute(count()).await.unwrap();
    assert_eq!(committed.version, Version::new(16));
    assert_eq!(*folded.lock().unwrap(), [10, 1, 1, 3]);

    let now = async || {
        let state = store.load::<Meter>("a").await.unwrap().unwrap().state;
        (state.events, state.folded.into_inner())
    };
    assert_eq!(now().await, (16, 0));
    append_elsewhere(&store, "a", 2).await;
    assert_eq!(now().await, (18, 2));
    assert_eq!(now().await, (18, 0));
    // The past is folded anew.
    let then = store.load_as_of::<Meter>("a", AsOf::Version(Version::new(17))).await;
    assert_eq!(then.unwrap().unwrap().state.folded.into_inner(), 17);
    let mut unit = store.begin().await.unwrap();
    // And so it is in a unit of work, which reads in a transaction of its own.
    let seen = unit.load::<Meter>("a").await.unwrap().unwrap();
    assert_eq!(seen.state.folded.load(Ordering::Relaxed), 18);
    unit.rollback().await.unwrap();
    assert_eq!(store.load::<Unique>("a").await.unwrap().unwrap().state.events, 18);

    let options = patient(EventStore::options()).cache_bytes(0);
    let without = database.store_with(options).await;
    for _ in 0..2 {
        folded.lock().unwrap().clear();
        without.execute(count()).await.unwrap();
        assert!(folded.lock().unwrap()[0] >= 18, "{folded:?}");
        let state = without.load::<Meter>("a").await.unwrap().unwrap().state;
        assert_eq!(state.folded.into_inner(), state.events);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_keeps_to_its_size() {
    let database = TestDatabase::create().await;
    for (bytes, range) in [(100_000, 1..400), (100_000_000, 1000..1001)] {
        let options = patient(EventStore::options()).cache_bytes(bytes);
        let store = database.store_with(options).await;
        let commands = (0..1000).map(|number| Change::new(number, [1]));
        store.execute_all(commands).await.unwrap().into_iter().for_each(|done| drop(done.unwrap()));
        for number in 0..1000 {
            let loaded = store.load::<Meter>(number).await.unwrap().unwrap();
            assert!(loaded.state.events > 0);
        }
        let mut cached = 0;
        // From the last one back: whatever is loaded pushes out another.
        for number in (0..1000).rev() {
            let loaded = store.load::<Meter>(number).await.unwrap().unwrap();
            cached += usize::from(loaded.state.folded.into_inner() == 0);
        }
        assert!(range.contains(&cached), "{cached} of 1000 states are in {bytes} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_one_process_do_not_lose_to_each_other() {
    let database = TestDatabase::create().await;
    // One conflict, and a command would fail.
    let store = database.store_with(patient(EventStore::options()).max_attempts(1)).await;
    let commands = (0..50).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let command = Envelope::new(Change::new("a", [1]));
            match number % 3 {
                0 => drop(store.execute_all([command]).await.unwrap().pop().unwrap().unwrap()),
                _ => drop(store.execute(command).await.unwrap()),
            }
        })
    });
    in_time(join_all(commands)).await.into_iter().for_each(Result::unwrap);
    assert_eq!(store.load::<Counter>("a").await.unwrap().unwrap().state.total, 50);
}

/// How often streams were loaded, as far as backends have told. Those that have ended have.
async fn loads(client: &Client) -> i64 {
    calls(client, "load_streams").await
}

async fn calls(client: &Client, function: &str) -> i64 {
    let sql = "select coalesce(sum(calls), 0)::bigint from pg_stat_user_functions
        where funcname = $1";
    client.query_one(sql, &[&function]).await.unwrap().get(0)
}

/// A database that counts the calls of functions.
async fn counting() -> (TestDatabase, Client) {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let count = format!("alter database {} set track_functions = 'pl'", database.name());
    client.batch_execute(&count).await.unwrap();
    (database, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_that_wait_travel_together() {
    let (database, client) = counting().await;
    let store = database.store().await;
    let keys = 0..200;
    join_all(keys.clone().map(|key| append_elsewhere(&store, key, 2))).await;
    let other = database.client().await;
    other.batch_execute("begin; lock table annals.streams, annals.events").await.unwrap();
    let loads_of_all = keys.clone().map(|key| store.load::<Counter>(key));
    let mut loading = Box::pin(join_all(loads_of_all));
    assert!(poll!(&mut loading).is_pending());
    until_blocked(&client).await;
    other.batch_execute("rollback").await.unwrap();
    for loaded in in_time(loading).await {
        assert_eq!(loaded.unwrap().unwrap().state.total, 2);
    }
    // A lot loads all of its streams at once.
    let fresh = database.store().await;
    for outcome in fresh.execute_all(keys.map(|key| Change::new(key, [1]))).await.unwrap() {
        assert_eq!(outcome.unwrap().version, Version::new(3));
    }
    fresh.close().await;
    store.close().await;
    eventually("the backends have told", async || loads(&client).await >= 3).await;
    let loads = loads(&client).await;
    // More than a few only where this task is interrupted in between.
    assert!(loads < 40, "{loads} statements for 400 loads");
}

/// Each of them alone, and together they are few statements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_on_different_streams_travel_together() {
    let (database, client) = counting().await;
    let store = database.store().await;
    let keys = 0..200;
    join_all(keys.clone().map(|key| append_elsewhere(&store, key, 2))).await;
    store.close().await;
    eventually("the backends have told", async || calls(&client, "append_batch").await > 0).await;
    let before = calls(&client, "append_batch").await;

    let store = database.store().await;
    let other = database.client().await;
    other.batch_execute("begin; lock table annals.streams, annals.events").await.unwrap();
    let executing = keys.map(|key| store.execute(Change::new(key, [1])));
    let mut executing = Box::pin(join_all(executing));
    assert!(poll!(&mut executing).is_pending());
    until_blocked(&client).await;
    other.batch_execute("rollback").await.unwrap();
    for committed in in_time(executing).await {
        assert_eq!(committed.unwrap().version, Version::new(3));
    }
    store.close().await;
    let told = async || calls(&client, "append_batch").await - before;
    eventually("the backends have told", async || told().await > 0 && loads(&client).await > 0)
        .await;
    let (loads, appends) = (loads(&client).await, told().await);
    assert!(loads < 40, "{loads} statements for 200 loads");
    assert!(appends < 40, "{appends} statements for 200 appends");
}
