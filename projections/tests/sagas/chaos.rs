//! Everything at once: processes that are killed at random moments, connections that break, services that fail.

use std::{sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    booking::{TripEvent, assert_settled, request, tell},
    processes::{WorkerProcess, at_random},
    support::{Running, Scene, database::kill, eventually, worker},
};

/// Printed, so that a failure can be looked into.
fn seeded() -> StdRng {
    let seed = rand::random();
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

async fn all_have_ended(scene: &Scene, count: usize) {
    let sql = "select coalesce(json_agg(s), '[]')::text from annals.sagas s
               where status not in ('completed', 'compensated')";
    let all = "select count(*) from annals.sagas";
    let last = std::sync::Mutex::new(String::new());
    let ended = eventually("all have ended", || async {
        let left: String = crate::support::database::value(&scene.client, sql).await;
        let is_over = left == "[]" && scene.count(all).await == count as i64;
        // So that a failure says which.
        let mut last = last.lock().unwrap();
        if *last != left {
            println!("not ended: {left}");
            *last = left;
        }
        is_over
    });
    ended.await;
}

/// Requests trips while something goes on, and cancels some of them.
async fn load(scene: &Scene, rng: &mut StdRng, keys: &mut Vec<String>) {
    for _ in 0..8 {
        let key = format!("trip {}", keys.len());
        let deadline_ms = rng.random_ratio(1, 6).then(|| rng.random_range(1..2000));
        tell(&scene.store, &key, TripEvent::Requested { deadline_ms }).await;
        if rng.random_ratio(1, 8) {
            tell(&scene.store, &key, TripEvent::Cancelled).await;
        }
        keys.push(key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_killed_at_random_moments() {
    let (scene, mut rng) = (Scene::new().await, seeded());
    let mut keys = Vec::new();
    for _ in 0..8 {
        let process = WorkerProcess::start(&scene, "fails at random");
        load(&scene, &mut rng, &mut keys).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..1200))).await;
        process.signal("-KILL");
    }
    let services =
        scene.services().mood(|call, attempt| at_random(call, attempt.id, attempt.attempt));
    let running = Running::start(worker(&scene.store, services));
    all_have_ended(&scene, keys.len()).await;
    let booked = assert_settled(&scene.client, &keys).await;
    println!("{booked} of {} are booked", keys.len());
    assert!(booked > 0 && booked < keys.len());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_dropped_and_connections_broken_at_random_moments() {
    let (scene, mut rng) = (Scene::new().await, seeded());
    let mut keys = Vec::new();
    for _ in 0..10 {
        let store = scene.database.store_as("to be broken").await;
        let client = Arc::new(scene.database.client().await);
        let services = crate::booking::Services::new(&store, &client)
            .mood(|call, attempt| at_random(call, attempt.id, attempt.attempt));
        let running = Running::start(worker(&store, services));
        load(&scene, &mut rng, &mut keys).await;
        for _ in 0..rng.random_range(0..4) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..150))).await;
            kill(&scene.client, "to be broken").await;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..300))).await;
        running.abort().await;
    }
    let running = Running::start(worker(&scene.store, scene.services()));
    request(&scene.store, "the last one").await;
    keys.push("the last one".to_owned());
    all_have_ended(&scene, keys.len()).await;
    assert_settled(&scene.client, &keys).await;
    running.stop().await;
}
