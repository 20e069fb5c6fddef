//! What a store keeps to because it was opened so.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
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
        json, log, stream,
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
}
