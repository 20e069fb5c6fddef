//! The publisher when things fail: it is killed, paused, doubled, refused, or without a broker.
#![cfg(feature = "kafka")]
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod kafka_support;

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use annals_eventstore::{
    Append, EventStore, ExpectedVersion, StreamId,
    kafka::{Publisher, State},
    postgres::Checkpoint,
};
use kafka_support::{PARTITIONS, Setup, event, execute, publisher, wait_for};
use rand::{Rng, RngCore};
use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
};
use tokio_util::sync::CancellationToken;

const LEASE: Duration = Duration::from_millis(500);

fn random_millis(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rand::rng().random_range(range))
}

/// Runs a publisher to the end of the log and stops it.
async fn finish(setup: &Setup) {
    let publisher = setup.publisher().lease_time_to_live(LEASE).build(&setup.store).unwrap();
    let mut progress = publisher.progress();
    let stop = CancellationToken::new();
    let running = tokio::spawn(publisher.run(stop.clone()));
    let end = setup.store.safe_position().await.unwrap();
    wait_for(&mut progress, |progress| progress.position == end).await;
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_at_any_moment_it_loses_nothing() {
    let setup = Setup::new().await;
    let publishing = async {
        for _ in 0..12 {
            let publisher = setup
                .publisher()
                .batch(7)
                .lease_time_to_live(Duration::from_millis(100))
                .build(&setup.store)
                .unwrap();
            let mut progress = publisher.progress();
            let running = tokio::spawn(publisher.run(CancellationToken::new()));
            wait_for(&mut progress, |progress| progress.published > 0).await;
            tokio::time::sleep(random_millis(0..60)).await;
            running.abort();
        }
    };
    tokio::join!(setup.append(6000), publishing);
    finish(&setup).await;
    setup.assert_all_published().await;
}

/// Not a test: what [`Process`] runs.
#[tokio::test(flavor = "multi_thread")]
async fn publisher_process() {
    let (Ok(url), Ok(context)) = (std::env::var("PUBLISH_STORE"), std::env::var("PUBLISH_CONTEXT"))
    else {
        return;
    };
    let store = EventStore::connect(&url).await.unwrap();
    let brokers = std::env::var("KAFKA_BROKERS").unwrap();
    let publisher = publisher(&brokers, &context).lease_time_to_live(LEASE).build(&store).unwrap();
    publisher.run(CancellationToken::new()).await.unwrap();
}

/// A publisher in a process of its own, which ends with this.
struct Process(Child);

impl Process {
    fn start(setup: &Setup) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "publisher_process", "--nocapture"])
            .env("PUBLISH_STORE", &setup.url)
            .env("PUBLISH_CONTEXT", &setup.context)
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Process {
    /// SIGKILL.
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

async fn checkpoint(setup: &Setup) -> i64 {
    let database = setup.store.database().unwrap();
    let position = Checkpoint::position_of(database, Publisher::CHECKPOINT).await.unwrap();
    position.unwrap_or_default().get()
}

/// Waits until the checkpoint is above a position.
async fn published_beyond(setup: &Setup, position: i64) {
    let start = Instant::now();
    while checkpoint(setup).await <= position {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing is published");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_loses_nothing() {
    let setup = Setup::new().await;
    let publishing = async {
        for _ in 0..6 {
            let process = Process::start(&setup);
            published_beyond(&setup, checkpoint(&setup).await).await;
            tokio::time::sleep(random_millis(0..40)).await;
            drop(process);
        }
    };
    tokio::join!(setup.append(8000), publishing);
    finish(&setup).await;
    setup.assert_all_published().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_was_paused_past_its_lease_moves_nothing() {
    let setup = Setup::new().await;
    // Records every move of the checkpoint.
    execute(
        &setup.url,
        "create table public.moves (at serial, position bigint, epoch bigint);
         create function note() returns trigger language plpgsql as $$ begin
             insert into public.moves (position, epoch) values (new.position, new.epoch);
             return new;
         end $$;
         create trigger note after insert or update on annals.checkpoints
             for each row execute function note();",
    )
    .await;
    setup.append(15_000).await;
    let process = Process::start(&setup);
    // It is in the middle of its work.
    published_beyond(&setup, 1000).await;
    process.signal("-STOP");
    let stopped_at = checkpoint(&setup).await;
    assert!(stopped_at < 15_000, "it was too fast to be paused");

    finish(&setup).await;
    let end = checkpoint(&setup).await;
    assert_eq!(end, 15_000);
    process.signal("-CONT");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(checkpoint(&setup).await, end);
    let client = setup.store.database().unwrap().client().await.unwrap();
    let back = "select count(*) from (select position < lag(position) over w
                    or epoch < lag(epoch) over w as back from public.moves window w as (order by at)) m
                where back";
    let back: i64 = client.query_one(back, &[]).await.unwrap().get(0);
    assert_eq!(back, 0, "the checkpoint went back");

    // It is not broken: it takes over again, and publishes what comes.
    setup.append(10).await;
    published_beyond(&setup, end + 9).await;
    drop((client, process));
    setup.assert_all_published().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_publishers_one_is_active_until_it_stops() {
    let setup = Setup::new().await;
    let [first, second] = [(); 2].map(|()| {
        let publisher = setup.publisher().lease_time_to_live(LEASE).build(&setup.store).unwrap();
        let (progress, stop) = (publisher.progress(), CancellationToken::new());
        (progress, stop.clone(), tokio::spawn(publisher.run(stop)))
    });
    let [mut first_progress, mut second_progress] = [first.0.clone(), second.0.clone()];
    let (active, standby) = tokio::select! {
        _ = wait_for(&mut first_progress, |p| p.state == State::Publishing) => (first, second),
        _ = wait_for(&mut second_progress, |p| p.state == State::Publishing) => (second, first),
    };
    setup.append(500).await;
    let end = setup.store.safe_position().await.unwrap();
    let (mut progress, stop, running) = active;
    assert_eq!(wait_for(&mut progress, |p| p.position == end).await.published, 500);
    // Longer than a lease that is not renewed.
    tokio::time::sleep(LEASE * 2).await;
    let (mut standby_progress, standby_stop, standby_running) = standby;
    let now = wait_for(&mut standby_progress, |p| p.position == end).await;
    assert_eq!((now.state, now.published), (State::Standby, 0));

    stop.cancel();
    running.await.unwrap().unwrap();
    setup.append(500).await;
    let end = setup.store.safe_position().await.unwrap();
    let now = wait_for(&mut standby_progress, |p| p.position == end).await;
    assert_eq!((now.state, now.published), (State::Publishing, 500));
    standby_stop.cancel();
    standby_running.await.unwrap().unwrap();
    setup.assert_all_published().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_appends_go_on_and_stopping_is_prompt() {
    let setup = Setup::new().await;
    let publisher = publisher("127.0.0.1:1", &setup.context).build(&setup.store).unwrap();
    let mut progress = publisher.progress();
    let stop = CancellationToken::new();
    let running = tokio::spawn(publisher.run(stop.clone()));
    setup.append(10).await;
    let start = Instant::now();
    let unreachable = |state: &State| matches!(state, State::BrokerUnreachable { .. });
    let now = wait_for(&mut progress, |progress| unreachable(&progress.state)).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let State::BrokerUnreachable { reason } = now.state else { unreachable!() };
    assert!(reason.contains("127.0.0.1:1") && reason.contains("refused"), "{reason}");
    setup.append(10).await;
    assert_eq!(checkpoint(&setup).await, 0);

    let start = Instant::now();
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // It has given its lease back.
    let start = Instant::now();
    finish(&setup).await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    setup.assert_all_published().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_broker_refuses_is_named_and_nothing_passes_it() {
    let setup = Setup::new().await;
    let topic = setup.topic("loan");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &setup.brokers).create().unwrap();
    let new = NewTopic::new(&topic, PARTITIONS.into(), TopicReplication::Fixed(-1))
        .set("max.message.bytes", "20000");
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    let small = |n| event(format!(r#"{{"n":{n}}}"#));
    let large: String =
        (0..15_000).map(|_| format!("{:02x}", rand::rng().next_u32() as u8)).collect();
    let events =
        (0..300).map(small).chain([event(format!("{large:?}"))]).chain((0..300).map(small));
    let stream = StreamId::new("loan", "the one").unwrap();
    setup.store.append(Append::to(stream, ExpectedVersion::Any, events)).await.unwrap();

    let publisher =
        setup.publisher().batch(1000).config("batch.size", "4000").build(&setup.store).unwrap();
    let run = publisher.run(CancellationToken::new());
    let error = tokio::time::timeout(Duration::from_secs(30), run).await.unwrap().unwrap_err();
    let said = error.to_string();
    assert!(said.contains("event 301 of stream loan-the one, at position 301"), "{said}");
    assert!(said.contains("30009 bytes"), "{said}");
    assert_eq!(checkpoint(&setup).await, 0);
    // Or a consumer would take the later ones and then drop this one as a repeat.
    let beyond = setup.topic_content("loan").iter().filter(|m| m.position().get() > 300).count();
    assert_eq!(beyond, 0);

    let allowed =
        AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", "100000");
    admin.alter_configs([&allowed], &AdminOptions::new()).await.unwrap();
    finish(&setup).await;
    setup.assert_all_published().await;
}
