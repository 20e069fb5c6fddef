//! Loading what was stored in shapes and under names that the code has left behind.

use annals_eventstore::{
    Aggregate, Append, Apply, AsOf, Command, DecodeError, Error, Event, EventStore,
    ExpectedVersion, Handle, Loaded, NewEvent, Payload, StreamId, Version,
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(dropped("viewed"), split("moved", Moved))]
enum PurseEvent {
    #[event(version = 3, upcast_from = [PaidInV1, PaidInV2])]
    PaidIn {
        cents: i64,
        #[serde(alias = "who")]
        by: String,
    },
    #[event(alias = "taken")]
    PaidOut { cents: i64 },
    /// Its first version was a list of reasons, at times empty.
    #[event(version = 2, split_from = BlockedV1)]
    Blocked { reason: String },
}

#[derive(Deserialize)]
struct PaidInV1(i64);

#[derive(Deserialize)]
struct PaidInV2 {
    cents: i64,
}

#[derive(Deserialize)]
struct Moved {
    out: i64,
    back: i64,
}

#[derive(Deserialize)]
struct BlockedV1(Vec<String>);

impl From<PaidInV1> for PaidInV2 {
    fn from(PaidInV1(euros): PaidInV1) -> Self {
        Self { cents: euros * 100 }
    }
}

impl From<PaidInV2> for PurseEvent {
    fn from(PaidInV2 { cents }: PaidInV2) -> Self {
        Self::PaidIn { cents, by: "nobody".into() }
    }
}

impl From<Moved> for Vec<PurseEvent> {
    fn from(Moved { out, back }: Moved) -> Self {
        let paid_in = PurseEvent::PaidIn { cents: back, by: "itself".into() };
        vec![PurseEvent::PaidOut { cents: out }, paid_in]
    }
}

impl From<BlockedV1> for Vec<PurseEvent> {
    fn from(BlockedV1(reasons): BlockedV1) -> Self {
        reasons.into_iter().map(|reason| PurseEvent::Blocked { reason }).collect()
    }
}

/// A purse that remembers everything that happened to it.
#[derive(Aggregate, Default, Debug, PartialEq)]
#[aggregate(category = "purse", event = PurseEvent)]
struct Purse {
    cents: i64,
    happened: Vec<PurseEvent>,
}

impl Apply<PurseEvent> for Purse {
    fn apply(&mut self, event: &PurseEvent) {
        match event {
            PurseEvent::PaidIn { cents, .. } => self.cents += cents,
            PurseEvent::PaidOut { cents } => self.cents -= cents,
            PurseEvent::Blocked { .. } => {}
        }
        self.happened.push(event.clone());
    }
}

/// Takes out all that is in it.
#[derive(Command, Serialize, Clone)]
#[command(aggregate = Purse)]
struct Empty {
    #[command(id)]
    purse: &'static str,
}

impl Handle<Empty> for Purse {
    fn handle(&self, _: Empty) -> Result<Vec<PurseEvent>, Self::Error> {
        Ok(vec![PurseEvent::PaidOut { cents: self.cents }])
    }
}

/// Appends an event as it was stored once.
async fn store_once(store: &EventStore, key: &str, kind: &str, version: u32, json: &'static str) {
    let event = NewEvent::raw(kind, version, Payload::from_json(json).unwrap());
    let stream = StreamId::new("purse", key).unwrap();
    store.append(Append::to(stream, ExpectedVersion::Any, [event])).await.unwrap();
}

async fn load(store: &EventStore, key: &str) -> Loaded<Purse> {
    store.load::<Purse>(key).await.unwrap().expect("the purse exists")
}

fn paid_in(cents: i64, by: &str) -> PurseEvent {
    PurseEvent::PaidIn { cents, by: by.into() }
}

fn paid_out(cents: i64) -> PurseEvent {
    PurseEvent::PaidOut { cents }
}

pub(crate) async fn each_version_loads_as_what_it_became(store: &EventStore) {
    store_once(store, "a", "paid_in", 1, "3").await;
    store_once(store, "a", "paid_in", 2, r#"{"cents":20}"#).await;
    store_once(store, "a", "paid_in", 3, r#"{"cents":1,"by":"ada"}"#).await;
    let loaded = load(store, "a").await;
    let happened = [paid_in(300, "nobody"), paid_in(20, "nobody"), paid_in(1, "ada")];
    assert_eq!(loaded.state.happened, happened);
    assert_eq!((loaded.state.cents, loaded.version), (321, Version::new(3)));
}

pub(crate) async fn renamed_types_and_fields_load(store: &EventStore) {
    store_once(store, "a", "paid_in", 3, r#"{"cents":5,"who":"ada"}"#).await;
    store_once(store, "a", "taken", 1, r#"{"cents":2}"#).await;
    store_once(store, "a", "paid_out", 1, r#"{"cents":3}"#).await;
    let happened = [paid_in(5, "ada"), paid_out(2), paid_out(3)];
    assert_eq!(load(store, "a").await.state.happened, happened);
}

pub(crate) async fn the_parts_of_a_split_event_are_applied_in_order(store: &EventStore) {
    store_once(store, "a", "moved", 1, r#"{"out":7,"back":4}"#).await;
    store_once(store, "a", "blocked", 1, r#"["lost","stolen"]"#).await;
    store_once(store, "a", "blocked", 2, r#"{"reason":"found"}"#).await;
    let loaded = load(store, "a").await;
    let blocked = |reason: &str| PurseEvent::Blocked { reason: reason.into() };
    let happened =
        [paid_out(7), paid_in(4, "itself"), blocked("lost"), blocked("stolen"), blocked("found")];
    assert_eq!(loaded.state.happened, happened);
    // Five events, but three are stored.
    assert_eq!(loaded.version, Version::new(3));
}

pub(crate) async fn a_dropped_event_counts_as_a_version(store: &EventStore) {
    store_once(store, "a", "viewed", 9, r#"{"page":1}"#).await;
    let loaded = load(store, "a").await;
    assert_eq!((loaded.state, loaded.version), (Purse::default(), Version::new(1)));
    store_once(store, "a", "paid_in", 1, "1").await;
    store_once(store, "a", "viewed", 1, "null").await;
    // A split into nothing is no different.
    store_once(store, "a", "blocked", 1, "[]").await;
    let loaded = load(store, "a").await;
    assert_eq!(loaded.state.happened, [paid_in(100, "nobody")]);
    assert_eq!(loaded.version, Version::new(4));
    let stream = StreamId::new("purse", "a").unwrap();
    let last = super::support::log(store).await;
    let last = last.iter().rfind(|event| event.stream == stream).unwrap();
    assert_eq!(loaded.position, last.position);
}

pub(crate) async fn commands_are_decided_on_what_old_events_became(store: &EventStore) {
    store_once(store, "a", "paid_in", 1, "3").await;
    store_once(store, "a", "moved", 1, r#"{"out":50,"back":20}"#).await;
    store_once(store, "a", "viewed", 1, "{}").await;
    // Decided on version 3, though the last event is read as none.
    let done = store.execute(Empty { purse: "a" }).await.unwrap();
    assert_eq!(done.version, Version::new(4));
    assert_eq!(load(store, "a").await.state.happened.last(), Some(&paid_out(270)));
}

pub(crate) async fn as_of_a_version_old_events_count_too(store: &EventStore) {
    store_once(store, "a", "paid_in", 1, "3").await;
    store_once(store, "a", "viewed", 1, "{}").await;
    store_once(store, "a", "moved", 1, r#"{"out":50,"back":20}"#).await;
    for (version, cents) in [(1, 300), (2, 300), (3, 270)] {
        let version = Version::new(version);
        let then = store.load_as_of::<Purse>("a", AsOf::Version(version)).await.unwrap().unwrap();
        assert_eq!((then.state.cents, then.version), (cents, version));
    }
}

pub(crate) async fn an_old_payload_that_does_not_fit_is_named(store: &EventStore) {
    for (key, kind, version, json) in [
        ("a", "paid_in", 1, r#"{"cents":20}"#),
        ("b", "moved", 1, "{}"),
        ("c", "moved", 2, r#"{"out":7,"back":4}"#),
        ("d", "glanced", 1, "{}"),
    ] {
        store_once(store, key, kind, version, json).await;
        let error = store.load::<Purse>(key).await.unwrap_err();
        let expected =
            format!("cannot decode event 1 of stream purse-{key}, type {kind:?} version {version}");
        assert_eq!(error.to_string(), expected);
        let Error::Decode { source, .. } = error else { panic!("{error}") };
        match key {
            "c" => assert!(matches!(source, DecodeError::NewerVersion { supported: 1 })),
            "d" => assert!(matches!(source, DecodeError::UnknownType)),
            _ => assert!(matches!(source, DecodeError::Payload(_))),
        }
    }
}
