//! Reading takes no more memory for a long log than for a short one.

use std::{process::Command, time::Instant};

use annals_eventstore::{EventQuery, EventStore};
use futures::TryStreamExt;

use crate::support::{TestDatabase, stream};

/// Fills the log past the store: one stream of so many events of some 300 bytes.
async fn fill(database: &TestDatabase, events: i64) {
    let client = database.client().await;
    let sql = format!(
        "insert into annals.streams (category, key, version) values ('thing', 'a', {events});
         insert into annals.events
         select n, 1, n, gen_random_uuid(), 'happened', 1, timestamptz '2020-01-01', null,
             json_build_object('text', repeat('x', 300)), null
         from generate_series(1, {events}) n;
         select setval('annals.positions', {events});
         analyze annals.events"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// Not a test: what [`peak`] runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_process() {
    let Ok(url) = std::env::var("READ_STORE") else { return };
    let expected: usize = std::env::var("READ_EVENTS").unwrap().parse().unwrap();
    let store = EventStore::connect(&url).await.unwrap();
    let log = EventQuery::log();
    for query in [log.clone(), log.backward(), EventQuery::stream(&stream("a"))] {
        let mut events = std::pin::pin!(store.read(query));
        let mut read = 0;
        while events.try_next().await.unwrap().is_some() {
            read += 1;
        }
        assert_eq!(read, expected);
    }
}

/// The most memory that a process took that reads so many events, in megabytes.
async fn peak(events: i64) -> u64 {
    let database = TestDatabase::create().await;
    drop(database.store().await);
    fill(&database, events).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "constant_memory::reading_process", "--nocapture"])
        .env("READ_STORE", database.url())
        .env("READ_EVENTS", events.to_string())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let mut peak = 0;
    loop {
        // The kernel keeps the peak, but forgets it with the process.
        if let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", child.id()))
            && let Some(line) = status.lines().find(|line| line.starts_with("VmHWM:"))
        {
            peak = line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024;
        }
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            println!("{events} events in {:?}, at most {peak} MB", started.elapsed());
            return peak;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_the_events_take_the_same_memory() {
    let (short, long) = (peak(20_000).await, peak(200_000).await);
    // All at once, these would be more than 60 MB more.
    assert!(short > 0 && long < short + 16, "{short} MB, then {long} MB");
}
