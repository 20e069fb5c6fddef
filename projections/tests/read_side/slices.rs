//! Read models in slices: several workers share them, and each event is still applied once.

use std::time::Duration;

use annals_eventstore::{AsOf, EventStore, Position, Recorded, postgres::Lease};
use annals_projections::{
    Change, Consistency, KeyError, Keys, Project, ProjectionError, QueryReadModels, ReadModel,
    control::{self, State},
};
use rand::Rng;
use tokio_postgres::Client;

use crate::support::{
    Running,
    account::{ACCOUNTS, Account, AccountEvent, Balance, Review, account, move_some},
    catch_up,
    database::{TestDatabase, kill, refusal, value},
    eventually, lease,
    ledger::{Ledger, LedgerEvent, add, append},
    load::{Load, seeded},
    oracle::assert_exact,
    text, worker,
};

/// The epochs of the slices' leases, in the slices' order.
async fn epochs(client: &Client) -> Vec<i64> {
    let sql = "select coalesce(array_agg(epoch order by name), '{}') from annals.leases
               where starts_with(name, 'projection:balances/') and expires_at > now()";
    value(client, sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_to_the_fold_while_workers_come_and_go() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let reader = database.store_as("victim").await;
    let (seed, mut rng) = seeded();
    let mut load = Load::of_accounts(&store, seed, 300);
    let mut workers: Vec<Running> = Vec::new();
    let (mut turns, mut most) = (0, 0);
    let taken = "select coalesce(sum(epoch), 0)::bigint from annals.checkpoints";
    while turns < 60 || !load.is_done() || most < 3 || value::<i64>(&client, taken).await <= 8 {
        turns += 1;
        match rng.random_range(0..6) {
            0..3 if workers.len() < 3 => {
                let (batch_size, ttl) = (rng.random_range(1..20), rng.random_range(30..300));
                let worker = worker::<Balance>(&reader).batch_size(batch_size).lease(lease(ttl));
                workers.push(Running::start(worker));
            }
            3 if !workers.is_empty() => {
                workers.swap_remove(rng.random_range(0..workers.len())).abort().await;
            }
            4 if !workers.is_empty() => {
                workers.swap_remove(rng.random_range(0..workers.len())).stop().await;
            }
            5 => drop(kill(&client, "victim").await),
            _ => {}
        }
        most = most.max(workers.len());
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..120))).await;
    }
    load.done().await;
    for worker in workers {
        assert!(worker.is_running(), "it ended: {:?}", worker.failure().await);
        worker.stop().await;
    }
    catch_up::<Balance>(&store).await;
    assert_exact::<Balance>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_come_get_their_share_and_leave_it_when_they_go() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    let start = || Running::start(worker::<Balance>(&store).lease(lease(6000)));
    let mut first = start();
    eventually("one has all", || async { epochs(&client).await == [1; 4] }).await;
    let mut second = start();
    let taken = |times, epoch| {
        let epochs = epochs(&client);
        async move { epochs.await.iter().filter(|found| **found == epoch).count() == times }
    };
    eventually("two have two each", || taken(2, 2)).await;
    // Longer than leases last: nobody takes more, or takes turns.
    for _ in 0..70 {
        move_some(&store, &mut rng).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(taken(2, 1).await && taken(2, 2).await, "{:?}", epochs(&client).await);
    first.caught_up::<Balance>(&store).await;

    // A third one: the one with more than its share gives one up.
    let third = start();
    eventually("the third has one", || async { epochs(&client).await.iter().sum::<i64>() == 7 })
        .await;
    third.stop().await;
    eventually("it is taken again", || async {
        let epochs = epochs(&client).await;
        epochs.len() == 4 && epochs.iter().sum::<i64>() == 8
    })
    .await;

    // One that dies gives nothing back; its leases end.
    first.abort().await;
    move_some(&store, &mut rng).await;
    second.caught_up::<Balance>(&store).await;
    eventually("the other has all", || async { epochs(&client).await.len() == 4 }).await;
    second.stop().await;
    assert_exact::<Balance>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_leave_no_trace_each() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for _ in 0..4 {
        catch_up::<Balance>(&store).await;
    }
    let leases: i64 = value(&client, "select count(*) from annals.leases").await;
    assert_eq!(leases, 5, "one for each slice, and one for the worker");
}

/// Keeps a slice from being worked on.
async fn hold(store: &EventStore, slice: u16) -> Lease {
    let name = format!("projection:balances/{slice}");
    let lease = Lease::try_acquire(store.database().unwrap(), &name, lease(3_600_000)).await;
    lease.unwrap().expect("nobody has it")
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_wait_for_the_slice_that_is_behind() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let held = hold(&store, 2).await;
    let mut running = Running::start(worker::<Balance>(&store));
    for n in 0..ACCOUNTS {
        append::<Account>(&store, &account(n), [AccountEvent::Moved { amount: 1 }]).await;
    }
    let end = store.safe_position().await.unwrap();
    let others = "select count(*) from annals.checkpoints where position = $1";
    eventually("the other three are there", || async {
        client.query_one(others, &[&end.get()]).await.unwrap().get::<_, i64>(0) == 3
    })
    .await;
    let status = &control::status(&store).await.unwrap()[0];
    assert_eq!((&*status.name, &status.state), ("balances", &State::Running));
    assert_eq!((status.position, status.behind), (Position::START, end.get() as u64));
    assert!(status.waiting.is_some() && status.slices.iter().all(|slice| slice.owner.is_some()));
    let positions: Vec<_> = status.slices.iter().map(|slice| slice.position.get()).collect();
    assert_eq!(positions, [end.get(), end.get(), 0, end.get()]);

    let fresh = Consistency::AtLeast(end, Duration::from_millis(200));
    let early = store.query::<Balance>().consistency(fresh).all().await;
    assert!(matches!(early, Err(ProjectionError::TimedOut { .. })), "{early:?}");
    let early = store.query::<Balance>().as_of(AsOf::Position(end)).all().await;
    assert!(matches!(early, Err(ProjectionError::NotReached { .. })), "{early:?}");
    let sql = format!("select * from balances_as_of({end})");
    assert_eq!(refusal(&client, &sql).await.0, "AN004");
    assert!(client.query("select * from balances_as_of(0)", &[]).await.unwrap().is_empty());

    held.release().await.unwrap();
    running.caught_up::<Balance>(&store).await;
    assert_eq!(client.query(&sql, &[]).await.unwrap().len(), ACCOUNTS as usize);
    let rows = store.query::<Balance>().as_of(AsOf::Position(end)).all().await.unwrap();
    assert_eq!(rows.len(), ACCOUNTS as usize);
    eventually("all slices have a worker", || async {
        let status = &control::status(&store).await.unwrap()[0];
        status.state == State::Running
            && status.behind == 0
            && status.slices.iter().all(|slice| slice.owner.is_some())
    })
    .await;
    running.stop().await;
    assert_exact::<Balance>(&store, &client).await;
}

/// In slices, though one event changes several rows.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "straddles", from(Ledger), slices = 3)]
struct Straddle {
    #[read_model(key)]
    ledger: String,
    total: i64,
}

impl Project<LedgerEvent> for Straddle {
    fn keys(event: &Recorded<LedgerEvent>) -> Result<Keys<String>, KeyError> {
        Ok(match &event.event {
            LedgerEvent::Shared { ledgers, .. } => Keys::many(ledgers.iter().cloned()),
            LedgerEvent::Noted => Keys::none(),
            _ => Keys::one(event.stream.key().to_owned()),
        })
    }

    fn project(row: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
        let ledger = event.stream.key().to_owned();
        Change::Set(Self { ledger, total: row.map_or(0, |row| row.total) + 1 })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_touches_other_rows_than_its_streams_ends_the_worker() {
    let shared = |ledgers: &[&str]| LedgerEvent::Shared {
        ledgers: ledgers.iter().map(ToString::to_string).collect(),
        amount: 1,
    };
    for ledgers in [&["b"][..], &["a", "b"]] {
        let database = TestDatabase::create().await;
        let (store, client) = (database.store().await, database.client().await);
        add(&store, "a", 1).await;
        append::<Ledger>(&store, "a", [LedgerEvent::Noted, shared(&["a"]), shared(&[])]).await;
        catch_up::<Straddle>(&store).await;
        add(&store, "a", 1).await;
        let bad = append::<Ledger>(&store, "a", [shared(ledgers)]).await.last_position;
        add(&store, "c", 1).await;
        for _ in 0..2 {
            let error = Running::start(worker::<Straddle>(&store)).failure().await;
            assert!(!error.is_retryable());
            match &error {
                ProjectionError::Event(failure) => assert_eq!(failure.position, bad),
                other => panic!("{other:?}"),
            }
            assert!(text(&error).contains("slices"), "{}", text(&error));
            // It is the code that is wrong, so nothing is parked, however often it is tried.
            assert_eq!(control::parked(&store, None).await.unwrap(), []);
        }
        assert_eq!(
            value::<i64>(&client, "select total from straddles where ledger = 'a'").await,
            3
        );
    }
}

/// The same table, in another number of slices.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "balances", from(Account, Review), history, slices = 2)]
struct Halves {
    #[read_model(key)]
    account: String,
    total: i64,
    events: i64,
    trail: i64,
    reviews: i64,
}

impl From<Balance> for Halves {
    fn from(row: Balance) -> Self {
        let Balance { account, total, events, trail, reviews } = row;
        Self { account, total, events, trail, reviews }
    }
}

impl From<Halves> for Balance {
    fn from(row: Halves) -> Self {
        let Halves { account, total, events, trail, reviews } = row;
        Self { account, total, events, trail, reviews }
    }
}

impl<E> Project<E> for Halves
where
    Balance: Project<E>,
{
    fn project(row: Option<Self>, event: &Recorded<E>) -> Change<Self> {
        match Balance::project(row.map(Into::into), event) {
            Change::Set(row) => Change::Set(row.into()),
            Change::Delete => Change::Delete,
            Change::Keep => Change::Keep,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_slices_is_refused_or_rebuilt() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (_, mut rng) = seeded();
    for _ in 0..100 {
        move_some(&store, &mut rng).await;
    }
    catch_up::<Balance>(&store).await;
    let error = Running::start(worker::<Halves>(&store).without_rebuilding()).failure().await;
    assert!(matches!(error, ProjectionError::Outdated { .. }), "{error:?}");
    for part in ["balances", "4 slices", "wants 2"] {
        assert!(text(&error).contains(part), "{part} is not in: {}", text(&error));
    }
    for _ in 0..20 {
        move_some(&store, &mut rng).await;
    }
    catch_up::<Halves>(&store).await;
    assert_exact::<Halves>(&store, &client).await;
    // And back again; a rebuild that is interrupted goes on.
    for wait in [1, 30, 60] {
        let running = Running::start(worker::<Balance>(&store));
        tokio::time::sleep(Duration::from_millis(wait)).await;
        running.stop().await;
    }
    let mut running = Running::start(worker::<Balance>(&store));
    let slices = "select slices::bigint from annals.projections where name = 'projection:balances'";
    eventually("it is rebuilt", || async { value::<i64>(&client, slices).await == 4 }).await;
    running.caught_up::<Balance>(&store).await;
    running.stop().await;
    assert_exact::<Balance>(&store, &client).await;
}
