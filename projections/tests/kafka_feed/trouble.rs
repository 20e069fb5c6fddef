//! What is wrong is told, with what to do about it.

use std::time::Duration;

use annals_projections::kafka::{FeedError, FeedState, Partitions, Source};

use crate::support::{Context, PATIENCE, beginning, next, sent, up_to};

#[tokio::test(flavor = "multi_thread")]
async fn a_context_that_nobody_publishes_is_refused() {
    let context = Context::unpublished();
    let mut subscription = context.source().subscribe(["loan"]).start(beginning());
    let error = next(&mut subscription).await.unwrap_err();
    assert!(
        matches!(&error, FeedError::NotPublished { context: name, .. } if *name == context.name)
    );
    assert!(!error.is_retryable());
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_with_different_numbers_of_partitions_are_refused() {
    let context = Context::new().await;
    context.create("loan", 2).await;
    context.create("card", 3).await;
    let mut subscription = context.source().subscribe(["loan", "card"]).start(beginning());
    let error = next(&mut subscription).await.unwrap_err();
    assert!(
        matches!(error, FeedError::PartitionCounts { partitions: 2, others: 3, .. }),
        "{error}"
    );
    let categories = ["loan".to_owned(), "card".to_owned()];
    let error = context.source().ends(&categories, &Partitions::All).await.unwrap_err();
    assert!(matches!(error, FeedError::PartitionCounts { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_stores_that_publish_to_a_context_are_refused() {
    let context = Context::new().await;
    context.create("loan", 1).await;
    context.publish(&[("loan", 0, 1)]).await;
    let mut subscription = context.source().subscribe(["loan"]).start(beginning());
    assert_eq!(up_to(&mut subscription, 1).await.0, [1]);
    context.tell_as("other", 1, &[]).await;
    for _ in 0..2 {
        let error = next(&mut subscription).await.unwrap_err();
        let FeedError::SeveralStores { publishers, .. } = &error else { panic!("{error}") };
        assert_eq!(publishers.len(), 2);
        // Also for one that begins now.
        subscription = context.source().subscribe(["loan"]).start(beginning());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_no_event_is_handed_out_and_gone_on_behind() {
    let context = Context::new().await;
    context.create("loan", 1).await;
    context.publish(&[("loan", 0, 1)]).await;
    let mut subscription = context.source().subscribe(["loan"]).start(beginning());
    let (_, resume) = up_to(&mut subscription, 1).await;
    let offset = context.send_raw("loan", 0, "nonsense").await;
    context.send(&sent("loan", 0, 2)).await;
    context.tell(2, &[("loan", 0, 3)]).await;
    let error = next(&mut subscription).await.unwrap_err();
    let FeedError::Undecodable(undecodable) = &error else { panic!("{error}") };
    let record = &undecodable.record;
    assert_eq!((record.offset, record.key.as_deref()), (offset, Some(&b"k"[..])));
    assert_eq!(record.value.as_deref(), Some(&b"nonsense"[..]));
    assert_eq!(record.headers, [("x".to_owned(), Some("y".into()))]);
    assert_eq!(up_to(&mut subscription, 2).await.0, [2]);
    // It was not skipped before it was told.
    let start = annals_projections::kafka::Start::At(resume);
    let mut resumed = context.source().subscribe(["loan"]).start(start);
    assert!(matches!(next(&mut resumed).await, Err(FeedError::Undecodable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_is_waited_for() {
    // Nobody listens there.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    let source = Source::new(address, "lending").unwrap();
    let mut subscription = source.subscribe(["loan"]).start(beginning());
    let mut status = subscription.status();
    let unreachable =
        status.wait_for(|status| matches!(status.state, FeedState::Unreachable { .. }));
    tokio::time::timeout(PATIENCE, unreachable).await.unwrap().unwrap();
    let waiting = tokio::time::timeout(Duration::from_secs(1), subscription.next()).await;
    assert!(waiting.is_err(), "{waiting:?}");
    let categories = ["loan".to_owned()];
    let ends = source.ends(&categories, &Partitions::All);
    assert!(tokio::time::timeout(Duration::from_secs(1), ends).await.is_err());
}
