//! Partitions and topics are one log again.

use annals_eventstore::Position;
use annals_projections::kafka::{Partitions, Resume, Start};
use rdkafka::producer::Producer;

use crate::support::{Context, PATIENCE, beginning, is_waiting, next, sent, up_to};

#[tokio::test(flavor = "multi_thread")]
async fn partitions_and_topics_are_merged_in_the_order_of_positions() {
    let context = Context::new().await;
    context.create("loan", 3).await;
    context.create("card", 3).await;
    // Out of order between partitions, in order within each.
    let batch = [("loan", 2, 5), ("loan", 0, 1), ("card", 1, 2), ("loan", 0, 4), ("card", 1, 9)];
    context.publish(&batch).await;
    let mut subscription = context.source().subscribe(["loan", "card"]).start(beginning());
    assert_eq!(up_to(&mut subscription, 9).await.0, [1, 2, 4, 5, 9]);
    context.publish(&[("card", 0, 12), ("loan", 2, 10), ("loan", 0, 11)]).await;
    assert_eq!(up_to(&mut subscription, 12).await.0, [10, 11, 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_yielded_once_the_publisher_has_said_so() {
    let context = Context::new().await;
    context.create("loan", 2).await;
    let mut subscription = context.source().subscribe(["loan"]).start(beginning());
    let first = context.send(&sent("loan", 0, 3)).await;
    let second = context.send(&sent("loan", 1, 2)).await;
    assert!(is_waiting(&mut subscription).await);
    context.tell(2, &[("loan", 1, second + 1)]).await;
    assert_eq!(up_to(&mut subscription, 2).await.0, [2]);
    assert!(is_waiting(&mut subscription).await);
    context.tell(3, &[("loan", 0, first + 1)]).await;
    assert_eq!(up_to(&mut subscription, 3).await.0, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_partition_holds_nobody_up_and_others_events_move_the_end() {
    let context = Context::new().await;
    context.create("loan", 4).await;
    context.publish(&[("loan", 1, 7)]).await;
    let mut subscription = context.source().subscribe(["loan"]).start(beginning());
    assert_eq!(up_to(&mut subscription, 7).await.0, [7]);
    // Events of a category that is not subscribed to.
    context.tell(20, &[("other", 0, 13)]).await;
    assert_eq!(up_to(&mut subscription, 20).await.0, [] as [i64; 0]);
    context.publish(&[("loan", 3, 21)]).await;
    assert_eq!(up_to(&mut subscription, 21).await.0, [21]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_again_is_yielded_once() {
    let context = Context::new().await;
    context.create("loan", 2).await;
    let mut subscription = context.source().subscribe(["loan"]).start(beginning());
    context.publish(&[("loan", 0, 1), ("loan", 1, 2), ("loan", 0, 3)]).await;
    assert_eq!(up_to(&mut subscription, 3).await.0, [1, 2, 3]);
    // The publisher was killed before it noted how far it was.
    context.publish(&[("loan", 1, 2), ("loan", 0, 3), ("loan", 1, 4), ("loan", 0, 5)]).await;
    let (positions, resume) = up_to(&mut subscription, 5).await;
    assert_eq!(positions, [4, 5]);
    // Nor is it after a restart in between, wherever that is.
    let mut from_start = context.source().subscribe(["loan"]).start(beginning());
    assert_eq!(up_to(&mut from_start, 5).await.0, [1, 2, 3, 4, 5]);
    let mut resumed = context.source().subscribe(["loan"]).start(Start::At(resume));
    context.publish(&[("loan", 0, 5), ("loan", 1, 6)]).await;
    assert_eq!(up_to(&mut resumed, 6).await.0, [6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_cut_and_gone_on_with_anywhere() {
    let context = Context::new().await;
    context.create("loan", 3).await;
    let events: Vec<_> = (1..=40).map(|n| ("loan", (n * 7 % 3) as i32, n)).collect();
    context.publish(&events).await;
    let (mut resume, mut seen) = (Resume::default(), Vec::new());
    while seen.len() < 40 {
        let mut subscription =
            context.source().subscribe(["loan"]).start(Start::At(resume.clone()));
        // A token is kept as text.
        for _ in 0..2 {
            let page = subscription.next_up_to(3).await.unwrap();
            assert!(page.events.len() <= 3);
            for (index, event) in page.events.iter().enumerate() {
                seen.push(event.position.get());
                let origin = page.origin(index).unwrap();
                assert_eq!(i64::from(origin.partition), event.position.get() * 7 % 3);
            }
            let text = serde_json::to_string(&page.resume()).unwrap();
            resume = serde_json::from_str(&text).unwrap();
            if seen.len() == 40 {
                break;
            }
        }
    }
    assert_eq!(seen, (1..=40).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_can_be_shared_out_in_slices() {
    let context = Context::new().await;
    context.create("loan", 4).await;
    context.create("card", 4).await;
    let events: Vec<_> = (1..=24)
        .map(|n| (if n % 2 == 0 { "loan" } else { "card" }, (n * 5 % 4) as i32, n))
        .collect();
    context.publish(&events).await;
    let mut seen = Vec::new();
    for slice in 0..2 {
        let partitions = Partitions::Slice { slice, slices: 2 };
        let subscribe = context.source().subscribe(["loan", "card"]).partitions(partitions);
        let (positions, resume) = up_to(&mut subscribe.start(beginning()), 24).await;
        assert!(positions.iter().all(|n| n * 5 % 4 % 2 == i64::from(slice)), "{positions:?}");
        assert_eq!(resume.offsets.iter().count(), 4);
        seen.extend(positions);
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=24).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_comes_into_being_is_read_from_its_beginning() {
    let context = Context::new().await;
    context.create("loan", 2).await;
    context.publish(&[("loan", 0, 1)]).await;
    let mut subscription = context.source().subscribe(["loan", "card"]).start(beginning());
    assert_eq!(up_to(&mut subscription, 1).await.0, [1]);
    context.create("card", 2).await;
    context.publish(&[("card", 1, 2), ("loan", 1, 3)]).await;
    assert_eq!(up_to(&mut subscription, 3).await.0, [2, 3]);
    // Also if the publisher's word of it is gone, because a later one has taken its place.
    let mut late = context.source().subscribe(["loan", "other"]).start(beginning());
    assert_eq!(up_to(&mut late, 3).await.0, [1, 3]);
    context.create("other", 2).await;
    context.send(&sent("other", 0, 4)).await;
    let producer = context.transactional();
    producer.begin_transaction().unwrap();
    context.with_producer(producer.clone()).tell(4, &[("other", 0, 1)]).await;
    producer.abort_transaction(PATIENCE).unwrap();
    context.tell(5, &[]).await;
    assert_eq!(up_to(&mut late, 5).await.0, [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_and_the_earliest_are_places_to_begin() {
    let context = Context::new().await;
    context.create("loan", 2).await;
    context.publish(&[("loan", 0, 1), ("loan", 0, 2), ("loan", 1, 3)]).await;
    context.forget("loan", 0, 1).await;
    let mut latest = context.source().subscribe(["loan"]).start(Start::Latest);
    let mut earliest = context.source().subscribe(["loan"]).start(Start::Earliest);
    assert_eq!(up_to(&mut earliest, 3).await.0, [2, 3]);
    assert!(is_waiting(&mut latest).await);
    context.publish(&[("loan", 1, 4)]).await;
    assert_eq!(up_to(&mut latest, 4).await.0, [4]);
}

/// A projection moves over from the store: the ends are noted, the store is read, Kafka goes on.
#[tokio::test(flavor = "multi_thread")]
async fn from_noted_ends_on_nothing_is_missing_or_repeated() {
    let context = Context::new().await;
    context.create("loan", 2).await;
    context.publish(&[("loan", 0, 1), ("loan", 1, 2)]).await;
    let source = context.source();
    let ends = source.ends(&["loan".to_owned()], &Partitions::All).await.unwrap();
    assert_eq!(
        ends,
        [(context.topic("loan"), 0, 1), (context.topic("loan"), 1, 1)].into_iter().collect()
    );
    assert_eq!(source.partition_count(&["loan".to_owned()]).await.unwrap(), Some(2));
    assert_eq!(source.partition_count(&["none".to_owned()]).await.unwrap(), None);
    // While the store is read, up to its safe position 4, events 3 to 5 are published.
    context.publish(&[("loan", 0, 3), ("loan", 0, 4), ("loan", 1, 5)]).await;
    let start = Start::At(Resume::new(Position::new(4), ends));
    let mut subscription = source.subscribe(["loan"]).start(start);
    assert_eq!(up_to(&mut subscription, 5).await.0, [5]);
}

/// In transactions: what is open or aborted is not seen, and its end is no event.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_read_once_they_are_committed() {
    let context = Context::new().await;
    context.create("loan", 2).await;
    let producer = context.transactional();
    let publisher = context.with_producer(producer.clone());
    let mut subscription = context.source().subscribe(["loan"]).start(beginning());

    producer.begin_transaction().unwrap();
    publisher.publish(&[("loan", 0, 1), ("loan", 1, 2)]).await;
    assert!(is_waiting(&mut subscription).await);
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(up_to(&mut subscription, 2).await.0, [1, 2]);

    producer.begin_transaction().unwrap();
    publisher.publish(&[("loan", 0, 3), ("loan", 1, 4)]).await;
    producer.abort_transaction(PATIENCE).unwrap();
    assert!(is_waiting(&mut subscription).await);

    // Sent again, to one partition only: the other one ends with what was aborted.
    producer.begin_transaction().unwrap();
    publisher.publish(&[("loan", 0, 5)]).await;
    producer.commit_transaction(PATIENCE).unwrap();
    let (positions, resume) = up_to(&mut subscription, 5).await;
    assert_eq!(positions, [5]);

    // And a reader that begins now finds the ends of partitions, whatever they end with.
    let mut late = context.source().subscribe(["loan"]).start(beginning());
    assert_eq!(up_to(&mut late, 5).await.0, [1, 2, 5]);
    let mut resumed = context.source().subscribe(["loan"]).start(Start::At(resume));
    producer.begin_transaction().unwrap();
    publisher.publish(&[("loan", 1, 6)]).await;
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(next(&mut resumed).await.unwrap().end, Position::new(6));
}
