//! Topics are created and looked at when a publisher starts.
#![cfg(feature = "kafka")]
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod kafka_support;

use std::time::Duration;

use annals_eventstore::{
    Append, Error, ExpectedVersion, StreamId,
    kafka::{ProgressRecord, Publisher, TopicDifference, TopicDifferences, TopicPolicy, TopicSpec},
};
use kafka_support::{Setup, event};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
};

fn admin(setup: &Setup) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &setup.brokers).create().unwrap()
}

async fn create(setup: &Setup, topic: &str, partitions: i32, config: &[(&str, &str)]) {
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let new = config.iter().fold(new, |new, (key, value)| new.set(key, value));
    let results = admin(setup).create_topics([&new], &AdminOptions::new()).await.unwrap();
    results[0].as_ref().unwrap();
    setup.wait_for_topic(topic);
}

async fn config(setup: &Setup, topic: &str, property: &str) -> String {
    let topic = ResourceSpecifier::Topic(topic);
    let described = admin(setup).describe_configs([&topic], &AdminOptions::new()).await.unwrap();
    let resource = described.into_iter().next().unwrap().unwrap();
    resource.get(property).unwrap().value.clone().unwrap()
}

async fn append_loan(setup: &Setup) {
    let stream = StreamId::new("loan", 1).unwrap();
    let append = Append::to(stream, ExpectedVersion::Any, [event("{}")]);
    setup.store.append(append).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_as_declared_at_the_start() {
    let setup = Setup::new().await;
    append_loan(&setup).await;
    let month = Duration::from_secs(30 * 24 * 3600);
    let card = TopicSpec::new().partitions(2).max_message_bytes(2_000_000).keep_forever();
    let builder = setup
        .publisher()
        .topics(TopicSpec::new().partitions(3).keep_for(month))
        .topic_of("member_card", card)
        .topic(format!("{}.elsewhere", setup.context), TopicSpec::new());
    setup.publish_all(builder.clone()).await;

    // One of a category that the log has, one that is declared, one by name, and the publisher's own.
    let (loan, card) = (setup.topic("loan"), setup.topic("member_card"));
    assert_eq!([&loan, &card].map(|topic| setup.partitions(topic)), [3, 2]);
    assert_eq!(config(&setup, &loan, "retention.ms").await, "2592000000");
    assert_eq!(config(&setup, &loan, "cleanup.policy").await, "delete");
    assert_eq!(config(&setup, &card, "retention.ms").await, "-1");
    assert_eq!(config(&setup, &card, "max.message.bytes").await, "2000000");
    assert_eq!(setup.partitions(&format!("{}.elsewhere", setup.context)), 3);
    let progress = ProgressRecord::topic(&setup.context);
    assert_eq!(setup.partitions(&progress), 1);
    assert_eq!(config(&setup, &progress, "cleanup.policy").await, "compact");

    // They are as declared, so the next one has nothing against them.
    append_loan(&setup).await;
    setup.publish_all(builder.topic_policy(TopicPolicy::Check)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_differs_is_told_at_once() {
    let setup = Setup::new().await;
    append_loan(&setup).await;
    let (loan, card) = (setup.topic("loan"), setup.topic("member_card"));
    create(&setup, &loan, 1, &[("retention.ms", "5000")]).await;
    create(&setup, &card, 4, &[("cleanup.policy", "compact")]).await;
    let builder = || {
        let declared = TopicSpec::new().partitions(4).keep_for(Duration::from_secs(60));
        setup.publisher().topic_of("loan", declared).topic_of("member_card", TopicSpec::new())
    };
    for policy in [TopicPolicy::Create, TopicPolicy::Check] {
        let error = setup.error(builder().topic_policy(policy)).await;
        let Error::Broker { source, .. } = error else { panic!("{error:?}") };
        let said = source.to_string();
        for part in [
            format!("topic {loan}: partitions is \"1\", declared as \"4\""),
            format!("topic {loan}: retention.ms is \"5000\", declared as \"60000\""),
            format!("topic {card}: cleanup.policy is \"compact\", declared as \"delete\""),
        ] {
            assert!(said.contains(&part), "{said}");
        }
        let differences = source.downcast::<TopicDifferences>().unwrap();
        let own_is_missing = usize::from(policy == TopicPolicy::Check)
            * usize::from(!setup.topic_exists_named(&ProgressRecord::topic(&setup.context)));
        assert_eq!(differences.as_slice().len(), 3 + own_is_missing, "{said}");
    }
    assert_eq!(setup.checkpoint().await, 0);
    assert!(setup.topic_content("loan").is_empty());

    // An operator who wants it so can have it so.
    let as_it_is = TopicSpec::new().partitions(1).keep_for(Duration::from_secs(5));
    let compact = TopicSpec::new().config("cleanup.policy", "compact");
    let builder = setup.publisher().topic_of("loan", as_it_is).topic_of("member_card", compact);
    setup.publish_all(builder).await;
    assert_eq!(setup.topic_content("loan").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_may_not_create_topics_says_which_are_missing() {
    let setup = Setup::new().await;
    append_loan(&setup).await;
    let progress = ProgressRecord::topic(&setup.context);
    for policy in [TopicPolicy::Check, TopicPolicy::Trust] {
        let error = setup.error(setup.publisher().topic_policy(policy)).await;
        let Error::Broker { source, .. } = error else { panic!("{error:?}") };
        let differences = source.downcast::<TopicDifferences>().unwrap();
        let missing: Vec<_> = [setup.topic("loan"), progress.clone()]
            .map(|topic| TopicDifference::Missing { topic })
            .into();
        let told = differences.as_slice();
        assert!(missing.iter().all(|topic| told.contains(topic)), "{differences}");
        assert_eq!(told.len(), 2, "{differences}");
        assert!(!setup.topic_exists("loan"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_exists_is_used_as_it_is_where_nothing_is_declared() {
    let setup = Setup::new().await;
    create(&setup, &setup.topic("loan"), 1, &[("retention.ms", "86400000")]).await;
    setup.append(100).await;
    setup.publish_all(Publisher::builder(&setup.brokers, &setup.context)).await;
    let loans = setup.topic_content("loan");
    assert!(!loans.is_empty());
    assert!(loans.iter().all(|message| message.partition == 0));
    assert_eq!(setup.partitions(&setup.topic("member_card")), 4);
    assert_eq!(loans.len() + setup.topic_content("member_card").len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_takes_what_is_declared_otherwise() {
    let setup = Setup::new().await;
    append_loan(&setup).await;
    create(&setup, &setup.topic("loan"), 1, &[("cleanup.policy", "compact")]).await;
    let own = ProgressRecord::topic(&setup.context);
    create(&setup, &own, 1, &[("cleanup.policy", "compact")]).await;
    let builder = setup.publisher().topic_policy(TopicPolicy::Trust);
    setup.publish_all(builder).await;
    assert_eq!(setup.topic_content("loan").len(), 1);
}

/// As two publishers of two stores that start at once, for one context.
#[tokio::test(flavor = "multi_thread")]
async fn several_may_create_the_same_topics_at_once() {
    let [one, other] = [Setup::new().await, Setup::new().await];
    for setup in [&one, &other] {
        setup.append(40).await;
    }
    let builder = || one.publisher().topics(TopicSpec::new().partitions(4).keep_forever());
    tokio::join!(one.publish_all(builder()), other.publish_all(builder()));
    let all: usize = ["loan", "member_card"].map(|it| one.topic_content(it).len()).iter().sum();
    assert_eq!(all, 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_property_that_the_broker_does_not_know_is_named() {
    let setup = Setup::new().await;
    append_loan(&setup).await;
    let wrong = || setup.publisher().topics(TopicSpec::new().config("retention.millis", 7));
    let error = setup.failure(wrong()).await;
    let topic = format!("create the topic {} with partitions=4", setup.topic("loan"));
    assert!(error.contains(&topic) && error.contains("retention.millis=7"), "{error}");
    create(&setup, &setup.topic("loan"), 4, &[]).await;
    let error = setup.failure(wrong().topic_policy(TopicPolicy::Check)).await;
    assert!(error.contains("retention.millis") && error.contains("knows no such"), "{error}");
}
