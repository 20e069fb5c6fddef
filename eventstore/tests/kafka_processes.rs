//! The publisher in a process of its own that is killed or paused.
#![cfg(feature = "kafka")]
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod kafka_support;

use std::time::{Duration, Instant};

use annals_eventstore::kafka::{Delivery, FAIL_POINTS};
use kafka_support::{Process, Setup, What, execute, random_millis};

/// Not a test: what [`Process`] runs.
#[tokio::test(flavor = "multi_thread")]
async fn publisher_process() {
    Process::run().await;
}

/// Waits until the checkpoint is above a position.
async fn published_beyond(setup: &Setup, position: i64) {
    setup.checkpoint_reaches(position + 1).await;
}

async fn killed_at_any_moment(setup: &Setup, delivery: Delivery) {
    let publishing = async {
        for _ in 0..6 {
            let process = Process::of(setup).delivery(delivery).start();
            published_beyond(setup, setup.checkpoint().await).await;
            tokio::time::sleep(random_millis(0..40)).await;
            drop(process);
        }
    };
    tokio::join!(setup.append(8000), publishing);
    setup.finish_with(delivery).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_publishes_once() {
    let setup = Setup::new().await;
    killed_at_any_moment(&setup, Delivery::ExactlyOnce).await;
    setup.assert_published_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_loses_nothing() {
    let setup = Setup::new().await;
    killed_at_any_moment(&setup, Delivery::AtLeastOnce).await;
    setup.assert_all_published().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_step_it_publishes_once() {
    let setup = Setup::new().await;
    for point in FAIL_POINTS {
        // The first time, and in the middle of the work.
        let later = match point {
            "publisher-sent" => 77,
            "publisher-begun"
            | "publisher-delivered"
            | "publisher-progress-sent"
            | "publisher-before-commit"
            | "publisher-committed" => 3,
            _ => 1,
        };
        for count in [1, later] {
            setup.append(160).await;
            let mut process = Process::of(&setup).at(point, count, What::Die).start();
            process.died().await;
            if later == 1 {
                break;
            }
        }
    }
    setup.finish().await;
    setup.assert_published_once().await;
}

/// The broker has committed, and the publisher does not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_a_commit_repeats_nothing() {
    let setup = Setup::new().await;
    setup.append(500).await;
    for count in [1, 3] {
        let process =
            Process::of(&setup).at("publisher-committed", count, What::LoseAnswer).start();
        published_beyond(&setup, setup.checkpoint().await.max(499)).await;
        drop(process);
        setup.append(500).await;
    }
    setup.finish().await;
    setup.assert_published_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn started_together_they_publish_once() {
    let setup = Setup::new().await;
    let processes = [(); 3].map(|()| Process::start(&setup));
    setup.append(3000).await;
    setup.checkpoint_reaches(3000).await;
    drop(processes);
    setup.finish().await;
    setup.assert_published_once().await;
}

/// Paused in front of each of these steps, until another has taken over and published everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_wakes_up_late_publishes_nothing_twice() {
    for point in [
        "publisher-lease-taken",
        "publisher-connected",
        "publisher-initialised",
        "publisher-progress-read",
        "publisher-begun",
        "publisher-sent",
        "publisher-delivered",
        "publisher-before-commit",
        "publisher-committed",
        "publisher-before-checkpoint",
        // Within the transaction that moves it.
        "checkpoint-moved",
    ] {
        let setup = Setup::new().await;
        setup.append(200).await;
        // It would go on with its lease for 20 seconds, so that alone does not hold it back.
        let lease = Duration::from_secs(60);
        let process = Process::of(&setup).lease(lease).at(point, 1, What::Pause).start();
        process.paused().await;
        execute(&setup.url, "update annals.leases set expires_at = '-infinity'").await;
        setup.finish().await;
        setup.append(100).await;
        // The one that takes over is at work when the other one wakes up.
        let other = Process::start(&setup);
        setup.checkpoint_reaches(300).await;
        process.signal("-CONT");
        setup.append(300).await;
        setup.checkpoint_reaches(600).await;
        drop((process, other));
        setup.finish().await;
        setup.assert_published_once().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_no_transaction_open_and_repeats_nothing() {
    let setup = Setup::new().await;
    setup.append(200).await;
    // A broker that takes too long to abort one leaves it to the next publisher.
    for attempt in 1..=3 {
        let mut process = Process::of(&setup).at("publisher-delivered", 2, What::Linger).start();
        let start = Instant::now();
        while !setup.is_transaction_open() {
            assert!(start.elapsed() < Duration::from_secs(60), "nothing is published");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        process.signal("-TERM");
        process.died().await;
        let is_open = setup.is_transaction_open();
        setup.finish().await;
        setup.assert_published_once().await;
        if !is_open {
            return;
        }
        println!("a transaction was left open by attempt {attempt}");
        setup.append(200).await;
    }
    panic!("each time, a transaction is left open");
}

/// Paused with an open transaction for longer than its lease and than the transaction may last, and nobody
/// takes over.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_timed_out_is_published_anew() {
    let setup = Setup::new().await;
    setup.append(200).await;
    let process = Process::of(&setup)
        .transaction_timeout(Duration::from_secs(1))
        .at("publisher-before-commit", 2, What::Pause)
        .start();
    process.paused().await;
    // The broker looks for such transactions every 10 seconds.
    let start = Instant::now();
    while setup.is_transaction_open() {
        assert!(start.elapsed() < Duration::from_secs(40), "the transaction stays open");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    process.signal("-CONT");
    setup.append(100).await;
    setup.checkpoint_reaches(300).await;
    drop(process);
    setup.finish().await;
    setup.assert_published_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_takeovers_in_a_row_take_seconds_each_and_publish_once() {
    let setup = Setup::new().await;
    let mut active = Process::start(&setup);
    setup.append(50).await;
    setup.checkpoint_reaches(50).await;
    let mut times = Vec::new();
    for takeover in 1..=10 {
        let standby = Process::start(&setup);
        setup.append(200).await;
        tokio::time::sleep(random_millis(0..100)).await;
        drop(std::mem::replace(&mut active, standby));
        let start = Instant::now();
        setup.append(50).await;
        setup.checkpoint_reaches(50 + 250 * takeover).await;
        times.push(start.elapsed());
    }
    // The lease, what is left of a transaction, and a machine that has other things to do now and then.
    times.sort_unstable();
    assert!(times[times.len() / 2] < Duration::from_secs(15), "{times:?}");
    drop(active);
    setup.finish().await;
    setup.assert_published_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delivery_can_be_changed_from_run_to_run() {
    let setup = Setup::new().await;
    let modes = [Delivery::ExactlyOnce, Delivery::AtLeastOnce];
    for delivery in modes.iter().cycle().take(5) {
        setup.append(120).await;
        setup.finish_with(*delivery).await;
    }
    // Nobody was interrupted, so nothing is repeated.
    setup.assert_published_once().await;

    // Kafka is ahead of the checkpoint, and the other mode goes by Kafka as well.
    setup.append(200).await;
    let mut process = Process::of(&setup).at("publisher-before-checkpoint", 1, What::Die).start();
    process.died().await;
    let progress = setup.progress().last().map(|progress| progress.position.get());
    assert!(progress > Some(setup.checkpoint().await));
    setup.finish_with(Delivery::AtLeastOnce).await;
    setup.assert_published_once().await;

    // The checkpoint is ahead of what consumers were told, and they are told.
    setup.append(60).await;
    let mut process = Process::of(&setup)
        .delivery(Delivery::AtLeastOnce)
        .at("publisher-delivered", 2, What::Die)
        .start();
    process.died().await;
    setup.finish_with(Delivery::ExactlyOnce).await;
    setup.assert_all_published().await;
    let end = setup.store.safe_position().await.unwrap();
    assert_eq!(setup.progress().last().map(|progress| progress.position), Some(end));
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
    let process = Process::of(&setup).delivery(Delivery::AtLeastOnce).start();
    // It is in the middle of its work.
    published_beyond(&setup, 1000).await;
    process.signal("-STOP");
    let stopped_at = setup.checkpoint().await;
    assert!(stopped_at < 15_000, "it was too fast to be paused");

    setup.finish_with(Delivery::AtLeastOnce).await;
    let end = setup.checkpoint().await;
    assert_eq!(end, 15_000);
    process.signal("-CONT");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(setup.checkpoint().await, end);
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
