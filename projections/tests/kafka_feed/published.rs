//! What a real publisher publishes is what is read.

#[allow(dead_code, reason = "these tests use a part of it")]
#[path = "../../../eventstore/tests/support/database.rs"]
mod database;
#[allow(dead_code, reason = "these tests use a part of it")]
#[path = "../../../eventstore/tests/support/waiting.rs"]
mod waiting;

use annals_eventstore::{
    Append, EventStore, ExpectedVersion, NewEvent, Payload, Position, Recorded, StreamId,
    kafka::Publisher,
};
use annals_projections::kafka::{Resume, Start};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use self::database::TestDatabase;
use crate::support::{Context, beginning, next};

async fn append(store: &EventStore, events: std::ops::Range<i64>) {
    for n in events {
        let category = if n % 3 == 0 { "card" } else { "loan" };
        let stream = StreamId::new(category, n % 7).unwrap();
        let payload = Payload::from_json(format!(r#"{{ "n" : {n} }}"#)).unwrap();
        let append = Append::to(stream, ExpectedVersion::Any, [NewEvent::raw("noted", 1, payload)]);
        store.append(append).await.unwrap();
    }
}

/// Publishes and reads at once: everything that the log holds comes, equal to it, and in its order.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_the_log() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let context = Context::unpublished();
    append(&store, 0..50).await;
    let publisher = Publisher::builder(context.brokers(), &context.name);
    let publisher = publisher.partitions(3).batch(20).build(&store).unwrap();
    let stop = CancellationToken::new();
    let publishing = tokio::spawn(publisher.run_until(stop.clone()));
    context.wait_until_published().await;

    let source = context.source();
    let (mut subscription, mut read) =
        (source.subscribe(["loan", "card"]).start(beginning()), Vec::<Recorded>::new());
    let appending = append(&store, 50..300);
    let reading = async {
        let mut resume = Resume::default();
        while read.len() < 300 {
            let page = next(&mut subscription).await.unwrap();
            resume = page.resume();
            read.extend(page.events);
            if read.len() % 7 == 0 {
                subscription = source.subscribe(["loan", "card"]).start(Start::At(resume.clone()));
            }
        }
        resume
    };
    let both = async { tokio::join!(appending, reading).1 };
    let resume = waiting::in_time(both).await;
    let log: Vec<_> = store.read_all(Position::START).try_collect().await.unwrap();
    assert_eq!(read, log);
    assert_eq!(resume.position, store.safe_position().await.unwrap());
    stop.cancel();
    publishing.await.unwrap().unwrap();
}
