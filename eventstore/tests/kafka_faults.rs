//! The publisher when things fail: it is killed, paused, doubled, refused, or without a broker.
#![cfg(feature = "kafka")]
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod kafka_support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use annals_eventstore::{
    Append, ExpectedVersion, StreamId,
    breaker::{BreakerOptions, CircuitBreaker, Override},
    kafka::{Builder, Delivery, Publisher, State},
    postgres::Checkpoint,
};
use kafka_support::{LEASE, PARTITIONS, Setup, event, execute, publisher, random_millis, wait_for};
use rand::RngCore;
use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn dropped_at_any_moment_it_publishes_once() {
    let setup = Setup::new().await;
    dropped_at_any_moment(&setup, Delivery::ExactlyOnce).await;
    setup.assert_published_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_at_any_moment_it_loses_nothing() {
    let setup = Setup::new().await;
    dropped_at_any_moment(&setup, Delivery::AtLeastOnce).await;
    setup.assert_all_published().await;
}

async fn dropped_at_any_moment(setup: &Setup, delivery: Delivery) {
    let publishing = async {
        for _ in 0..12 {
            let publisher = setup
                .publisher()
                .delivery(delivery)
                .batch(7)
                .lease_time_to_live(LEASE * 2)
                .build(&setup.store)
                .unwrap();
            let mut progress = publisher.progress();
            let running = tokio::spawn(publisher.run());
            wait_for(&mut progress, |progress| progress.published > 0).await;
            tokio::time::sleep(random_millis(0..60)).await;
            running.abort();
        }
    };
    tokio::join!(setup.append(6000), publishing);
    setup.finish_with(delivery).await;
}

/// As one that sleeps longer than its lease, at the worst moment: it notices nothing before it moves
/// the checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_whose_checkpoint_was_taken_over_moves_nothing() {
    let setup = Setup::new().await;
    let publisher = setup.publisher().lease_time_to_live(LEASE).build(&setup.store).unwrap();
    let mut progress = publisher.progress();
    let stop = CancellationToken::new();
    let running = tokio::spawn(publisher.run_until(stop.clone()));
    setup.append(100).await;
    wait_for(&mut progress, |progress| progress.position.get() == 100).await;
    // It follows what is in the topics.
    setup.checkpoint_reaches(100).await;

    let database = setup.store.database().unwrap();
    Checkpoint::take_over(database, Publisher::CHECKPOINT, 1_000_000).await.unwrap();
    setup.append(100).await;
    wait_for(&mut progress, |progress| progress.state == State::Standby).await;
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(setup.checkpoint().await, 100);
    // And it is not in the way of the next.
    let epochs = "update annals.checkpoints set epoch = 0; update annals.leases set epoch = 0";
    execute(&setup.url, epochs).await;
    wait_for(&mut progress, |progress| progress.position.get() == 200).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    setup.assert_published_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_to_the_database_delay_it_only() {
    let setup = Setup::new().await;
    setup.append(12_000).await;
    let publisher = setup.publisher().lease_time_to_live(LEASE).build(&setup.store).unwrap();
    let mut progress = publisher.progress();
    let stop = CancellationToken::new();
    let running = tokio::spawn(publisher.run_until(stop.clone()));
    // An interruption lasts long enough to be seen here.
    let mut watched = progress.clone();
    let interrupted = Arc::new(AtomicBool::new(false));
    let seen = interrupted.clone();
    let watching = tokio::spawn(async move {
        while watched.changed().await.is_ok() {
            let is_interrupted = matches!(watched.borrow().state, State::Interrupted { .. });
            seen.fetch_or(is_interrupted, Ordering::Relaxed);
        }
    });
    wait_for(&mut progress, |progress| progress.published > 0).await;
    // One that is idle is replaced in silence.
    let mut kills = 0;
    while kills < 10 || !interrupted.load(Ordering::Relaxed) {
        assert!(progress.borrow().position.get() < 12_000, "nothing was interrupted");
        kills += 1;
        let all_others = "select pg_terminate_backend(pid) from pg_stat_activity
                          where datname = current_database() and pid <> pg_backend_pid()";
        execute(&setup.url, all_others).await;
        tokio::time::sleep(random_millis(20..80)).await;
    }
    wait_for(&mut progress, |progress| progress.position.get() == 12_000).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    watching.await.unwrap();
    setup.assert_published_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_publishers_one_is_active_until_it_stops() {
    let setup = Setup::new().await;
    let lease = LEASE * 8;
    let [first, second] = [(); 2].map(|()| {
        let publisher = setup.publisher().lease_time_to_live(lease).build(&setup.store).unwrap();
        let (progress, stop) = (publisher.progress(), CancellationToken::new());
        (progress, stop.clone(), tokio::spawn(publisher.run_until(stop)))
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
    tokio::time::sleep(lease * 2).await;
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
    setup.assert_published_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_appends_go_on_and_stopping_is_prompt() {
    let setup = Setup::new().await;
    setup.append(10).await;
    let gone = || publisher("127.0.0.1:1", &setup.context);
    let is_unreachable = |state: &State| match state {
        State::BrokerUnreachable { reason } => {
            assert!(reason.contains("127.0.0.1:1") && reason.contains("refused"), "{reason}");
            true
        }
        _ => false,
    };
    stops_promptly(&setup, gone, is_unreachable).await;
    setup.append(10).await;
    assert_eq!(setup.checkpoint().await, 0);
    // It has given its lease back.
    let client = setup.store.database().unwrap().client().await.unwrap();
    let free = "select expires_at = '-infinity' from annals.leases where name like 'publisher%'";
    assert!(client.query_one(free, &[]).await.unwrap().get::<_, bool>(0));
    setup.finish().await;
    setup.assert_published_once().await;
}

/// That it takes less than a second to stop a publisher that has come to such a state; of five times, in the fastest.
async fn stops_promptly(
    setup: &Setup,
    builder: impl Fn() -> Builder,
    is_there: impl Fn(&State) -> bool,
) {
    let mut times = Vec::new();
    while times.len() < 5 {
        let publisher = builder().build(&setup.store).unwrap();
        let mut progress = publisher.progress();
        let stop = CancellationToken::new();
        let running = tokio::spawn(publisher.run_until(stop.clone()));
        wait_for(&mut progress, |progress| is_there(&progress.state)).await;
        let start = Instant::now();
        stop.cancel();
        running.await.unwrap().unwrap();
        if start.elapsed() < Duration::from_secs(1) {
            return;
        }
        times.push(start.elapsed());
    }
    panic!("it took {times:?} to stop");
}

fn is_open(state: &State, why: &str) -> bool {
    matches!(state, State::CircuitOpen { reason } if reason.contains(why))
}

#[tokio::test(flavor = "multi_thread")]
async fn opened_by_hand_it_halts_and_goes_on_where_it_was() {
    for delivery in [Delivery::ExactlyOnce, Delivery::AtLeastOnce] {
        let setup = Setup::new().await;
        let circuit = CircuitBreaker::new("by hand", BreakerOptions::default());
        // Two that share it: none of them goes on when the other one halts.
        let lease = LEASE * 6;
        let [first, second] = [(); 2].map(|()| {
            let builder = setup.publisher().delivery(delivery).circuit(circuit.clone());
            let publisher = builder.lease_time_to_live(lease).build(&setup.store).unwrap();
            let (progress, stop) = (publisher.progress(), CancellationToken::new());
            (progress, stop.clone(), tokio::spawn(publisher.run_until(stop)))
        });
        let watched = first.0.clone();
        let mut appended = 50;
        setup.append(appended).await;
        wait_for(&mut first.0.clone(), |now| now.position.get() == 50).await;
        for _ in 0..3 {
            // In the middle of things.
            let halted = async {
                tokio::time::sleep(random_millis(0..300)).await;
                circuit.set_override(Some(Override::Open));
            };
            tokio::join!(setup.append(600), halted);
            appended += 600;
            let [mut one, mut other] = [first.0.clone(), second.0.clone()];
            let now = tokio::select! {
                now = wait_for(&mut one, |now| is_open(&now.state, "by hand")) => now,
                now = wait_for(&mut other, |now| is_open(&now.state, "by hand")) => now,
            };
            setup.append(10).await;
            appended += 10;
            tokio::time::sleep(lease + LEASE).await;
            let told = setup.progress().last().map_or(0, |progress| progress.position.get());
            assert_eq!(told, now.position.get(), "somebody has gone on");
            assert!(told < appended as i64);
            assert_eq!(setup.checkpoint().await, told);
            circuit.set_override(None);
            let start = Instant::now();
            let end = setup.store.safe_position().await.unwrap();
            while watched.borrow().position < end {
                assert!(start.elapsed() < Duration::from_secs(30), "it does not go on");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        for (_, stop, running) in [first, second] {
            stop.cancel();
            running.await.unwrap().unwrap();
        }
        // Also at least once: what was under way was finished.
        setup.assert_published_once().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_by_hand_it_asks_as_without_a_breaker() {
    let setup = Setup::new().await;
    let options = BreakerOptions::default().failures(1).cool_down(LEASE, LEASE);
    let circuit = CircuitBreaker::new("closed by hand", options);
    circuit.set_override(Some(Override::Closed));
    let gone = publisher("127.0.0.1:1", &setup.context).circuit(circuit.clone());
    let asking = gone.build(&setup.store).unwrap();
    let mut progress = asking.progress();
    let stop = CancellationToken::new();
    let running = tokio::spawn(asking.run_until(stop.clone()));
    let unreachable = |state: &State| matches!(state, State::BrokerUnreachable { .. });
    wait_for(&mut progress, |progress| unreachable(&progress.state)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(unreachable(&progress.borrow().state), "{:?}", progress.borrow().state);
    circuit.set_override(None);
    wait_for(&mut progress, |progress| is_open(&progress.state, "refused")).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    let gone = || publisher("127.0.0.1:1", &setup.context).circuit(circuit.clone());
    stops_promptly(&setup, gone, |state| is_open(state, "refused")).await;
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
    let run = publisher.run();
    let error = tokio::time::timeout(Duration::from_secs(30), run).await.unwrap().unwrap_err();
    let said = error.to_string();
    assert!(said.contains("event 301 of stream loan-the one, at position 301"), "{said}");
    assert!(said.contains("30009 bytes"), "{said}");
    assert_eq!(setup.checkpoint().await, 0);
    // Or a consumer would take the later ones and then drop this one as a repeat.
    let beyond = setup.topic_content("loan").iter().filter(|m| m.position().get() > 300).count();
    assert_eq!(beyond, 0);

    let allowed =
        AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", "100000");
    admin.alter_configs([&allowed], &AdminOptions::new()).await.unwrap();
    setup.finish().await;
    setup.assert_published_once().await;
}
