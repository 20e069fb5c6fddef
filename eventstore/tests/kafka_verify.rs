//! The checker of topics: sound ones pass, and it goes red on whatever can be wrong with them.
#![cfg(feature = "kafka")]
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod kafka_support;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use annals_eventstore::{
    Append, ExpectedVersion, Position, Recorded, StreamId,
    kafka::{
        Delivery, Publisher,
        verify::{Finding, Verification},
    },
    postgres::Checkpoint,
};
use kafka_support::{CATEGORIES, Message, PARTITIONS, Setup, event, java_partition};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// What is put into topics, by hand: in this order, each into the topic of a category.
type Script = Vec<(&'static str, Message)>;

/// A store, and topics that somebody else has filled.
struct Forgery {
    setup: Setup,
    log: Vec<Recorded>,
    script: Script,
}

fn category(event: &Recorded) -> &'static str {
    CATEGORIES.iter().find(|category| **category == event.stream.category()).unwrap()
}

fn admin(setup: &Setup) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &setup.brokers).create().unwrap()
}

fn produce(producer: &BaseProducer, setup: &Setup, script: &Script) {
    for (category, message) in script {
        let topic = setup.topic(category);
        let headers = message.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let record = BaseRecord::to(&topic).partition(message.partition).headers(headers);
        let record = record.key(&message.key).payload(&message.payload);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
}

impl Forgery {
    /// Of so many events.
    async fn of(events: usize) -> Self {
        let setup = Setup::new().await;
        setup.append(events).await;
        Self::of_store(setup).await
    }

    async fn of_store(setup: Setup) -> Self {
        let log = setup.log().await;
        let message = |event: &Recorded| (category(event), Message::of(event, &setup.context));
        let script = log.iter().map(message).collect();
        Self { setup, log, script }
    }

    /// The places in the script that belong to one partition, the fullest one.
    fn partition(&self) -> Vec<usize> {
        let mut places = BTreeMap::<_, Vec<usize>>::new();
        for (index, (category, message)) in self.script.iter().enumerate() {
            places.entry((*category, message.partition)).or_default().push(index);
        }
        places.into_values().max_by_key(Vec::len).unwrap()
    }

    async fn create_topics(&self) {
        let topics = CATEGORIES.map(|category| self.setup.topic(category));
        let new = topics
            .iter()
            .map(|topic| NewTopic::new(topic, PARTITIONS.into(), TopicReplication::Fixed(-1)));
        let new: Vec<_> = new.collect();
        admin(&self.setup).create_topics(&new, &AdminOptions::new()).await.unwrap();
    }

    /// Fills the topics and says that all is published.
    async fn publish(&self) {
        self.create_topics().await;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.setup.brokers).set("linger.ms", "5");
        produce(&config.create().unwrap(), &self.setup, &self.script);
        note(&self.setup, self.log.last().unwrap().position).await;
    }

    async fn verify(&self) -> Verification {
        verify(&self.setup).await
    }

    /// The same, once no transaction is open: brokers note the end of one a little after they have said so.
    async fn verify_ended(&self) -> Verification {
        let start = Instant::now();
        loop {
            let verification = self.verify().await;
            if verification.held_back.is_empty() {
                return verification;
            }
            assert!(start.elapsed() < TIMEOUT, "it stays open: {:?}", verification.held_back);
        }
    }

    /// Publishes what the script says now, and looks at what is found.
    async fn findings(&self) -> Vec<Finding> {
        self.publish().await;
        let verification = self.verify().await;
        assert_eq!(verification.findings_in_all(), verification.findings.len() as u64);
        assert!(!verification.is_sound());
        verification.findings
    }
}

async fn verify(setup: &Setup) -> Verification {
    let verifying = setup.publisher().verify(&setup.store).unwrap().run();
    tokio::time::timeout(Duration::from_secs(120), verifying).await.unwrap().unwrap()
}

/// Notes that events are published up to a position.
async fn note(setup: &Setup, position: Position) {
    let database = setup.store.database().unwrap();
    let checkpoint = Checkpoint::take_over(database, Publisher::CHECKPOINT, 1).await.unwrap();
    let mut client = database.client().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    checkpoint.advance(&transaction, position).await.unwrap();
    transaction.commit().await.unwrap();
}

/// The kinds of findings and the positions of their events.
fn kinds(findings: &[Finding]) -> Vec<(&'static str, Option<i64>)> {
    let position = |finding: &Finding| finding.event().map(|event| event.position.get());
    findings.iter().map(|finding| (finding.kind(), position(finding))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_publisher_publishes_is_sound() {
    let setup = Setup::new().await;
    setup.append(1500).await;
    setup.finish().await;
    // The checkpoint may be behind: the progress in Kafka is what counts.
    kafka_support::execute(&setup.url, "update annals.checkpoints set position = 1").await;
    let verification = verify(&setup).await;
    assert_eq!(verification.findings, []);
    assert!(verification.is_sound());
    let names = CATEGORIES.map(|category| setup.topic(category));
    assert_eq!(
        verification.topics.iter().map(|topic| &topic.name).collect::<Vec<_>>(),
        names.each_ref()
    );
    let records: u64 = verification.topics.iter().map(|topic| topic.records).sum();
    assert_eq!((verification.events, records), (1500, 1500));
    assert_eq!((verification.repeated, verification.expired, verification.archived), (0, 0, 0));
    assert_eq!(verification.held_back, []);
    assert_eq!((verification.published.get(), verification.log_end.get()), (1500, 1500));
}

/// The other tests change one thing about topics that are sound like these.
#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_filled_by_hand_as_they_should_be_are_sound() {
    let forgery = Forgery::of(300).await;
    forgery.publish().await;
    assert_eq!(forgery.verify().await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_record_is_a_lost_event() {
    let mut forgery = Forgery::of(300).await;
    let of_partition = forgery.partition();
    // The first of its partition, one in the middle, and the last.
    let places = [of_partition[0], of_partition[3], *of_partition.last().unwrap()];
    let positions = places.map(|place| forgery.log[place].position.get());
    for place in places.iter().rev() {
        forgery.script.remove(*place);
    }
    let findings = forgery.findings().await;
    assert_eq!(kinds(&findings), positions.map(|position| ("lost", Some(position))));
    let said = findings[1].to_string();
    assert!(said.contains(&format!("position {}", positions[1])), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_topic_all_of_a_category_is_lost_and_counted() {
    let setup = Setup::new().await;
    setup.append(300).await;
    note(&setup, setup.store.safe_position().await.unwrap()).await;
    let verify = setup.publisher().verify(&setup.store).unwrap().max_findings(7);
    let verification = verify.run().await.unwrap();
    assert_eq!(verification.findings.len(), 7);
    assert_eq!(verification.counts, BTreeMap::from([("lost", 300)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_record_is_a_finding_or_at_least_once_counted() {
    let mut forgery = Forgery::of(300).await;
    let of_partition = forgery.partition();
    let (early, late) = (of_partition[1], *of_partition.last().unwrap());
    // Again at once, again later, and again at the end.
    let again = |place: usize| forgery.script[place].clone();
    let (first, second, last) = (again(early), again(early), again(late));
    forgery.script.push(second);
    forgery.script.push(last);
    forgery.script.insert(early, first);
    let findings = forgery.findings().await;
    let repeated = [early, early, late].map(|place| forgery.log[place].position.get());
    assert_eq!(kinds(&findings), repeated.map(|position| ("repeated", Some(position))));

    let publisher = forgery.setup.publisher().delivery(Delivery::AtLeastOnce);
    let verification = publisher.verify(&forgery.setup.store).unwrap().run().await.unwrap();
    assert_eq!(verification.findings, []);
    assert_eq!(verification.repeated, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_record_that_is_another_one_is_altered() {
    let mut forgery = Forgery::of(300).await;
    let place = forgery.partition()[1];
    let mut again = forgery.script[place].clone();
    again.1.payload = b"{}".to_vec();
    forgery.script.push(again);
    let position = forgery.log[place].position.get();
    let expected = [("repeated", Some(position)), ("altered", Some(position))];
    assert_eq!(kinds(&forgery.findings().await), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_records_are_out_of_order() {
    let mut forgery = Forgery::of(300).await;
    let of_partition = forgery.partition();
    let (one, other) = (of_partition[4], of_partition[5]);
    forgery.script.swap(one, other);
    let findings = forgery.findings().await;
    assert_eq!(kinds(&findings), [("out_of_order", Some(forgery.log[one].position.get()))]);
    let Finding::OutOfOrder { after, .. } = &findings[0] else { panic!("{findings:?}") };
    assert_eq!(*after, forgery.log[other].position);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_record_is_named_with_what_is_different() {
    let mut forgery = Forgery::of(300).await;
    let of_partition = forgery.partition();
    let places = [of_partition[1], of_partition[3], of_partition[5], of_partition[7]];
    let mut change = |index: usize, change: &dyn Fn(&mut Message)| {
        change(&mut forgery.script[places[index]].1);
    };
    change(0, &|message| message.payload.push(b' '));
    change(1, &|message| message.key = b"another".to_vec());
    change(2, &|message| drop(message.headers.insert("ce_streamversion".into(), "77".into())));
    change(3, &|message| drop(message.headers.remove("ce_type")));
    let findings = forgery.findings().await;
    let altered = places.map(|place| ("altered", Some(forgery.log[place].position.get())));
    assert_eq!(kinds(&findings), altered);
    let parts = ["the payload", "the key", "\"ce_streamversion\"", "\"ce_type\""];
    for (finding, part) in findings.iter().zip(parts) {
        assert!(finding.to_string().contains(part), "{finding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_no_event_is_foreign() {
    let setup = Setup::new().await;
    setup.append(100).await;
    // Positions that rolled back appends have left.
    kafka_support::execute(&setup.url, "select setval('annals.positions', 120)").await;
    setup.append(100).await;
    let mut forgery = Forgery::of_store(setup).await;
    let of_partition = forgery.partition();
    let mut insert = |after: usize, position: &str, id: Option<&str>| {
        let (category, mut message) = forgery.script[after].clone();
        message.headers.insert("ce_sequence".into(), position.into());
        if let Some(id) = id {
            message.headers.insert("ce_id".into(), id.into());
        }
        forgery.script.insert(after + 1, (category, message));
    };
    let other = "00000000-0000-7000-8000-000000000000";
    // From behind, so that places stay what they are.
    insert(of_partition[9], "99999999", None);
    insert(of_partition[6], "00000000000000000110", None);
    insert(of_partition[3], "00000000000000000003", Some(other));
    insert(of_partition[2], "x", None);
    let findings = forgery.findings().await;
    let kinds: Vec<_> = findings.iter().map(Finding::kind).collect();
    assert_eq!(kinds, ["unreadable", "foreign", "foreign", "foreign"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_ends_a_transaction_is_no_finding() {
    let mut forgery = Forgery::of(100).await;
    for place in forgery.partition()[2..5].iter().rev() {
        let (category, mut message) = forgery.script[*place].clone();
        message.headers.clear();
        message.headers.insert("annals-ends-transaction".into(), "".into());
        forgery.script.insert(place + 1, (category, message));
    }
    forgery.create_topics().await;
    forgery.publish().await;
    let verification = forgery.verify().await;
    assert_eq!(verification.findings, []);
    assert_eq!(verification.events, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_of_another_store_does_not_pass_for_ours() {
    let mut forgery = Forgery::of(100).await;
    let place = forgery.partition()[2];
    let other = "00000000-0000-7000-8000-000000000000";
    forgery.script[place].1.headers.insert("ce_id".into(), other.into());
    let kinds = kinds(&forgery.findings().await);
    assert_eq!(kinds, [("foreign", None), ("lost", Some(forgery.log[place].position.get()))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_in_another_partition_or_topic_is_misplaced() {
    let mut forgery = Forgery::of(300).await;
    let of_partition = forgery.partition();
    let (one, other) = (of_partition[2], of_partition[6]);
    let message = &mut forgery.script[one].1;
    message.partition = (message.partition + 1) % i32::from(PARTITIONS);
    let topic = &mut forgery.script[other].0;
    *topic = CATEGORIES.into_iter().find(|category| category != topic).unwrap();
    let mut kinds = kinds(&forgery.findings().await);
    kinds.sort_unstable();
    let [one, other] = [one, other].map(|place| Some(forgery.log[place].position.get()));
    let expected = [("lost", one), ("lost", other), ("misplaced", one), ("misplaced", other)];
    assert_eq!(kinds, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_not_there_and_what_waits_for_it_is_told() {
    let mut forgery = Forgery::of(300).await;
    let aborted = forgery.script.clone();
    forgery.script.truncate(200);
    forgery.create_topics().await;
    let producer = |id: &str| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &forgery.setup.brokers);
        config.set("transactional.id", format!("{}.{id}", forgery.setup.context));
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        producer.begin_transaction().unwrap();
        producer
    };
    let one = producer("one");
    produce(&one, &forgery.setup, &aborted);
    one.abort_transaction(TIMEOUT).unwrap();
    one.begin_transaction().unwrap();
    produce(&one, &forgery.setup, &forgery.script);
    one.commit_transaction(TIMEOUT).unwrap();
    note(&forgery.setup, forgery.log[199].position).await;
    assert_eq!(forgery.verify_ended().await.findings, []);

    let open = producer("other");
    produce(&open, &forgery.setup, &forgery.script);
    let verification = forgery.verify().await;
    assert_eq!(verification.findings, []);
    assert!(!verification.held_back.is_empty());
    open.abort_transaction(TIMEOUT).unwrap();
    assert_eq!(forgery.verify_ended().await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_does_not_count_as_published_only_holes_are_findings() {
    let mut forgery = Forgery::of(300).await;
    forgery.script.truncate(200);
    forgery.publish().await;
    kafka_support::execute(&forgery.setup.url, "update annals.checkpoints set position = 100")
        .await;
    let verification = forgery.verify().await;
    assert_eq!(verification.findings, []);
    assert_eq!(verification.published.get(), 100);

    let mut forgery = Forgery::of(300).await;
    forgery.script.truncate(200);
    let partition = forgery.partition();
    let hole = partition[partition.len() - 2];
    forgery.script.remove(hole);
    forgery.publish().await;
    kafka_support::execute(&forgery.setup.url, "update annals.checkpoints set position = 1").await;
    let lost = ("lost", Some(forgery.log[hole].position.get()));
    assert_eq!(kinds(&forgery.verify().await.findings), [lost]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_retention_has_deleted_are_expired() {
    let forgery = Forgery::of(300).await;
    forgery.publish().await;
    let topic = forgery.setup.topic("loan");
    let mut offsets = TopicPartitionList::new();
    for partition in 0..PARTITIONS.into() {
        offsets.add_partition_offset(&topic, partition, Offset::Offset(2)).unwrap();
    }
    // One of them to its end.
    offsets.set_partition_offset(&topic, 1, Offset::End).unwrap();
    admin(&forgery.setup).delete_records(&offsets, &AdminOptions::new()).await.unwrap();
    let in_one = forgery.script.iter().filter(|(c, m)| *c == "loan" && m.partition == 1).count();
    let verification = forgery.verify().await;
    assert_eq!(verification.findings, []);
    assert_eq!(verification.expired, in_one as u64 + 2 * (u64::from(PARTITIONS) - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_were_archived_before_are_no_findings() {
    let setup = Setup::new().await;
    let stream = StreamId::new("loan", "old").unwrap();
    let append = Append::to(stream.clone(), ExpectedVersion::Any, [event("{}"), event("{}")]);
    setup.store.append(append).await.unwrap();
    setup.store.archive_stream(&stream, ExpectedVersion::Any).await.unwrap();
    setup.append(100).await;
    setup.finish().await;
    let verification = verify(&setup).await;
    assert_eq!((verification.findings, verification.archived), (vec![], 2));
}

/// Some megabytes of two partitions, the one after the other in the log: one is far ahead of where it is
/// looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_far_ahead_waits() {
    let setup = Setup::new().await;
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(30_000));
    let places = ('a'..='z').map(|key| (key, java_partition(&key.to_string(), PARTITIONS.into())));
    let keys = |number| places.clone().find(|(_, partition)| *partition == number).unwrap().0;
    for key in [keys(0), keys(1)] {
        for _ in 0..15 {
            let stream = StreamId::new("loan", key).unwrap();
            let events = (0..20).map(|_| event(large.clone()));
            setup.store.append(Append::to(stream, ExpectedVersion::Any, events)).await.unwrap();
        }
    }
    let forgery = Forgery::of_store(setup).await;
    forgery.publish().await;
    let verification = forgery.verify().await;
    assert_eq!(verification.findings, []);
    assert_eq!(verification.events, 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_is_an_error_in_time() {
    let setup = Setup::new().await;
    let verify = kafka_support::publisher("127.0.0.1:1", &setup.context).verify(&setup.store);
    let run = verify.unwrap().run();
    let error = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("list the topics"), "{error}");
}
