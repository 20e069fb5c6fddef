//! Events that fail are parked with what follows in their streams, and nothing is lost or applied twice
//! when they go on.

use std::{sync::Mutex, time::Duration};

use annals_eventstore::{
    Append, AsOf, EventStore, ExpectedVersion, NewEvent, Payload, Position, Recorded, StreamId,
    postgres::Use,
};
use annals_projections::{
    Change, KeyError, Keys, Project, QueryReadModels, ReadModel,
    control::{self, ParkedStream, State},
};
use rand::Rng;
use tokio_postgres::Client;

use crate::{
    failures::{LaterTally, transfuse},
    support::{
        Running, catch_up,
        database::{TestDatabase, kill, value},
        eventually, lease,
        ledger::{Ledger, LedgerEvent, Tally, add, append},
        load::seeded,
        oracle::{assert_sound, fold, log, sorted},
        worker,
    },
};

async fn parked(store: &EventStore) -> Vec<ParkedStream> {
    control::parked(store, None).await.unwrap()
}

fn stream(key: &str) -> StreamId {
    StreamId::new("ledger", key).unwrap()
}

/// Checks the rows against a fold of the log without some events.
async fn assert_rows<R: ReadModel + std::fmt::Debug>(store: &EventStore, without: &[Position]) {
    let mut log = log(store).await;
    log.retain(|event| !without.contains(&event.position));
    let expected = fold::<R>(&log, Position::new(i64::MAX));
    let rows = store.query::<R>().all().await.unwrap();
    assert_eq!(sorted(rows), sorted(expected.rows.into_values()));
}

/// What the read model is as of each position that it has come to.
async fn past<R: ReadModel + std::fmt::Debug>(store: &EventStore, up_to: i64) -> Vec<Vec<String>> {
    let mut past = Vec::new();
    for position in 0..=up_to {
        let at = AsOf::Position(Position::new(position));
        past.push(sorted(store.query::<R>().as_of(at).all().await.unwrap()));
    }
    past
}

async fn reached(client: &Client) -> i64 {
    value(client, "select min(position) from annals.checkpoints").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_parked_is_applied_in_order_once_the_code_knows_it() {
    // More than a batch is parked, and less.
    for batch_size in [3, 1000] {
        let database = TestDatabase::create().await;
        let (store, client) = (database.store().await, database.client().await);
        add(&store, "a", 1).await;
        add(&store, "b", 1).await;
        let unknown = transfuse(&store, "b", 70).await;
        for n in 0..10 {
            add(&store, "b", n).await;
            add(&store, "a", n).await;
        }
        let mut running = Running::start(worker::<Tally>(&store).batch_size(batch_size));
        running.caught_up::<Tally>(&store).await;
        let found = parked(&store).await;
        let [at] = &found[..] else { panic!("{found:#?}") };
        assert_eq!((&*at.projection, &at.stream), ("tallies", &stream("b")));
        assert_eq!((at.version.get(), at.position, at.attempts), (2, unknown, 1));
        assert!(at.reason.contains("transfused") && !at.asked, "{at:?}");
        assert_eq!(control::parked(&store, Some("tallies")).await.unwrap(), found);
        assert_eq!(control::parked(&store, Some("others")).await.unwrap(), []);
        assert_eq!(control::status(&store).await.unwrap()[0].parked, 1);
        running.stop().await;

        // Another worker knows it too.
        add(&store, "b", 5).await;
        add(&store, "a", 5).await;
        catch_up::<Tally>(&store).await;
        assert_eq!(parked(&store).await, found);
        let totals = "select string_agg(ledger || total, ' ' order by ledger) from tallies";
        assert_eq!(value::<String>(&client, totals).await, "a51 b1");
        let end = reached(&client).await;
        let before = past::<Tally>(&store, end).await;

        let mut later = Running::start(worker::<LaterTally>(&store).batch_size(batch_size));
        later.caught_up::<LaterTally>(&store).await;
        assert_eq!(parked(&store).await, found, "nobody has asked for it");
        assert_eq!(control::retry(&store, "tallies", Some(&stream("a"))).await.unwrap(), 0);
        assert_eq!(control::retry(&store, "tallies", None).await.unwrap(), 1);
        eventually("it goes on", || async { parked(&store).await.is_empty() }).await;
        assert_rows::<LaterTally>(&store, &[]).await;
        assert_eq!(past::<Tally>(&store, end).await, before, "the past does not change");
        add(&store, "b", 5).await;
        later.caught_up::<LaterTally>(&store).await;
        later.stop().await;
        assert_rows::<LaterTally>(&store, &[]).await;
        assert_eq!(past::<Tally>(&store, end).await, before);
        assert_sound::<Tally>(&client).await;
        let now = AsOf::Position(store.safe_position().await.unwrap());
        let now = store.query::<LaterTally>().as_of(now).all().await.unwrap();
        assert_eq!(sorted(now), sorted(store.query::<LaterTally>().all().await.unwrap()));
    }
}

/// Fails in each of the ways in which one can, on an event with the amount of that way.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "fragile", from(Ledger), history)]
struct Fragile {
    #[read_model(key)]
    ledger: String,
    note: String,
    total: i64,
    events: i64,
    trail: i64,
}

const PANIC: i64 = 1001;
const WRONG_KEY: i64 = 1002;
const NUL: i64 = 1003;
const NUL_IN_KEY: i64 = 1004;
const REFUSED: i64 = 1005;
const OVERFLOW: i64 = 1006;
const RAISED: i64 = 1007;
const WAYS: [i64; 7] = [PANIC, WRONG_KEY, NUL, NUL_IN_KEY, REFUSED, OVERFLOW, RAISED];

/// What the database refuses.
const TRAPS: &str = "
    alter table fragile add constraint refused check (note not like '%1005%');
    alter table fragile add constraint overflow
        check (note not like '%1006%' or events * 9223372036854775807 * 2 > 0);
    create function trap() returns trigger language plpgsql as $$
    begin
        if new.note like '%1007%' then raise exception 'a trap'; end if;
        return new;
    end $$;
    create trigger trap before insert or update on fragile for each row execute function trap();";
const NO_TRAPS: &str = "
    alter table fragile drop constraint refused;
    alter table fragile drop constraint overflow;
    drop trigger trap on fragile;
    drop function trap()";

/// The code was mended, for the ledgers whose names begin with this; each test has its own.
static MENDED: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn mend(prefix: &str) {
    MENDED.lock().unwrap().push(prefix.to_owned());
}

fn is_mended(ledger: &str) -> bool {
    MENDED.lock().unwrap().iter().any(|prefix| ledger.starts_with(&**prefix))
}

impl Project<LedgerEvent> for Fragile {
    fn keys(event: &Recorded<LedgerEvent>) -> Result<Keys<String>, KeyError> {
        let key = event.stream.key();
        Ok(match &event.event {
            LedgerEvent::Added { amount: NUL_IN_KEY } if !is_mended(key) => {
                Keys::many(["\0".to_owned(), key.to_owned()])
            }
            _ => Keys::one(key.to_owned()),
        })
    }

    fn project(row: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
        let ledger = event.stream.key().to_owned();
        let is_mended = is_mended(&ledger);
        let begun = Self { ledger, note: String::new(), total: 0, events: 0, trail: 0 };
        let row = row.unwrap_or(begun);
        let LedgerEvent::Added { amount } = event.event else { return Change::Keep };
        assert!(amount != PANIC || is_mended, "it panics");
        let row = Self {
            ledger: if amount == WRONG_KEY && !is_mended { "?".to_owned() } else { row.ledger },
            note: match amount {
                NUL if !is_mended => "\0".to_owned(),
                // What is refused stays so, whatever comes behind it in a batch.
                REFUSED | OVERFLOW | RAISED => amount.to_string(),
                _ => row.note,
            },
            total: row.total + amount,
            events: row.events + 1,
            trail: row.trail.wrapping_mul(31).wrapping_add(event.position.get()),
        };
        Change::Set(row)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_fail_parks_the_stream_and_no_other() {
    for batch_size in [1000, 7] {
        let database = TestDatabase::create().await;
        let (store, client) = (database.store().await, database.client().await);
        let prefix = format!("ways{batch_size} ");
        let key = |way: i64| format!("{prefix}{way}");
        catch_up::<Fragile>(&store).await;
        client.batch_execute(TRAPS).await.unwrap();
        for way in WAYS {
            add(&store, &key(way), 1).await;
        }
        let mut expected = Vec::new();
        for way in WAYS {
            for other in 0..20 {
                add(&store, &key(other), other).await;
            }
            let position = add(&store, &key(way), way).await.last_position;
            expected.push((stream(&key(way)), position));
            add(&store, &key(way), 1).await;
        }
        let mut running = Running::start(worker::<Fragile>(&store).batch_size(batch_size));
        running.caught_up::<Fragile>(&store).await;
        let found = parked(&store).await;
        let places: Vec<_> = found.iter().map(|at| (at.stream.clone(), at.position)).collect();
        assert_eq!(places, expected, "{found:#?}");
        for (found, part) in std::iter::zip(
            &found,
            ["it panics", "another key", "0x00", "0x00", "refused", "out of range", "a trap"],
        ) {
            assert!(found.reason.contains(part), "{part} is not in: {}", found.reason);
        }
        // What was parked is the version before, and all of the others is there.
        let sql = "select count(*) filter (where total = 1 and events = 1),
                       count(*) filter (where events = 7) from fragile";
        let row = client.query_one(sql, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (7, 20));
        let end = reached(&client).await;
        let before = past::<Fragile>(&store, end).await;

        mend(&prefix);
        client.batch_execute(NO_TRAPS).await.unwrap();
        assert_eq!(control::retry(&store, "fragile", None).await.unwrap(), 7);
        eventually("all go on", || async { parked(&store).await.is_empty() }).await;
        assert_rows::<Fragile>(&store, &[]).await;
        assert_eq!(past::<Fragile>(&store, end).await, before, "the past does not change");
        assert_sound::<Fragile>(&client).await;
        assert!(running.is_running());
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_fails_again_stays_parked_where_it_fails() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    catch_up::<Fragile>(&store).await;
    client.batch_execute(TRAPS).await.unwrap();
    let key = "again";
    let first = add(&store, key, PANIC).await.last_position;
    for n in 0..10 {
        add(&store, key, n).await;
    }
    let second = add(&store, key, REFUSED).await.last_position;
    for n in 0..10 {
        add(&store, key, n).await;
    }
    let mut running = Running::start(worker::<Fragile>(&store).batch_size(8));
    running.caught_up::<Fragile>(&store).await;
    assert_eq!(parked(&store).await[0].position, first);
    let retried = |position, attempts| {
        let store = &store;
        async move {
            assert_eq!(control::retry(store, "fragile", Some(&stream(key))).await.unwrap(), 1);
            eventually("it was tried", || async {
                let at = &parked(store).await[0];
                at.position == position && at.attempts == attempts && !at.asked
            })
            .await;
            parked(store).await.remove(0)
        }
    };
    assert!(retried(first, 2).await.reason.contains("it panics"));
    assert!(retried(first, 3).await.reason.contains("it panics"));
    mend(key);
    let at = retried(second, 1).await;
    assert!(at.reason.contains("refused") && at.version.get() == 12, "{at:?}");
    assert_eq!(value::<i64>(&client, "select events from fragile").await, 11);
    assert_eq!(retried(second, 2).await.version.get(), 12);
    // Meanwhile the stream grows.
    add(&store, key, 3).await;
    running.caught_up::<Fragile>(&store).await;
    client.batch_execute(NO_TRAPS).await.unwrap();
    control::retry(&store, "fragile", None).await.unwrap();
    eventually("it goes on", || async { parked(&store).await.is_empty() }).await;
    assert_rows::<Fragile>(&store, &[]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn to_discard_leaves_one_event_out() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for n in 0..5 {
        add(&store, "a", n).await;
        add(&store, "b", n).await;
    }
    let mut without = vec![transfuse(&store, "b", 70).await];
    for n in 0..10 {
        add(&store, "b", n).await;
    }
    without.push(transfuse(&store, "b", 90).await);
    add(&store, "b", 7).await;
    let mut running = Running::start(worker::<Tally>(&store).batch_size(4));
    running.caught_up::<Tally>(&store).await;
    assert!(!control::discard(&store, "tallies", &stream("a")).await.unwrap());
    assert!(!control::discard(&store, "others", &stream("b")).await.unwrap());
    assert!(control::discard(&store, "tallies", &stream("b")).await.unwrap());
    eventually("the next one is there", || async {
        let at = &parked(&store).await[0];
        at.position == without[1] && !at.asked
    })
    .await;
    assert!(control::discard(&store, "tallies", &stream("b")).await.unwrap());
    eventually("it goes on", || async { parked(&store).await.is_empty() }).await;
    add(&store, "b", 7).await;
    running.caught_up::<Tally>(&store).await;
    running.stop().await;
    assert_rows::<Tally>(&store, &without).await;
    assert_sound::<Tally>(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_at_every_step_of_parking_and_of_going_on() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let mut without = Vec::new();
    for round in 0..12 {
        // More than a batch is parked.
        for n in 0..3 {
            add(&store, "a", n).await;
        }
        without.push(transfuse(&store, "a", round).await);
        for n in 0..9 {
            add(&store, "a", n).await;
            add(&store, "b", n).await;
        }
        let mut steps = 1 + round;
        let mut asked = false;
        loop {
            let run = worker::<Tally>(&store).batch_size(2).lease(lease(1)).run();
            let mut run = std::pin::pin!(run);
            let mut left = steps;
            std::future::poll_fn(|cx| {
                left -= 1;
                assert!(run.as_mut().poll(cx).is_pending(), "a worker runs on");
                if left == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
            steps += 12;
            if !parked(&store).await.is_empty() && !asked {
                asked = control::discard(&store, "tallies", &stream("a")).await.unwrap();
            }
            if asked && parked(&store).await.is_empty() {
                break;
            }
            // Each step waits for something, at times for the next look.
            if steps > 150 {
                break;
            }
        }
        let mut running = Running::start(worker::<Tally>(&store).batch_size(2));
        running.caught_up::<Tally>(&store).await;
        if !asked {
            assert!(control::discard(&store, "tallies", &stream("a")).await.unwrap());
        }
        eventually("it goes on", || async { parked(&store).await.is_empty() }).await;
        running.stop().await;
        assert_rows::<Tally>(&store, &without).await;
        assert_sound::<Tally>(&client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_and_retried_while_its_connections_are_terminated() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let reader = database.store_as("victim").await;
    let (_, mut rng) = seeded();
    let key = |n| format!("killed {n}");
    let worker = worker::<Fragile>(&reader).batch_size(5).lease(lease(500)).pause_after(1_000_000);
    let mut running = Running::start(worker);
    for turn in 0..150 {
        let amount = if rng.random_ratio(1, 12) { PANIC } else { turn };
        add(&store, &key(rng.random_range(0..8)), amount).await;
        match rng.random_range(0..12) {
            0 | 1 => drop(kill(&client, "victim").await),
            2 => drop(control::retry(&store, "fragile", None).await.unwrap()),
            3 => tokio::time::sleep(Duration::from_millis(100)).await,
            _ => {}
        }
    }
    running.caught_up::<Fragile>(&store).await;
    assert!(!parked(&store).await.is_empty());
    mend("killed");
    while !parked(&store).await.is_empty() {
        control::retry(&store, "fragile", None).await.unwrap();
        kill(&client, "victim").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    running.caught_up::<Fragile>(&store).await;
    running.stop().await;
    assert_rows::<Fragile>(&store, &[]).await;
    assert_sound::<Fragile>(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_one_after_the_other_pause_the_projection() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let start = || Running::start(worker::<Fragile>(&store).pause_after(3));
    // Many that fail, with others that succeed in between: no reason to pause. Also within one batch.
    for n in 0..20 {
        add(&store, &format!("system {n}"), PANIC).await;
        add(&store, "fine", n).await;
    }
    let mut running = start();
    running.caught_up::<Fragile>(&store).await;
    assert_eq!(parked(&store).await.len(), 20);

    for n in 0..8 {
        add(&store, &format!("systems {n}"), PANIC).await;
    }
    let state = || async { control::status(&store).await.unwrap()[0].state.clone() };
    eventually("it is paused", || async { state().await != State::Running }).await;
    let State::Paused(reason) = state().await else { panic!("{:?}", state().await) };
    assert!(reason.contains("3 streams in a row") && reason.contains("it panics"), "{reason}");
    assert_eq!(parked(&store).await.len(), 23);
    let stands = reached(&client).await;
    add(&store, "fine", 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(reached(&client).await, stands);
    running.stop().await;

    // It stays paused, whoever comes; nothing is lost.
    let mut running = start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((reached(&client).await, parked(&store).await.len()), (stands, 23));
    mend("syst");
    assert!(control::resume(&store, "fragile").await.unwrap());
    running.caught_up::<Fragile>(&store).await;
    assert_eq!((state().await, parked(&store).await.len()), (State::Running, 23));
    control::retry(&store, "fragile", None).await.unwrap();
    eventually("all go on", || async { parked(&store).await.is_empty() }).await;
    running.stop().await;
    assert_rows::<Fragile>(&store, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_enough_to_park_and_to_go_on() {
    let database = TestDatabase::create().await;
    let options =
        EventStore::options().connections(Use::Read, 1).connections(Use::Project, 1).writers(1);
    let store = database.store_with(options).await;
    add(&store, "lone", PANIC).await;
    let unknown = NewEvent::raw("unheard_of", 1, Payload::from_json("{}").unwrap());
    let unknown = Append::to(stream("unknown"), ExpectedVersion::Any, [unknown]);
    let unknown = store.append(unknown).await.unwrap().last_position;
    append::<Ledger>(&store, "unknown", [LedgerEvent::Added { amount: 1 }]).await;
    let mut running = Running::start(worker::<Fragile>(&store));
    running.caught_up::<Fragile>(&store).await;
    assert_eq!(parked(&store).await.len(), 2);
    mend("lone");
    control::retry(&store, "fragile", Some(&stream("lone"))).await.unwrap();
    control::discard(&store, "fragile", &stream("unknown")).await.unwrap();
    eventually("both go on", || async { parked(&store).await.is_empty() }).await;
    running.stop().await;
    assert_rows::<Fragile>(&store, &[unknown]).await;
}
