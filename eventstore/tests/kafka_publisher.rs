//! The publisher when all goes well, against a real PostgreSQL and a real Kafka.
#![cfg(feature = "kafka")]
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod kafka_support;

use std::time::Duration;

use annals_eventstore::{
    Append, Error, Event, EventStore, ExpectedVersion, Metadata, NewEvent, Payload, StreamId,
    kafka::{Publisher, State},
    postgres::Checkpoint,
};
use kafka_support::{CATEGORIES, Setup, event, wait_for};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

async fn count(setup: &Setup) -> usize {
    CATEGORIES.iter().map(|category| setup.topic_content(category).len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_published_once_in_order_with_its_headers() {
    let setup = Setup::new().await;
    setup.append(300).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let metadata = Metadata::new().correlation_id("order-7").causation_id("c").traceparent(trace);
    let marked = event(r#"{ "a" : "é\u00e9 \"", "b":1.50 }"#)
        .metadata(metadata.actor("ada").with("channel", "web"))
        .occurred_at("2011-10-01T00:38:44.546Z".parse().unwrap());
    let stream = StreamId::new("loan", "with / signs é").unwrap();
    setup.store.append(Append::to(stream, ExpectedVersion::NoStream, [marked])).await.unwrap();

    setup.publish_all(setup.publisher()).await;
    setup.assert_published_once().await;
    assert_eq!(count(&setup).await, 301);

    // A graceful stop repeats nothing.
    setup.append(200).await;
    setup.publish_all(setup.publisher()).await;
    setup.assert_published_once().await;
    assert_eq!(count(&setup).await, 501);

    let database = setup.store.database().unwrap();
    let checkpoint = Checkpoint::position_of(database, Publisher::CHECKPOINT).await.unwrap();
    assert_eq!(checkpoint, Some(setup.store.safe_position().await.unwrap()));
}

/// What a consumer in Rust knows of loans today.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(dropped("viewed"), split("settled", Settled))]
enum LoanEvent {
    #[event(version = 2, upcast_from = LentV1, alias = "granted")]
    Lent {
        cents: i64,
    },
    Repaid {
        cents: i64,
    },
    Closed,
}

#[derive(Deserialize)]
struct LentV1 {
    euros: i64,
}

impl From<LentV1> for LoanEvent {
    fn from(LentV1 { euros }: LentV1) -> Self {
        Self::Lent { cents: 100 * euros }
    }
}

#[derive(Deserialize)]
struct Settled {
    cents: i64,
}

impl From<Settled> for Vec<LoanEvent> {
    fn from(Settled { cents }: Settled) -> Self {
        vec![LoanEvent::Repaid { cents }, LoanEvent::Closed]
    }
}

/// A record has the stored form, and its headers say which: `Event::decode` makes of it what it has
/// become.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_reads_old_events_as_what_they_became() {
    let setup = Setup::new().await;
    let stream = StreamId::new("loan", 1).unwrap();
    for (kind, version, json) in [
        ("lent", 1, r#"{"euros":2}"#),
        ("lent", 2, r#"{"cents":250}"#),
        ("granted", 2, r#"{"cents":300}"#),
        ("viewed", 4, "[]"),
        ("settled", 1, r#"{"cents":750}"#),
    ] {
        let event = NewEvent::raw(kind, version, Payload::from_json(json).unwrap());
        let append = Append::to(stream.clone(), ExpectedVersion::Any, [event]);
        setup.store.append(append).await.unwrap();
    }
    setup.publish_all(setup.publisher()).await;
    let mut seen = Vec::new();
    for message in setup.topic_content("loan") {
        let decoded = message.read(&setup.context).decode::<LoanEvent>().unwrap();
        seen.extend(decoded.into_iter().map(|event| event.event));
    }
    let lent = |cents| LoanEvent::Lent { cents };
    let repaid = LoanEvent::Repaid { cents: 750 };
    assert_eq!(seen, [lent(200), lent(250), lent(300), repaid, LoanEvent::Closed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_events_are_published_as_they_come() {
    let setup = Setup::new().await;
    let poll = Duration::from_secs(3600);
    let publisher = setup.publisher().poll_interval(poll).build(&setup.store).unwrap();
    let mut progress = publisher.progress();
    let stop = CancellationToken::new();
    let running = tokio::spawn(publisher.run_until(stop.clone()));
    wait_for(&mut progress, |progress| progress.state == State::Publishing).await;
    // It never polls here, so each of these comes by a nudge.
    for published in 1..=20 {
        setup.append(1).await;
        wait_for(&mut progress, |progress| progress.published == published).await;
    }
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(count(&setup).await, 20);
    setup.assert_published_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_without_events_are_passed() {
    let setup = Setup::new().await;
    setup.append(1).await;
    let hole = "select setval('annals.positions', 20)";
    kafka_support::execute(&setup.url, hole).await;
    setup.publish_all(setup.publisher()).await;
    let database = setup.store.database().unwrap();
    let checkpoint = Checkpoint::position_of(database, Publisher::CHECKPOINT).await.unwrap();
    assert_eq!(checkpoint.map(|position| position.get()), Some(20));
}

/// A stream leaves the log when it is in its topic. One that was archived before the publisher first ran is
/// not published, and does not come later either.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_archived_was_published_before() {
    let setup = Setup::new().await;
    let stream = |key: &str| StreamId::new("loan", key).unwrap();
    let append = async |key: &str| {
        let append = Append::to(stream(key), ExpectedVersion::Any, [event("{}"), event("{}")]);
        setup.store.append(append).await.unwrap()
    };
    append("early").await;
    setup.store.archive_stream(&stream("early"), ExpectedVersion::Any).await.unwrap();
    append("late").await;
    setup.publish_all(setup.publisher()).await;
    append("late").await;
    let refused = setup.store.archive_stream(&stream("late"), ExpectedVersion::Any).await;
    match refused.unwrap_err() {
        Error::ReaderBehind { reader, .. } => assert_eq!(reader, Publisher::CHECKPOINT),
        error => panic!("{error:?}"),
    }
    setup.publish_all(setup.publisher()).await;
    setup.assert_published_once().await;
    setup.store.archive_stream(&stream("late"), ExpectedVersion::Any).await.unwrap();
    setup.store.restore_stream(&stream("early")).await.unwrap();
    setup.store.restore_stream(&stream("late")).await.unwrap();
    append("other").await;
    setup.publish_all(setup.publisher()).await;
    let published = setup.topic_content("loan");
    let of = |key: &str| published.iter().filter(|m| m.key == key.as_bytes()).count();
    assert_eq!(["early", "late", "other"].map(of), [0, 4, 2]);
}

#[tokio::test]
async fn a_context_that_names_no_topic_is_refused() {
    let setup = Setup::new().await;
    let error = Publisher::builder(&setup.brokers, "a b").build(&setup.store).unwrap_err();
    assert!(error.to_string().contains("\"a b\""), "{error}");
    assert!(Publisher::builder("x:1", "lending").build(&EventStore::in_memory()).is_err());
}
