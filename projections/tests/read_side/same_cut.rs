//! Several read models and aggregates as of one moment: nothing is in one of them that another lacks.

use annals_eventstore::{AsOf, EventStore, Position, Recorded};
use annals_projections::{
    Change, Consistency, KeyError, Keys, Project, QueryReadModels, ReadModel,
};
use chrono::TimeDelta;

use crate::support::{
    PATIENCE, Running,
    database::TestDatabase,
    ledger::{Ledger, LedgerEvent, Tally},
    load::{Load, seeded},
    oracle::{fold, log, sorted},
    worker,
};

/// How far a ledger's stream is.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "lengths", from(Ledger), history)]
struct Length {
    #[read_model(key)]
    ledger: String,
    version: i64,
}

impl Project<LedgerEvent> for Length {
    fn keys(event: &Recorded<LedgerEvent>) -> Result<Keys<String>, KeyError> {
        Ok(Keys::one(event.stream.key().to_owned()))
    }

    fn project(_: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
        let (ledger, version) = (event.stream.key().to_owned(), event.version.get());
        Change::Set(Self { ledger, version })
    }
}

async fn rows<R: ReadModel>(store: &EventStore, at: Position) -> Vec<R> {
    // Workers come to it at paces of their own.
    let patient = Consistency::AtLeast(at, PATIENCE / 2);
    let query = store.query::<R>().as_of(AsOf::Position(at)).consistency(patient);
    query.all().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn read_models_and_aggregates_agree_on_a_moment_while_appends_go_on() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let (seed, _) = seeded();
    let tallies = Running::start(worker::<Tally>(&store).batch_size(3));
    let lengths = Running::start(worker::<Length>(&store).batch_size(40));
    let mut load = Load::start(&store, seed, 4, 150);
    let mut asked = Vec::new();
    while !load.is_done() || asked.len() < 10 {
        // By a position, and by a time, whose position is the same for all who ask with it.
        let mut at = store.safe_position().await.unwrap();
        if asked.len() % 2 == 1 {
            let last = last_recorded(&store).await;
            at = store.position_at(last - TimeDelta::milliseconds(3)).await.unwrap();
        }
        let found = rows::<Length>(&store, at).await;
        for Length { ledger, version } in &found {
            let loaded = store.load_as_of::<Ledger>(ledger, AsOf::Position(at)).await.unwrap();
            let loaded = loaded.map(|loaded| loaded.version.get());
            assert_eq!(loaded, Some(*version), "{ledger} as of {at}");
        }
        asked.push((at, found, rows::<Tally>(&store, at).await));
    }
    load.done().await;
    tallies.stop().await;
    lengths.stop().await;
    let log = log(&store).await;
    for (at, lengths, tallies) in asked {
        assert_eq!(sorted(lengths), sorted(fold::<Length>(&log, at).rows.into_values()), "at {at}");
        assert_eq!(sorted(tallies), sorted(fold::<Tally>(&log, at).rows.into_values()), "at {at}");
    }
}

/// When the last event was recorded.
async fn last_recorded(store: &EventStore) -> chrono::DateTime<chrono::Utc> {
    let log = log(store).await;
    log.last().map_or_else(chrono::Utc::now, |event| event.recorded_at)
}
