//! A read model as it was, replayed from the log into tables of its own.

use std::sync::{Arc, Mutex};

use annals_eventstore::{AsOf, Position, Recorded};
use annals_projections::{
    Change, Progress, Project, ProjectionError, QueryReadModels, ReadModel, Rebuild, forget_history,
};

use crate::support::{
    catch_up,
    database::{TestDatabase, value},
    ledger::{Ledger, LedgerEvent, Tally},
    load::{append_some, seeded},
    oracle::{assert_exact, fold, log, sorted},
};

/// The sums of ledgers, of which no history is kept.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "sums", from(Ledger))]
struct Sum {
    #[read_model(key)]
    ledger: String,
    total: i64,
}

impl Project<LedgerEvent> for Sum {
    fn project(row: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
        let LedgerEvent::Added { amount } = event.event else { return Change::Keep };
        let total = row.map_or(0, |row| row.total) + amount;
        Change::Set(Self { ledger: event.stream.key().to_owned(), total })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_moment_is_replayed_and_what_is_in_use_stays_as_it_is() {
    let (_, mut rng) = seeded();
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for _ in 0..120 {
        append_some(&store, &mut rng).await;
    }
    catch_up::<Sum>(&store).await;
    let log = log(&store).await;
    let end = store.safe_position().await.unwrap();
    let told = Arc::new(Mutex::new(Vec::<Progress>::new()));
    let replay = {
        let told = told.clone();
        Rebuild::<Sum>::of(&store).on_progress(move |progress| told.lock().unwrap().push(progress))
    };
    // Forward, back, and the same again.
    for at in [end.get() / 3, end.get(), end.get() / 2, end.get() / 2, 0] {
        let at = Position::new(at);
        let then = replay.replay_to(AsOf::Position(at)).await.unwrap();
        assert_eq!((then.position(), then.parked()), (at, 0));
        let expected = fold::<Sum>(&log, at).rows;
        assert_eq!(
            sorted(then.query().all().await.unwrap()),
            sorted(expected.clone().into_values())
        );
        for ledger in ["a", "b"] {
            let row = then.query().get(&ledger.to_owned()).await.unwrap();
            assert_eq!(row.as_ref(), expected.get(ledger));
        }
        let rich = then.query().filter("total > $1", &[&10_i64]).count().await.unwrap();
        assert_eq!(rich, expected.values().filter(|row| row.total > 10).count() as u64);
        let rows: i64 = value(&client, &format!("select count(*) from {}", then.table())).await;
        assert_eq!(rows, expected.len() as i64);
        assert_exact::<Sum>(&store, &client).await;
    }
    assert!(!told.lock().unwrap().is_empty(), "somebody is told how far it is");
    // It keeps no stream from being archived, and no worker takes it for a projection.
    let left: String = value(
        &client,
        "select string_agg(name, ' ') from (select name from annals.checkpoints
         union select name from annals.projections) names",
    )
    .await;
    assert_eq!(left, "projection:sums");

    let beyond = AsOf::Position(Position::new(end.get() + 1));
    let error = replay.replay_to(beyond).await.unwrap_err();
    assert!(matches!(error, ProjectionError::NotReached { .. }), "{error:?}");
    let then = replay.replay_to(AsOf::Position(end)).await.unwrap();
    then.discard().await.unwrap();
    let gone: bool = value(&client, "select to_regclass('annals_past.sums') is null").await;
    assert!(gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_history_has_forgotten_is_replayed_with_its_history() {
    let (_, mut rng) = seeded();
    let database = TestDatabase::create().await;
    let store = database.store().await;
    for _ in 0..80 {
        append_some(&store, &mut rng).await;
    }
    catch_up::<Tally>(&store).await;
    let log = log(&store).await;
    let half = Position::new(store.safe_position().await.unwrap().get() / 2);
    forget_history::<Tally>(&store, AsOf::Position(half)).await.unwrap();
    let before = Position::new(half.get() - 5);
    assert!(store.query::<Tally>().as_of(AsOf::Position(before)).all().await.is_err());
    let then = Rebuild::<Tally>::of(&store).replay_to(AsOf::Position(half)).await.unwrap();
    for at in [Position::new(3), before, half] {
        let rows = then.query().as_of(AsOf::Position(at)).all().await.unwrap();
        assert_eq!(sorted(rows), sorted(fold::<Tally>(&log, at).rows.into_values()));
    }
    let behind = AsOf::Position(Position::new(half.get() + 1));
    let error = then.query().as_of(behind).all().await.unwrap_err();
    assert!(matches!(error, ProjectionError::NotReached { .. }), "{error:?}");
}
