//! What the publisher tells of its progress, and goes by: the progress topic, the checkpoint, the log.
#![cfg(feature = "kafka")]
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod kafka_support;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use annals_eventstore::{
    Append, Error, EventStore, ExpectedVersion, StreamId,
    kafka::{Delivery, Progress, ProgressRecord, Publisher, State},
};
use kafka_support::{CATEGORIES, STEADY, Setup, event, execute, publisher, read_places, wait_for};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A publisher at work in this process.
struct Running {
    progress: watch::Receiver<Progress>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn start(publisher: Publisher) -> Self {
        let (progress, stop) = (publisher.progress(), CancellationToken::new());
        let task = tokio::spawn(publisher.run_until(stop.clone()));
        Self { progress, stop, task }
    }

    async fn reaches(&mut self, position: i64) {
        wait_for(&mut self.progress, |now| now.position.get() >= position).await;
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn start(setup: &Setup) -> Running {
    Running::start(setup.publisher().lease_time_to_live(STEADY).build(&setup.store).unwrap())
}

fn admin(setup: &Setup) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &setup.brokers).create().unwrap()
}

/// Follows the records as a consumer would: after each, all events up to its position are below the
/// offsets that were named by then.
fn assert_names_all_offsets(setup: &Setup, told: &[ProgressRecord]) {
    let mut events = Vec::new();
    for category in CATEGORIES {
        let topic = setup.topic(category);
        for (position, partition, offset) in read_places(&setup.brokers, &topic) {
            events.push((position, topic.clone(), partition, offset));
        }
    }
    events.sort();
    assert!(!events.is_empty());
    let mut known: BTreeMap<(String, i32), i64> = BTreeMap::new();
    let mut events = events.into_iter().peekable();
    for record in told {
        for (topic, partitions) in &record.offsets {
            for (partition, offset) in partitions {
                known.insert((topic.clone(), *partition), *offset);
            }
        }
        while let Some((position, topic, partition, offset)) =
            events.next_if(|(position, ..)| *position <= record.position)
        {
            let known = known.get(&(topic.clone(), partition)).copied().unwrap_or_default();
            assert!(offset < known, "{position} is at {offset} of {topic} {partition}: {record:?}");
        }
    }
    assert_eq!(events.next(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_are_told_how_far_each_partition_goes() {
    for delivery in [Delivery::ExactlyOnce, Delivery::AtLeastOnce] {
        let setup = Setup::new().await;
        for _ in 0..3 {
            setup.append(130).await;
            setup.finish_with(delivery).await;
        }
        setup.assert_published_once().await;
        let told = setup.progress();
        assert!(told.len() >= 9, "{delivery:?}: a record for each batch of 50: {}", told.len());
        assert_names_all_offsets(&setup, &told);
        let last = told.last().and_then(|record| record.event).unwrap();
        let log = setup.log().await;
        let event = log.last().unwrap();
        assert_eq!((last.position, last.id), (event.position, event.id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stretch_without_events_is_told_now_and_then_and_rest_not_at_all() {
    let setup = Setup::new().await;
    setup.append(1).await;
    let poll = Duration::from_millis(2);
    let publisher = setup.publisher().poll_interval(poll).build(&setup.store).unwrap();
    let mut running = Running::start(publisher);
    running.reaches(1).await;
    let (began, told) = (Instant::now(), setup.progress().len());
    let mut position = 1;
    while began.elapsed() < Duration::from_secs(1) {
        position += 1;
        execute(&setup.url, &format!("select setval('annals.positions', {position})")).await;
    }
    running.reaches(position).await;
    setup.checkpoint_reaches(position).await;
    let passed = (began.elapsed().as_millis() / 100) as usize;
    let records = setup.progress().len() - told;
    assert!(records > 0 && records <= passed + 2, "{records} records in {passed} tenths");
    assert_eq!(setup.progress().last().map(|record| record.position.get()), Some(position));

    let told = setup.progress_end();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(setup.progress_end(), told, "something is written while nothing happens");
    running.stop().await;
    assert_eq!(setup.progress_end(), told);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_topic_of_progress_it_goes_on_from_the_checkpoint() {
    let setup = Setup::new().await;
    setup.append(100).await;
    setup.finish().await;
    let topic = ProgressRecord::topic(&setup.context);
    admin(&setup).delete_topics(&[&topic], &AdminOptions::new()).await.unwrap()[0].clone().unwrap();
    // A consumer that knows nothing is told everything, also if nothing comes.
    let mut running = start(&setup);
    wait_for(&mut running.progress, |now| now.state == State::Publishing).await;
    running.stop().await;
    setup.assert_published_once().await;
    let told = setup.progress();
    assert_eq!(told[0].position.get(), 100);
    assert_names_all_offsets(&setup, &told);
    setup.append(100).await;
    setup.finish().await;
    setup.assert_published_once().await;
    assert_names_all_offsets(&setup, &setup.progress());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_checkpoint_it_goes_on_from_its_topic_of_progress() {
    let setup = Setup::new().await;
    setup.append(100).await;
    setup.finish().await;
    execute(&setup.url, "delete from annals.checkpoints").await;
    setup.append(100).await;
    setup.finish().await;
    setup.assert_published_once().await;
}

/// Committed records behind an open transaction are not to be seen, whosever it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_open_transaction_of_another_store_does_not_hide_the_progress() {
    let setup = Setup::new().await;
    let mut running = start(&setup);
    setup.append(50).await;
    running.reaches(50).await;

    let topic = ProgressRecord::topic(&setup.context);
    let other_id = format!("{}.publisher.other", setup.context);
    let other: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &setup.brokers)
        .set("transactional.id", &other_id)
        .create()
        .unwrap();
    let limit = Duration::from_secs(20);
    other.init_transactions(limit).unwrap();
    other.begin_transaction().unwrap();
    let value = ProgressRecord::new(annals_eventstore::Position::new(7)).to_json();
    other.send(BaseRecord::to(&topic).partition(0).key(&other_id).payload(&value)).unwrap();
    other.flush(limit).unwrap();

    setup.append(50).await;
    running.reaches(100).await;
    running.stop().await;
    // As after a crash.
    execute(&setup.url, "update annals.checkpoints set position = 0").await;

    let mut running = start(&setup);
    setup.append(50).await;
    wait_for(&mut running.progress, |now| now.state == State::Connecting).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running.progress.borrow().published, 0);
    other.abort_transaction(limit).unwrap();
    running.reaches(150).await;
    running.stop().await;
    setup.assert_published_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_restored_from_an_older_state_is_recognised() {
    let setup = Setup::new().await;
    setup.append(60).await;
    setup.finish().await;
    // A copy, as a backup is one.
    let name = setup.context.replace("test.", "kafka_");
    let copy = setup.copy("_older").await;
    setup.append(60).await;
    setup.finish().await;
    let published = setup.progress().len();

    let older = EventStore::connect(&copy.url).await.unwrap();
    let refused = async || {
        let publisher = publisher(&setup.brokers, &setup.context)
            .store_name(format!("{name}.annals"))
            .build(&older)
            .unwrap();
        let run = tokio::time::timeout(Duration::from_secs(30), publisher.run());
        run.await.expect("it ends").unwrap_err()
    };
    let error = refused().await;
    assert!(!error.is_retryable());
    let said = error.to_string();
    assert!(said.contains(&setup.transactional_id()), "{said}");
    assert!(said.contains("up to position 120") && said.contains("restored"), "{said}");

    // Also when it has gone on, beyond what was published.
    for n in 0..100 {
        let stream = StreamId::new("loan", n).unwrap();
        let append = Append::to(stream, ExpectedVersion::Any, [event("{}")]);
        older.append(append).await.unwrap();
    }
    assert!(older.safe_position().await.unwrap().get() > 120);
    assert!(matches!(refused().await, Error::PublishedElsewhere { .. }));
    // Nothing came of it.
    assert_eq!(setup.progress().len(), published);
    setup.assert_published_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_is_prompt_and_repeats_nothing() {
    let setup = Setup::new().await;
    setup.append(4000).await;
    // What a slow moment of the broker or of the database leaves undone is left to the next one.
    let (mut prompt, mut rounds, mut is_clean) = (0, 0, false);
    while rounds < 6 || !is_clean {
        assert!(rounds < 20, "it never stops cleanly");
        let publisher = setup.publisher().batch(2000).lease_time_to_live(STEADY);
        let mut running = Running::start(publisher.build(&setup.store).unwrap());
        wait_for(&mut running.progress, |now| now.state == State::Publishing).await;
        tokio::time::sleep(Duration::from_millis(3 * (rounds % 6))).await;
        let stopping = Instant::now();
        running.stop().await;
        let (took, is_open) = (stopping.elapsed(), setup.is_transaction_open());
        prompt += u64::from(took < Duration::from_secs(2) && !is_open);
        is_clean = took < Duration::from_millis(500) && !is_open;
        rounds += 1;
    }
    assert!(prompt * 3 >= rounds * 2, "{prompt} of {rounds} stops were prompt");
    // It gave its checkpoint back, too.
    let told = setup.progress().last().map_or(0, |record| record.position.get());
    assert_eq!(setup.checkpoint().await, told);
    setup.finish().await;
    setup.assert_published_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_it_is_behind_is_told() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // Others in this process tell theirs as well, of other contexts.
    recorder.install().unwrap();
    let setup = Setup::new().await;
    let before = Instant::now();
    setup.append(40).await;
    // So that the oldest event is not as old as the others.
    tokio::time::sleep(Duration::from_secs(2)).await;
    setup.append(30).await;
    // Without a broker it falls behind.
    let unreachable = publisher("127.0.0.1:1", &setup.context).build(&setup.store).unwrap();
    let mut running = Running::start(unreachable);
    let now = wait_for(&mut running.progress, |now| now.end.get() == 70).await;
    assert_eq!((now.position.get(), now.lag_events()), (0, 70));
    // A look sets them all to zero.
    let look = || -> BTreeMap<String, DebugValue> {
        let ours = |key: &metrics::Key| key.labels().any(|label| label.value() == setup.context);
        let all = snapshotter.snapshot().into_vec().into_iter();
        let ours = all.filter(|(key, ..)| ours(key.key()));
        ours.map(|(key, .., value)| (key.key().name().to_owned(), value)).collect()
    };
    let seen = |metrics: &BTreeMap<String, DebugValue>, name: &str| match metrics.get(name) {
        Some(DebugValue::Gauge(value)) => value.into_inner(),
        Some(DebugValue::Counter(value)) => *value as f64,
        Some(DebugValue::Histogram(took)) => took.iter().map(|took| took.into_inner()).sum(),
        None => 0.0,
    };
    // The lag is told again every second.
    let (start, mut active) = (Instant::now(), 0.0);
    loop {
        let metrics = look();
        active += seen(&metrics, "annals_publisher_active");
        let lag = seen(&metrics, "annals_publisher_lag_seconds");
        if seen(&metrics, "annals_publisher_lag_events") == 70.0 && lag > 0.0 {
            // The age of the oldest of them.
            let oldest = before.elapsed().as_secs_f64();
            assert!((2.0..=oldest).contains(&lag), "{lag} is not in 2..{oldest}");
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "the lag is not told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(active, 1.0);
    running.stop().await;

    setup.finish().await;
    let metrics = look();
    assert_eq!(seen(&metrics, "annals_publisher_events_total"), 70.0);
    assert_eq!(seen(&metrics, "annals_publisher_transactions_total"), 2.0);
    assert!(seen(&metrics, "annals_publisher_transaction_duration_seconds") > 0.0);
    // The one that was active has told that it is not any more.
    assert_eq!(seen(&metrics, "annals_publisher_active"), 0.0);
}
