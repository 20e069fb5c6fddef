//! Records that are put aside.

use std::collections::BTreeMap;

use annals_projections::kafka::{DeadLetters, Failure, FeedError, Loss};

use crate::support::{Context, beginning, next};

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_put_aside_as_it_is_with_where_it_was_and_why() {
    let context = Context::new().await;
    context.create("loan", 3).await;
    context.publish(&[("loan", 0, 1), ("loan", 2, 2)]).await;
    let source = context.source();
    let mut subscription = source.subscribe(["loan"]).start(beginning());
    let page = next(&mut subscription).await.unwrap();
    let event = page.events.iter().position(|event| event.position.get() == 2).unwrap();
    let origin = page.origin(event).unwrap();
    let letters = DeadLetters::new(&source, "overview").unwrap();
    let failure = Failure::new("it does not add up: 1 is not 2").attempts(3);
    letters.copy(&origin, &failure).await.unwrap();

    let topic = DeadLetters::topic(&context.topic("loan"));
    let (records, partitions) = context.content(&topic);
    assert_eq!((records.len(), partitions), (1, 3));
    let (originals, _) = context.content(&context.topic("loan"));
    let original = originals.iter().find(|record| record.partition == 2).unwrap();
    let record = &records[0];
    assert_eq!((&record.key, &record.value), (&original.key, &original.value));
    let headers: BTreeMap<_, _> = record.headers.iter().cloned().collect();
    for (name, value) in &original.headers {
        assert_eq!(headers[name], *value, "{name}");
    }
    for (name, value) in [
        ("annals_dlq_topic", context.topic("loan")),
        ("annals_dlq_partition", "2".to_owned()),
        ("annals_dlq_offset", "0".to_owned()),
        ("annals_dlq_projection", "overview".to_owned()),
        ("annals_dlq_reason", failure.reason.clone()),
        ("annals_dlq_attempts", "3".to_owned()),
    ] {
        assert_eq!(headers[name], value.as_bytes(), "{name}");
    }
    assert!(headers.contains_key("annals_dlq_failed_at"));
    assert_eq!(headers.len(), original.headers.len() + 7);
    // One that is gone cannot be put aside, and that is said.
    context.forget("loan", 2, 1).await;
    let gone = letters.copy(&origin, &failure).await.unwrap_err();
    let FeedError::Lost(lost) = &gone else { panic!("{gone}") };
    assert_eq!(lost.loss, Loss::OutOfRange { first: 1, end: 1 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_no_event_can_be_put_aside() {
    let context = Context::new().await;
    context.create("loan", 1).await;
    context.send_raw("loan", 0, "nonsense").await;
    let source = context.source();
    let mut subscription = source.subscribe(["loan"]).start(beginning());
    let error = next(&mut subscription).await.unwrap_err();
    let FeedError::Undecodable(undecodable) = error else { panic!("{error}") };
    let letters = DeadLetters::new(&source, "overview").unwrap();
    letters.write(&undecodable.record, &Failure::new(undecodable.to_string())).await.unwrap();
    let (records, _) = context.content(&DeadLetters::topic(&context.topic("loan")));
    assert_eq!(records[0].value, b"nonsense");
    let reason = records[0].headers.iter().find(|(name, _)| name == "annals_dlq_reason").unwrap();
    assert!(String::from_utf8_lossy(&reason.1).contains("ce_source"), "{reason:?}");
}
