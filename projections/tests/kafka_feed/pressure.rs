//! A reader that is slow, and partitions that are far apart.

use std::time::Duration;

use annals_projections::kafka::{FeedState, FeedStatus, Subscription};

use crate::support::{Context, PATIENCE, Sent, beginning, sent, up_to};

const BUFFER: usize = 1 << 20;

/// Watches what a subscription holds for some time: the most of it.
async fn most(subscription: &Subscription, time: Duration) -> FeedStatus {
    let status = subscription.status();
    let mut most = FeedStatus::default();
    let until = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < until {
        let now = status.borrow().clone();
        if now.waiting_bytes >= most.waiting_bytes {
            most = now;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    most
}

/// Many events of 10 kB, one after the other in some partitions.
async fn fill(context: &Context, events: i64, partition: impl Fn(i64) -> i32) {
    let payload = format!(r#"{{"x":"{}"}}"#, "x".repeat(10_000));
    let mut next = std::collections::BTreeMap::new();
    for position in 1..=events {
        let event = sent("loan", partition(position), position);
        let offset = context.send(&Sent { payload: &payload, ..event }).await;
        next.insert(partition(position), offset + 1);
    }
    let touched: Vec<_> =
        next.into_iter().map(|(partition, next)| ("loan", partition, next)).collect();
    context.tell(events, &touched).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_waited_for_with_as_much_as_may_be_held() {
    let context = Context::new().await;
    context.create("loan", 2).await;
    fill(&context, 1000, |position| (position % 2) as i32).await;
    let source = context.source().buffer_bytes(BUFFER);
    let mut subscription = source.subscribe(["loan"]).page_events(20).start(beginning());
    let mut status = subscription.status();
    let full = status.wait_for(|status| status.state == FeedState::Full);
    tokio::time::timeout(PATIENCE, full).await.unwrap().unwrap();
    // Long enough to be paused.
    let most = most(&subscription, Duration::from_secs(2)).await;
    assert!((BUFFER / 2..3 * BUFFER).contains(&most.waiting_bytes), "{most:?}");
    assert!(most.waiting_events < 300 && most.lag_records > 900, "{most:?}");
    // It goes on, and nothing is missing.
    let (positions, _) = up_to(&mut subscription, 1000).await;
    assert_eq!(positions, (1..=1000).collect::<Vec<_>>());
    let status = status.borrow_and_update().clone();
    assert_eq!((status.lag_records, status.waiting_events), (0, 0));
    assert_eq!(status.lag, Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_ahead_waits_for_the_others() {
    let context = Context::new().await;
    context.create("loan", 2).await;
    // All of one partition comes before all of the other, and neither fits into what may be held.
    fill(&context, 1000, |position| i32::from(position > 500)).await;
    let source = context.source().buffer_bytes(BUFFER);
    let mut subscription = source.subscribe(["loan"]).page_events(20).start(beginning());
    let mut positions = Vec::new();
    let status = subscription.status();
    while positions.len() < 1000 {
        let page = crate::support::next(&mut subscription).await.unwrap();
        positions.extend(page.events.iter().map(|event| event.position.get()));
        let held = status.borrow().waiting_bytes;
        assert!(held < 4 * BUFFER, "{held} bytes are held");
    }
    assert_eq!(positions, (1..=1000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_not_lost_with_the_call_that_waited_for_it() {
    let context = Context::new().await;
    context.create("loan", 2).await;
    let mut subscription = context.source().subscribe(["loan"]).page_events(3).start(beginning());
    let publishing = async {
        for position in 1..=60 {
            context.publish(&[("loan", (position % 2) as i32, position)]).await;
        }
    };
    let reading = async {
        let mut positions = Vec::new();
        while positions.len() < 60 {
            // Dropped again and again in the middle.
            let page = tokio::time::timeout(Duration::from_millis(2), subscription.next()).await;
            let Ok(page) = page else { continue };
            positions.extend(page.unwrap().events.iter().map(|event| event.position.get()));
        }
        positions
    };
    let both = async { tokio::join!(publishing, reading).1 };
    let positions = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(positions, (1..=60).collect::<Vec<_>>());
}
