//! What a store keeps to because it was opened so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{
    Append, Command, Error, EventStore, ExecuteError, ExpectedVersion, Handle, NewEvent, Payload,
    Version,
};
use tokio::{runtime::Handle as Runtime, task::block_in_place};

use super::{
    append::assert_refused,
    list::open,
    stores::Stores,
    support::{
        counter::{BelowZero, Counter, CounterEvent, counter},
        json, log, one, stream,
    },
};

/// A command that makes its own conflict: its stream has moved whenever it is decided.
#[derive(Command, Clone, serde::Serialize)]
#[command(aggregate = Counter)]
struct Meddle {
    #[command(id)]
    counter: &'static str,
    #[serde(skip)]
    store: EventStore,
    #[serde(skip)]
    decisions: Arc<AtomicUsize>,
}

impl Handle<Meddle> for Counter {
    fn handle(&self, command: Meddle) -> Result<Vec<CounterEvent>, BelowZero> {
        command.decisions.fetch_add(1, Ordering::Relaxed);
        let changed = NewEvent::raw("changed", 1, Payload::from_json(r#"{"by":1}"#).unwrap());
        let append = Append::to(counter("a"), ExpectedVersion::Any, [changed]);
        block_in_place(|| Runtime::current().block_on(command.store.append(append))).unwrap();
        Ok(vec![CounterEvent::Cleared])
    }
}

pub(crate) async fn a_conflict_is_reported_after_the_last_attempt(stores: &dyn Stores) {
    for attempts in [1, 3] {
        let store = open(stores, EventStore::options().max_attempts(attempts)).await;
        let decisions = Arc::<AtomicUsize>::default();
        let meddle =
            Meddle { counter: "a", store: store.clone(), decisions: Arc::clone(&decisions) };
        match store.execute(meddle).await {
            Err(ExecuteError::Failed(Error::Conflict { stream, expected, actual })) => {
                let expected_last = ExpectedVersion::Exact(Version::new(attempts as i64 - 1));
                assert_eq!((stream, expected), (counter("a"), expected_last));
                assert_eq!(actual.get(), attempts as i64);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(decisions.load(Ordering::Relaxed), attempts);
        assert_eq!(log(&store).await.len(), attempts, "of the command itself nothing is recorded");
    }
}

pub(crate) async fn the_limits_that_are_set_are_kept(stores: &dyn Stores) {
    let options = EventStore::options().max_event_bytes(8).max_append_events(2);
    let store = open(stores, options).await;
    let append = |events: Vec<NewEvent>| Append::to(stream("a"), ExpectedVersion::Any, events);
    let large = append(vec![json("\"1234567\"")]);
    assert_refused(store.append(large).await, "has 9 bytes, the limit is 8");
    let many = append(vec![json("1"); 3]);
    assert_refused(store.append(many).await, "more than 2 events");
    assert!(log(&store).await.is_empty());
    store.append(append(vec![json("\"123456\""), json("2")])).await.unwrap();

    let options = EventStore::options().max_append_bytes(16);
    let store = open(stores, options).await;
    // The limit counts what the events of all streams come to.
    let many = append(vec![json("\"123456\""), json("\"123456\"")]);
    let too_many = many.clone().and(stream("b"), ExpectedVersion::Any, [json("1")]);
    assert_refused(store.append(too_many).await, "more than 16 bytes together");
    assert!(log(&store).await.is_empty());
    store.append(many).await.unwrap();
}

const SOON: Duration = Duration::from_millis(500);

/// By themselves, once their time is over, and not before.
pub(crate) async fn keys_are_forgotten_when_their_time_is_over(stores: &dyn Stores) {
    let append = || one(stream("a"), 1).idempotency_key("request 1");
    let keeping = async |retention| {
        let store = open(stores, EventStore::options().idempotency_retention(retention)).await;
        assert!(!store.append(append()).await.unwrap().replayed);
        store
    };
    let (forgetful, other) = tokio::join!(keeping(SOON), keeping(Duration::from_secs(86_400)));
    // One that never forgets hangs here.
    loop {
        match forgetful.append(append()).await {
            Ok(appended) if !appended.replayed => break,
            Ok(_) => tokio::time::sleep(SOON / 10).await,
            // It is being forgotten at this moment.
            Err(Error::KeyInFlight) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(log(&forgetful).await.len(), 2);
    assert!(other.append(append()).await.unwrap().replayed);
}
