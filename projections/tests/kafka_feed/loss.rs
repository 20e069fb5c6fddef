//! What is gone is an error that says what and where.

use annals_projections::kafka::{FeedError, Loss, Lost, Resume, Start, Subscription};

use rdkafka::producer::Producer;

use crate::support::{Context, PATIENCE, beginning, is_waiting, next, up_to};

async fn loss(subscription: &mut Subscription) -> Lost {
    loop {
        match next(subscription).await {
            Ok(_) => {}
            Err(FeedError::Lost(lost)) => {
                // It is said again, and not forgotten.
                assert!(
                    matches!(next(subscription).await, Err(FeedError::Lost(again)) if again == lost)
                );
                return lost;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_has_removed_is_lost() {
    let context = Context::new().await;
    context.create("loan", 2).await;
    context.publish(&[("loan", 0, 1), ("loan", 0, 2), ("loan", 1, 3), ("loan", 0, 4)]).await;
    let mut subscription = context.source().subscribe(["loan"]).page_events(1).start(beginning());
    let resume = next(&mut subscription).await.unwrap().resume();
    drop(subscription);
    // Up to where it was read, nothing is lost.
    context.forget("loan", 0, 1).await;
    let start = || Start::At(resume.clone());
    let mut subscription = context.source().subscribe(["loan"]).start(start());
    assert_eq!(up_to(&mut subscription, 4).await.0, [2, 3, 4]);
    context.forget("loan", 0, 2).await;
    let mut subscription = context.source().subscribe(["loan"]).start(start());
    let lost = loss(&mut subscription).await;
    assert_eq!((lost.partition, lost.wanted), (0, 1));
    assert_eq!(lost.topic, context.topic("loan"));
    assert_eq!(lost.loss, Loss::OutOfRange { first: 2, end: 3 });
    // One that begins with the first event needs all of them.
    let mut subscription = context.source().subscribe(["loan"]).start(beginning());
    assert_eq!(loss(&mut subscription).await.wanted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_that_overtakes_a_reader_is_noticed() {
    let context = Context::new().await;
    context.create("loan", 1).await;
    // So much that it does not all fit into what is held and fetched ahead.
    let payload = format!(r#"{{"x":"{}"}}"#, "x".repeat(100_000));
    for position in 1..=200 {
        let event =
            crate::support::Sent { payload: &payload, ..crate::support::sent("loan", 0, position) };
        context.send(&event).await;
    }
    context.tell(200, &[("loan", 0, 200)]).await;
    let source = context.source().buffer_bytes(1 << 20);
    let source = source.config("queued.max.messages.kbytes", "1024").unwrap();
    let source = source.config("fetch.message.max.bytes", "200000").unwrap();
    let mut subscription = source.subscribe(["loan"]).page_events(1).start(beginning());
    next(&mut subscription).await.unwrap();
    context.forget("loan", 0, 200).await;
    let lost = loss(&mut subscription).await;
    assert!(lost.wanted < 200, "{lost}");
    assert_eq!(lost.loss, Loss::OutOfRange { first: 200, end: 200 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_is_another_one() {
    let context = Context::new().await;
    context.create("loan", 1).await;
    context.publish(&[("loan", 0, 1), ("loan", 0, 2), ("loan", 0, 3)]).await;
    let mut subscription = context.source().subscribe(["loan"]).page_events(2).start(beginning());
    let resume = next(&mut subscription).await.unwrap().resume();
    drop(subscription);
    context.delete("loan").await;
    context.create("loan", 1).await;

    let start = || Start::At(resume.clone());
    let mut subscription = context.source().subscribe(["loan"]).start(start());
    assert_eq!(loss(&mut subscription).await.loss, Loss::OutOfRange { first: 0, end: 0 });
    // As long as it was, and longer, with events that were never seen.
    context.publish(&[("loan", 0, 4), ("loan", 0, 5), ("loan", 0, 6), ("loan", 0, 7)]).await;
    let mut subscription = context.source().subscribe(["loan"]).start(start());
    let lost = loss(&mut subscription).await;
    assert_eq!((lost.wanted, lost.loss), (2, Loss::TopicReplaced));
}

/// What lies before the offsets are the ends of transactions, which nobody sees.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_transactions_that_was_made_anew_is_another_one() {
    let context = Context::new().await;
    let producer = context.transactional();
    let publisher = context.with_producer(producer.clone());
    for position in [1, 3] {
        context.create("loan", 2).await;
        producer.begin_transaction().unwrap();
        publisher.publish(&[("loan", 0, position), ("loan", 1, position + 1)]).await;
        producer.commit_transaction(PATIENCE).unwrap();
        let offsets = [0, 1].map(|partition| (context.topic("loan"), partition, 2));
        let resume =
            Resume::new(annals_eventstore::Position::new(2), offsets.into_iter().collect());
        let mut subscription = context.source().subscribe(["loan"]).start(Start::At(resume));
        if position == 1 {
            assert!(is_waiting(&mut subscription).await, "all was read");
            context.delete("loan").await;
        } else {
            // Before anything else is said.
            let first = next(&mut subscription).await;
            let is_told =
                matches!(&first, Err(FeedError::Lost(lost)) if lost.loss == Loss::TopicReplaced);
            assert!(is_told, "{first:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_while_it_is_read_is_gone() {
    let context = Context::new().await;
    context.create("loan", 2).await;
    context.create("card", 2).await;
    context.publish(&[("loan", 0, 1), ("card", 1, 2)]).await;
    let mut subscription = context.source().subscribe(["loan", "card"]).start(beginning());
    assert_eq!(up_to(&mut subscription, 2).await.0, [1, 2]);
    context.delete("card").await;
    context.publish(&[("loan", 1, 3)]).await;
    let lost = loss(&mut subscription).await;
    assert_eq!(lost.topic, context.topic("card"));
    assert_eq!(lost.loss, Loss::TopicGone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_anew_while_it_is_read_is_another_one() {
    let context = Context::new().await;
    context.create("loan", 1).await;
    context.publish(&[("loan", 0, 1), ("loan", 0, 2), ("loan", 0, 3)]).await;
    let mut subscription = context.source().subscribe(["loan"]).start(beginning());
    assert_eq!(up_to(&mut subscription, 3).await.0, [1, 2, 3]);
    context.delete("loan").await;
    context.create("loan", 1).await;
    context.publish(&[("loan", 0, 4)]).await;
    let lost = loss(&mut subscription).await;
    assert_eq!(lost.topic, context.topic("loan"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_beyond_the_end_is_no_place_to_begin() {
    let context = Context::new().await;
    context.create("loan", 1).await;
    context.publish(&[("loan", 0, 1)]).await;
    let offsets = [(context.topic("loan"), 0, 5)].into_iter().collect();
    let start = Start::At(Resume::new(annals_eventstore::Position::new(1), offsets));
    let mut subscription = context.source().subscribe(["loan"]).start(start);
    assert_eq!(loss(&mut subscription).await.loss, Loss::OutOfRange { first: 0, end: 1 });
}
