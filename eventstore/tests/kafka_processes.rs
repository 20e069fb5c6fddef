//! The publisher in a process of its own that is killed or paused.
#![cfg(feature = "kafka")]
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod kafka_support;

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use annals_eventstore::EventStore;
use kafka_support::{LEASE, Setup, execute, publisher, random_millis};

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
    publisher.run().await.unwrap();
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

/// Waits until the checkpoint is above a position.
async fn published_beyond(setup: &Setup, position: i64) {
    let start = Instant::now();
    while setup.checkpoint().await <= position {
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
            published_beyond(&setup, setup.checkpoint().await).await;
            tokio::time::sleep(random_millis(0..40)).await;
            drop(process);
        }
    };
    tokio::join!(setup.append(8000), publishing);
    setup.finish().await;
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
    let stopped_at = setup.checkpoint().await;
    assert!(stopped_at < 15_000, "it was too fast to be paused");

    setup.finish().await;
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
