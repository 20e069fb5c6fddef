//! Records that are put aside.

use std::{collections::BTreeMap, time::Duration};

use annals_eventstore::kafka::{TopicDifference, TopicDifferences, TopicPolicy, TopicSpec};
use annals_projections::kafka::{DeadLetters, Failure, FeedError, Loss, RawRecord, Source};

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

/// A record that is no event, of a topic with three partitions.
async fn junk(context: &Context) -> RawRecord {
    context.create("loan", 3).await;
    context.send_raw("loan", 1, "nonsense").await;
    let mut subscription = context.source().subscribe(["loan"]).start(beginning());
    let error = next(&mut subscription).await.unwrap_err();
    let FeedError::Undecodable(undecodable) = error else { panic!("{error}") };
    undecodable.record
}

async fn put_aside(source: &Source, record: &RawRecord) -> Result<(), FeedError> {
    let letters = DeadLetters::new(source, "overview").unwrap();
    letters.write(record, &Failure::new("it is no event")).await
}

/// What differs, where that is why a record was not put aside.
async fn differences(source: &Source, record: &RawRecord) -> Vec<TopicDifference> {
    let error = put_aside(source, record).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    let FeedError::Broker { source, .. } = &error else { panic!("{error}") };
    source.downcast_ref::<TopicDifferences>().expect("what differs").as_slice().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn their_topic_is_made_as_declared_and_held_to_it() {
    let context = Context::new().await;
    let record = junk(&context).await;
    let topic = DeadLetters::topic(&context.topic("loan"));
    let day = Duration::from_secs(24 * 3600);
    let declared = |spec: TopicSpec| context.source().dead_letters(spec);
    let source = declared(TopicSpec::new().partitions(2).keep_for(day));
    put_aside(&source, &record).await.unwrap();
    assert_eq!(context.partitions(&topic), Some(2));
    for (property, value) in [
        ("retention.ms", "86400000"),
        ("max.message.bytes", "10485760"),
        ("cleanup.policy", "delete"),
    ] {
        assert_eq!(context.property(&topic, property).await, value, "{property}");
    }
    put_aside(&source, &record).await.unwrap();
    // What is not declared is not looked at.
    put_aside(&context.source(), &record).await.unwrap();
    let other = declared(TopicSpec::new().partitions(3).keep_forever());
    for policy in [TopicPolicy::Create, TopicPolicy::Check] {
        let found = differences(&other.clone().dead_letter_policy(policy), &record).await;
        let property = |property: &str, declared: &str, actual: &str| TopicDifference::Property {
            topic: topic.clone(),
            property: property.to_owned(),
            declared: declared.to_owned(),
            actual: Some(actual.to_owned()),
        };
        let expected = [
            property(TopicDifference::PARTITIONS, "3", "2"),
            property("retention.ms", "-1", "86400000"),
        ];
        assert_eq!(found, expected);
    }
    put_aside(&other.dead_letter_policy(TopicPolicy::Trust), &record).await.unwrap();
    assert_eq!(context.content(&topic).0.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_their_topic_is_compacted_or_missing_that_is_told() {
    let context = Context::new().await;
    let record = junk(&context).await;
    let topic = DeadLetters::topic(&context.topic("loan"));
    for policy in [TopicPolicy::Check, TopicPolicy::Trust] {
        let source = context.source().dead_letter_policy(policy);
        let missing = [TopicDifference::Missing { topic: topic.clone() }];
        assert_eq!(differences(&source, &record).await, missing);
        assert_eq!(context.partitions(&topic), None);
    }
    // Of two letters of one stream it would keep one.
    context.create_topic(&topic, 3, "compact").await;
    let said = put_aside(&context.source(), &record).await.unwrap_err();
    let FeedError::Broker { source, .. } = &said else { panic!("{said}") };
    let what = format!("topic {topic}: cleanup.policy is \"compact\", declared as \"delete\"");
    assert!(source.to_string().contains(&what), "{source}");
    let wanted = TopicSpec::new().config("cleanup.policy", "compact");
    put_aside(&context.source().dead_letters(wanted), &record).await.unwrap();
}
