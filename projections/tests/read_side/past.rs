//! What rows were: filtered, version by version, between two moments, and how long it is kept.

use annals_eventstore::{AsOf, Position};
use annals_projections::{
    ProjectionError, QueryReadModels, RowVersion, WaitForReadModel, forget_history,
};
use futures::TryStreamExt;

use crate::support::{
    PATIENCE, Running, catch_up,
    database::{TestDatabase, refusal, value},
    ledger::{Add, Ledger, LedgerEvent, Tally, add, append},
    load::{Load, append_some, seeded},
    oracle::{assert_exact, fold, log, sorted},
    worker,
};

fn at(position: i64) -> AsOf {
    AsOf::Position(Position::new(position))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_finds_the_same_rows_as_a_filter_over_all_now_and_then() {
    let (_, mut rng) = seeded();
    let database = TestDatabase::create().await;
    let store = database.store().await;
    for _ in 0..120 {
        append_some(&store, &mut rng).await;
    }
    catch_up::<Tally>(&store).await;
    let end = store.safe_position().await.unwrap().get();
    let moments = [None].into_iter().chain((0..=end).step_by(7).map(Some));
    let mut found = 0;
    for moment in moments {
        let query = || match moment {
            None => store.query::<Tally>(),
            Some(position) => store.query::<Tally>().as_of(at(position)),
        };
        let mut all = query().all().await.unwrap();
        all.retain(|row| row.total > 20 && row.ledger != "b");
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&20_i64, &"b"];
        let filtered = || query().filter("total > $1 and ledger <> $2", &params);
        assert_eq!(filtered().all().await.unwrap(), all, "{moment:?}");
        assert_eq!(filtered().count().await.unwrap(), all.len() as u64);
        let streamed: Vec<_> = filtered().rows().await.unwrap().try_collect().await.unwrap();
        assert_eq!(streamed, all);
        let largest = filtered().order_by("total desc, ledger").limit(2).all().await.unwrap();
        all.sort_by_key(|row| (-row.total, row.ledger.clone()));
        all.truncate(2);
        assert_eq!(largest, all, "{moment:?}");
        for ledger in ["a", "b"] {
            let row = filtered().get(&ledger.to_owned()).await.unwrap();
            let whole = query().get(&ledger.to_owned()).await.unwrap();
            assert_eq!(row, whole.filter(|row| row.total > 20 && row.ledger != "b"));
        }
        found += all.len();
    }
    assert!(found > 10, "the filter finds something");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_row_is_every_version_of_it() {
    use LedgerEvent::{Added, Closed};
    let database = TestDatabase::create().await;
    let store = database.store().await;
    add(&store, "b", 9).await;
    let added = |amount| Added { amount };
    let first = append::<Ledger>(&store, "a", [added(1), added(2), Closed, added(4)]).await;
    catch_up::<Tally>(&store).await;
    let history = store.query::<Tally>().history(&"a".to_owned()).await.unwrap();
    let first = first.first_position.get();
    let told: Vec<_> = history
        .iter()
        .map(|RowVersion { row, from, to, .. }| {
            (row.total, from.get() - first, to.map(|to| to.get() - first))
        })
        .collect();
    assert_eq!(told, [(1, 0, Some(1)), (3, 1, Some(2)), (4, 3, None)]);
    assert!(store.query::<Tally>().history(&"none".to_owned()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_changes_between_two_moments_are_the_difference_of_their_rows() {
    let (_, mut rng) = seeded();
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for _ in 0..60 {
        append_some(&store, &mut rng).await;
    }
    catch_up::<Tally>(&store).await;
    let end = store.safe_position().await.unwrap().get();
    let log = log(&store).await;
    for (from, to) in [(0, end), (end / 3, end / 2), (end / 2, end / 3), (end, end), (3, 4)] {
        let changes = store.query::<Tally>().changes(at(from), at(to)).await.unwrap();
        let before = fold::<Tally>(&log, Position::new(from)).rows;
        let after = fold::<Tally>(&log, Position::new(to)).rows;
        // A row that went and came back the same is told too, so only one direction is a law.
        for key in before.keys().chain(after.keys()) {
            if before.get(key) != after.get(key) {
                let told = changes.iter().any(|change| {
                    change.before.as_ref() == before.get(key)
                        && change.after.as_ref() == after.get(key)
                });
                assert!(told, "{key} from {from} to {to}");
            }
        }
        for change in &changes {
            let key = &change.before.as_ref().or(change.after.as_ref()).unwrap().ledger;
            assert_eq!(change.before.as_ref(), before.get(key));
            assert_eq!(change.after.as_ref(), after.get(key));
        }
        let in_sql: i64 =
            value(&client, &format!("select count(*) from tallies_changes({from}, {to})")).await;
        assert_eq!(in_sql, changes.len() as i64);
    }
    let kinds: String = value(
        &client,
        &format!("select string_agg(distinct change, ' ') from tallies_changes(0, {end})"),
    )
    .await;
    assert_eq!(kinds, "added");
    let (code, _) = refusal(&client, "select * from tallies_changes('2011-01-01', null)").await;
    assert_eq!(code, "22004");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_is_refused_and_the_rest_stays() {
    let (_, mut rng) = seeded();
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for _ in 0..60 {
        append_some(&store, &mut rng).await;
    }
    catch_up::<Tally>(&store).await;
    let end = store.safe_position().await.unwrap().get();
    let kept = end / 2;
    let before: i64 = value(&client, "select count(*) from tallies_history").await;
    let forgotten = forget_history::<Tally>(&store, at(kept)).await.unwrap();
    let after: i64 = value(&client, "select count(*) from tallies_history").await;
    assert!(forgotten > 0);
    assert_eq!(before - after, forgotten as i64);
    let log = log(&store).await;
    for position in kept..=end {
        let rows = store.query::<Tally>().as_of(at(position)).all().await.unwrap();
        assert_eq!(
            sorted(rows),
            sorted(fold::<Tally>(&log, Position::new(position)).rows.into_values())
        );
    }
    let error = store.query::<Tally>().as_of(at(kept - 1)).all().await.unwrap_err();
    match error {
        ProjectionError::Forgotten { projection: "tallies", kept_from, needed } => {
            assert_eq!((kept_from.get(), needed.get()), (kept, kept - 1));
        }
        other => panic!("{other:?}"),
    }
    let (code, message) =
        refusal(&client, &format!("select * from tallies_as_of({})", kept - 1)).await;
    assert_eq!(code, "AN013", "{message}");
    // Less is not remembered again, and the future cannot be forgotten.
    assert_eq!(forget_history::<Tally>(&store, at(1)).await.unwrap(), 0);
    assert!(store.query::<Tally>().as_of(at(kept - 1)).all().await.is_err());
    let error = forget_history::<Tally>(&store, at(end + 1)).await.unwrap_err();
    assert!(matches!(error, ProjectionError::NotReached { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_can_be_waited_for() {
    let (seed, _) = seeded();
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let load = Load::start(&store, seed, 2, 50);
    let running = Running::start(worker::<Tally>(&store));
    for n in 1..=20 {
        let command = Add { ledger: "mine".into(), amount: 1 };
        let done = store.execute(command).await.unwrap();
        done.wait_for::<Tally>(&store, PATIENCE).await.unwrap();
        let row = store.query::<Tally>().get(&"mine".to_owned()).await.unwrap().unwrap();
        assert_eq!(row.total, n);
    }
    load.done().await;
    let mut running = running;
    running.caught_up::<Tally>(&store).await;
    running.stop().await;
    assert_exact::<Tally>(&store, &client).await;
    let late = add(&store, "mine", 1).await;
    let error = late.wait_for::<Tally>(&store, std::time::Duration::from_millis(20)).await;
    assert!(matches!(error, Err(ProjectionError::TimedOut { .. })), "{error:?}");
}
