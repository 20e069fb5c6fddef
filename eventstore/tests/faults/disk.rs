//! The server's disk is full.

use std::time::Duration;

use annals_eventstore::{Append, Error, EventStore, ExpectedVersion, NewEvent, Payload};

use tokio_postgres::NoTls;

use crate::{
    SmallDisk,
    follower::Follower,
    skipped,
    support::{
        TestDatabase, assert_sound, eventually, in_time, log, server::PrivateServer, stream,
    },
};

/// An event that takes much room; a database compresses what repeats.
fn large() -> NewEvent {
    let noise: String = (0..4000).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect();
    NewEvent::raw("happened", 1, Payload::from_json(format!(r#"{{"noise":"{noise}"}}"#)).unwrap())
}

/// Appends until that fails; then frees room, and appends again.
async fn fill(server: &mut PrivateServer, disk: &SmallDisk<'_>) -> Vec<(Append, Error)> {
    let database = TestDatabase::create_on(server.config()).await;
    let store = database.store().await;
    let follower = Follower::start(store.clone());
    let mut acknowledged = Vec::new();
    let mut failed = Vec::new();
    let append = |key: &str| {
        let two = [large(), large()];
        Append::to(stream("a"), ExpectedVersion::Any, two).idempotency_key(key)
    };
    let after = append("after");
    disk.fill(2048);
    let mut number = 0;
    while failed.len() < 10 {
        let append = append(&number.to_string());
        match store.append(append.clone()).await {
            Ok(appended) => acknowledged.push((number, appended)),
            Err(error) => {
                // Not its own fault, and it may pass.
                assert!(error.is_retryable(), "{error:?}");
                failed.push((append, error));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        number += 1;
        assert!(number < 20_000, "the disk is not full");
    }
    assert!(acknowledged.len() > 10, "the test tests nothing");

    disk.free();
    // A server that could not even recover has ended, and is started again by whoever watches over it.
    if tokio::time::timeout(Duration::from_secs(30), answers(server)).await.is_err() {
        server.restart().await;
    }
    eventually("the store goes on", async || store.append(after.clone()).await.is_ok()).await;
    let again = EventStore::connect(&database.url()).await.unwrap();
    for (append, _) in &failed {
        again.append(append.clone()).await.unwrap();
    }
    let seen = in_time(follower.stop()).await;
    let log = log(&again).await;
    assert_sound(&log);
    assert_eq!(again.verify().run().await.unwrap().findings, []);
    assert!(seen == log, "a reader saw each event once, in order");
    for (number, appended) in &acknowledged {
        let at = |position| log.iter().filter(|event| event.position == position).count();
        assert_eq!(at(appended.first_position), 1, "append {number} was acknowledged");
        assert_eq!(at(appended.last_position), 1, "append {number} was acknowledged");
    }
    assert_eq!(log.len(), 2 * (acknowledged.len() + failed.len() + 1), "each append once");
    failed
}

/// Returns once the server lets somebody in.
async fn answers(server: &PrivateServer) {
    while server.config().connect(NoTls).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn states(failed: &[(Append, Error)]) -> Vec<String> {
    let state = |error: &Error| match error {
        Error::Database { source, .. } => {
            let text = format!("{source:?}");
            if text.contains("53100") { "disk full".to_owned() } else { text }
        }
        Error::Indeterminate { .. } => "indeterminate".to_owned(),
        other => other.to_string(),
    };
    failed.iter().map(|(_, error)| state(error)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_tables() {
    let mut server = PrivateServer::create().await;
    let tables = server.data().join("base");
    let disk = match SmallDisk::mount(&tables, 96) {
        Ok(disk) => disk,
        Err(reason) => return skipped("disk::of_the_tables", &reason),
    };
    server.start_with(&["autovacuum=off".to_owned()]).await;
    let failed = fill(&mut server, &disk).await;
    let states = states(&failed);
    println!("{states:?}");
    assert!(states.iter().any(|state| state.contains("disk full")), "{states:?}");
    server.stop();
}

/// Without room for its log the server ends all connections and starts anew; or it ends, and is started
/// by whoever watches over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_servers_log() {
    let mut server = PrivateServer::create().await;
    let wal = server.data().join("pg_wal");
    let disk = match SmallDisk::mount(&wal, 64) {
        Ok(disk) => disk,
        Err(reason) => return skipped("disk::of_the_servers_log", &reason),
    };
    let settings = ["autovacuum=off", "min_wal_size=32MB", "max_wal_size=32MB", "wal_recycle=off"];
    server.start_with(&settings.map(str::to_owned)).await;
    let failed = fill(&mut server, &disk).await;
    println!("{:?}", states(&failed));
    server.stop();
}
