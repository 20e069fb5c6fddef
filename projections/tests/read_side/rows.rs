//! Which rows events touch, and what becomes of them.

use annals_eventstore::Recorded;
use annals_projections::{Change, KeyError, Keys, Project, QueryReadModels, ReadModel};

use crate::support::{
    Running, catch_up,
    database::{TestDatabase, value},
    ledger::{Audit, AuditEvent, Ledger, LedgerEvent, Tally, add, append, unrelated},
    oracle::assert_exact,
    worker,
};

fn shared(ledgers: &[&str], amount: i64) -> LedgerEvent {
    LedgerEvent::Shared { ledgers: ledgers.iter().map(ToString::to_string).collect(), amount }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_streams_feed_one_row_and_one_event_several_rows() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    append::<Ledger>(&store, "b", [shared(&["a", "c", "d"], 10)]).await;
    append::<Ledger>(&store, "c", [shared(&["a", "a", "d", "a"], 100), shared(&[], 1000)]).await;
    let passed = |ledger: &str| AuditEvent::Passed { ledger: ledger.into() };
    append::<Audit>(&store, "x", [passed("a"), passed("b"), passed("a")]).await;
    unrelated(&store, "a").await;
    catch_up::<Tally>(&store).await;
    let rows = store.query::<Tally>().all().await.unwrap();
    let rows: Vec<_> =
        rows.iter().map(|row| (row.ledger.as_str(), row.total, row.events, row.audits)).collect();
    // A key that stands thrice counts once; an audit of a row that is not there changes nothing.
    assert_eq!(rows, [("a", 111, 5, 2), ("c", 10, 1, 0), ("d", 110, 2, 0)]);
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_deleted_and_comes_back() {
    use LedgerEvent::{Added, Closed, Noted};
    // In one batch, and across batches.
    for batch_size in [1000, 1, 2, 3] {
        let database = TestDatabase::create().await;
        let (store, client) = (database.store().await, database.client().await);
        let added = |amount| Added { amount };
        let events = [added(1), Closed, added(2), added(3), Closed, Closed, Noted, added(4), Noted];
        let appended = append::<Ledger>(&store, "a", events).await;
        append::<Ledger>(&store, "b", [Closed, Noted]).await;
        append::<Ledger>(&store, "c", [added(5), Closed]).await;
        let mut running = Running::start(worker::<Tally>(&store).batch_size(batch_size));
        running.caught_up::<Tally>(&store).await;
        running.stop().await;

        let get = |ledger: &str| {
            let (store, ledger) = (&store, ledger.to_owned());
            async move { store.query::<Tally>().get(&ledger).await.unwrap() }
        };
        let row = get("a").await.unwrap();
        assert_eq!((row.total, row.events), (4, 1), "it begins anew");
        assert_eq!((get("b").await, get("c").await), (None, None));
        let first = appended.first_position.get();
        let ranges: String = value(
            &client,
            "select string_agg(
                 total || ':' || valid_from || '-' || coalesce(valid_to::text, 'now'),
                 ' ' order by valid_from)
             from tallies_versions() where ledger = 'a'",
        )
        .await;
        let [a, b, c, d, e, f] = [0, 1, 2, 3, 4, 7].map(|offset| first + offset);
        assert_eq!(ranges, format!("1:{a}-{b} 2:{c}-{d} 5:{d}-{e} 4:{f}-now"));
        assert_exact::<Tally>(&store, &client).await;
    }
}

/// A row for each pair of a ledger's own key and a ledger that it shared with.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "pairs", from(Ledger), history)]
struct Pair {
    times: i32,
    #[read_model(key)]
    with: String,
    #[read_model(key, column = "from")]
    ledger: String,
}

impl Project<LedgerEvent> for Pair {
    fn keys(event: &Recorded<LedgerEvent>) -> Result<Keys<(String, String)>, KeyError> {
        let LedgerEvent::Shared { ledgers, .. } = &event.event else { return Ok(Keys::none()) };
        let ledger = event.stream.key();
        Ok(Keys::many(ledgers.iter().map(|with| (with.clone(), ledger.to_owned()))))
    }

    fn project(_: Option<Self>, _: &Recorded<LedgerEvent>) -> Change<Self> {
        unreachable!("project_row is there")
    }

    fn project_row(
        (with, ledger): &(String, String),
        row: Option<Self>,
        _: &Recorded<LedgerEvent>,
    ) -> Change<Self> {
        let times = row.map_or(0, |row| row.times) + 1;
        if times == 4 {
            return Change::Delete;
        }
        Change::Set(Self { times, with: with.clone(), ledger: ledger.clone() })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_several_columns() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for round in 0..6 {
        // Pairs that share the one column or the other, and each other's turned round.
        append::<Ledger>(&store, "a", [shared(&["a", "b", "c"], 0), LedgerEvent::Noted]).await;
        append::<Ledger>(&store, "b", [shared(&["a", "b"], 0)]).await;
        if round == 1 {
            append::<Ledger>(&store, "c", [shared(&["a"], 0)]).await;
        }
        let mut running = Running::start(worker::<Pair>(&store).batch_size(1 + round));
        running.caught_up::<Pair>(&store).await;
        running.stop().await;
        assert_exact::<Pair>(&store, &client).await;
    }
    let get = |with: &str, from: &str| {
        let (store, key) = (&store, (with.to_owned(), from.to_owned()));
        async move { store.query::<Pair>().get(&key).await.unwrap().map(|row| row.times) }
    };
    // Six times is once deleted and twice more.
    assert_eq!(get("b", "a").await, Some(2));
    assert_eq!(get("a", "c").await, Some(1));
    assert_eq!(get("c", "b").await, None);
}

/// Nothing but a key.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "known", from(Ledger), history)]
struct Known {
    #[read_model(key)]
    ledger: String,
}

impl Project<LedgerEvent> for Known {
    fn project(_: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
        match event.event {
            LedgerEvent::Closed => Change::Delete,
            _ => Change::Set(Self { ledger: event.stream.key().to_owned() }),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_nothing_but_a_key() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for round in 0..3 {
        add(&store, "a", 1).await;
        add(&store, "a", 1).await;
        append::<Ledger>(&store, "b", [LedgerEvent::Noted, LedgerEvent::Closed]).await;
        let mut running = Running::start(worker::<Known>(&store).batch_size(1 + 2 * round));
        running.caught_up::<Known>(&store).await;
        running.stop().await;
        assert_exact::<Known>(&store, &client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_listed_by_their_keys_and_streamed() {
    use futures::TryStreamExt;
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let ledgers: Vec<_> = (0..500).map(|n| format!("{n:04}")).collect();
    let all: Vec<_> = ledgers.iter().rev().map(String::as_str).collect();
    append::<Ledger>(&store, "x", [shared(&all, 1)]).await;
    catch_up::<Tally>(&store).await;
    let mut rows = std::pin::pin!(store.query::<Tally>().rows().await.unwrap());
    let first = rows.try_next().await.unwrap().unwrap();
    assert_eq!(first.ledger, ledgers[0]);
    // A stream that is given up half-way leaves nothing behind.
    let listed = store.query::<Tally>().all().await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|row| row.ledger).collect();
    assert_eq!(listed, ledgers);
}
