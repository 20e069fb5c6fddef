//! What is told of feeds and dead letters is what there is.

use std::collections::BTreeMap;

use annals_projections::kafka::{DeadLetters, Failure, FeedError};
use chrono::{DateTime, Utc};
use metrics::Key;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use crate::support::{Context, PATIENCE, beginning, next, up_to};

/// When the events of these tests were recorded, as their records say.
const RECORDED: &str = "2026-01-02T03:04:05.000006Z";

const WRITTEN: &str = "annals_kafka_dead_letters_total";

/// The age of the events now, in seconds.
fn age() -> f64 {
    let recorded: DateTime<Utc> = RECORDED.parse().unwrap();
    (Utc::now() - recorded).as_seconds_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn lags_and_counts_are_told_as_they_are() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // Feeds have threads of their own, so it is the program's; other tests here look at none.
    recorder.install().unwrap();
    // By name and label. A look sets all of them to zero.
    let look = || -> BTreeMap<(String, String), f64> {
        let told = |key: &Key| key.labels().next().map(|label| label.value().to_owned());
        let value = |value: DebugValue| match value {
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Counter(value) => value as f64,
            DebugValue::Histogram(_) => f64::NAN,
        };
        let all = snapshotter.snapshot().into_vec().into_iter();
        all.filter_map(|(key, .., of)| {
            let key = key.key();
            Some(((key.name().to_owned(), told(key)?), value(of)))
        })
        .collect()
    };
    let of_feed = |context: &Context| {
        let all = look();
        ["lag_seconds", "lag_records", "events_total", "undecodable_total"]
            .map(|name| all[&(format!("annals_kafka_feed_{name}"), context.name.clone())])
    };

    // One event of three is taken: two lie before it, and it is as old as it says.
    let behind = Context::new().await;
    behind.create("loan", 1).await;
    behind.publish(&[("loan", 0, 1), ("loan", 0, 2), ("loan", 0, 3)]).await;
    let mut feed = behind.source().subscribe(["loan"]).start(beginning());
    let earliest = age();
    let page = tokio::time::timeout(PATIENCE, feed.next_up_to(1)).await.unwrap().unwrap();
    assert_eq!(page.events.len(), 1);
    let [lag, records, events, undecodable] = of_feed(&behind);
    let latest = age();
    // In tenths of a second.
    assert!((earliest - 0.1..=latest).contains(&lag), "{lag} is not in {earliest}..{latest}");
    assert_eq!([records, events, undecodable], [2.0, 1.0, 0.0]);

    // Of one that has taken everything no age is left over, and what is no event is counted.
    let with_junk = Context::new().await;
    with_junk.create("loan", 1).await;
    let source = with_junk.source();
    with_junk.publish(&[("loan", 0, 1), ("loan", 0, 2)]).await;
    let mut feed = source.subscribe(["loan"]).start(beginning());
    tokio::time::timeout(PATIENCE, feed.next_up_to(1)).await.unwrap().unwrap();
    up_to(&mut feed, 2).await;
    let mut junk = Vec::new();
    for _ in 0..3 {
        with_junk.send_raw("loan", 0, "nonsense").await;
        let FeedError::Undecodable(found) = next(&mut feed).await.unwrap_err() else { panic!() };
        junk.push(found.record);
    }
    with_junk.publish(&[("loan", 0, 4)]).await;
    up_to(&mut feed, 4).await;
    assert_eq!(of_feed(&with_junk), [0.0, 0.0, 3.0, 3.0]);

    // Dead letters are counted when they are there, by projection.
    let letters = DeadLetters::new(&source, "counted").unwrap();
    for record in &junk {
        letters.write(record, &Failure::new("no event")).await.unwrap();
    }
    let origin = page.origin(0).unwrap();
    behind.forget("loan", 0, 3).await;
    let others = DeadLetters::new(&behind.source(), "other").unwrap();
    let gone = others.copy(&origin, &Failure::new("its record is gone")).await;
    assert!(matches!(gone, Err(FeedError::Lost(_))), "{gone:?}");
    let all = look();
    let of = |projection: &str| all[&(WRITTEN.to_owned(), projection.to_owned())];
    assert_eq!((of("counted"), of("other")), (3.0, 0.0));
}
