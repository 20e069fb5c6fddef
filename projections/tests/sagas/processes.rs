//! Workers in processes of their own, which are killed and paused.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use annals_eventstore::EventStore;
use annals_projections::saga::{Progress, SagaStatus};

use crate::{
    booking::{Call, Mood, Services, assert_settled, one_of, request},
    support::{Running, Scene, eventually, lease, worker},
};

/// Where this is set, this program is a worker on the store with that URL, in this mood.
const URL: &str = "ANNALS_TEST_SAGA_URL";
const MOOD: &str = "ANNALS_TEST_SAGA_MOOD";

/// Not a test: what the tests below start in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn worker_process() {
    let Ok(url) = std::env::var(URL) else { return };
    let store = EventStore::connect(&url).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let mood = std::env::var(MOOD).unwrap();
    let services =
        Services::new(&store, &Arc::new(client)).known_as("process").mood(move |call, attempt| {
            let first = attempt.saga.key() == "a"
                && attempt.step == "hotel"
                && attempt.attempt == 1
                && *call == Call::Book;
            match &*mood {
                "kills before" if first => Mood::KillsBefore,
                "kills after" if first => Mood::KillsAfter,
                "pauses after" if first => Mood::PausesAfter,
                "fails at random" => at_random(call, attempt.id, attempt.attempt),
                _ => Mood::Fine,
            }
        });
    worker(&store, services).run().await.unwrap();
}

/// Faults that are the same in every process. What is undone, and what must be done, comes through in the end.
pub(crate) fn at_random(call: &Call, id: uuid::Uuid, attempt: u32) -> Mood {
    if *call == Call::Book && one_of(11, id) {
        return Mood::Refuses;
    }
    match id.as_bytes()[14].wrapping_add((attempt as u8).wrapping_mul(37)) % 12 {
        0 => Mood::FailsBefore,
        1 => Mood::FailsAfter,
        2 => Mood::Panics,
        3 if *call == Call::Book && rand::random() => Mood::Later,
        _ => Mood::Fine,
    }
}

pub(crate) struct WorkerProcess(Child);

impl WorkerProcess {
    pub(crate) fn start(scene: &Scene, mood: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::worker_process", "--nocapture"])
            .env(URL, scene.database.url_as("worker process"))
            .env(MOOD, mood)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(status.success(), "kill {signal} {id}");
    }

    fn state(&self) -> String {
        let id = self.0.id().to_string();
        let state = Command::new("ps").args(["-o", "state=", "-p", &id]).output().unwrap();
        String::from_utf8_lossy(&state.stdout).trim().to_owned()
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // It ends also when it is paused; one that has ended before needs no ending.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_and_after_a_call_had_its_effect() {
    for mood in ["kills before", "kills after"] {
        let scene = Scene::new().await;
        let mut process = WorkerProcess::start(&scene, mood);
        request(&scene.store, "a").await;
        let killed = std::cell::RefCell::new(&mut process);
        eventually("it kills itself", || {
            let ended = killed.borrow_mut().has_ended();
            async move { ended }
        })
        .await;
        let running = Running::start(worker(&scene.store, scene.services()));
        scene.reaches("a", SagaStatus::Completed).await;
        assert_eq!(assert_settled(&scene.client, &["a".into()]).await, 1, "{mood}");
        let hotel = "select string_agg(worker || attempt, ' ' order by number)
                     from calls where step = 'hotel'";
        let hotel: String = scene.client.query_one(hotel, &[]).await.unwrap().get(0);
        assert_eq!(hotel, "process1 worker2", "{mood}");
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_paused_changes_nothing_when_it_wakes_up() {
    let scene = Scene::new().await;
    let process = WorkerProcess::start(&scene, "pauses after");
    request(&scene.store, "a").await;
    eventually("it pauses itself", || async { process.state().starts_with('T') }).await;
    let running = Running::start(worker(&scene.store, scene.services()));
    scene.reaches("a", SagaStatus::Completed).await;
    let before = scene.progress("a").await;
    let calls = scene.count("select count(*) from calls").await;
    process.signal("-CONT");
    // It works again, and has told by then what it knows.
    running.stop().await;
    request(&scene.store, "b").await;
    scene.reaches("b", SagaStatus::Completed).await;
    assert_eq!(scene.progress("a").await, before);
    let answers = |one: &&Progress| matches!(one, Progress::Answered { .. });
    assert_eq!(before.iter().filter(answers).count(), 4);
    let of_a = scene.count("select count(*) from calls where saga = 'a'").await;
    assert_eq!(of_a, calls);
    assert_settled(&scene.client, &["a".into(), "b".into()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_calls() {
    let scene = Scene::new().await;
    let workers = ["one", "two"].map(|name| {
        let services = scene.services().known_as(name).one_at_a_time();
        Running::start(worker(&scene.store, services).lease(lease(20_000)))
    });
    let keys: Vec<_> = (0..40).map(|number| format!("trip {number}")).collect();
    for key in &keys {
        request(&scene.store, key).await;
    }
    eventually("all are booked", || async {
        scene.count("select count(*) from annals.sagas where status = 'completed'").await == 40
    })
    .await;
    assert_eq!(assert_settled(&scene.client, &keys).await, 40);
    assert_eq!(scene.count("select count(distinct worker) from calls").await, 2);
    // Nobody did what another was at.
    assert_eq!(scene.count("select count(*) from calls").await, 160);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_told_to_stop_hands_its_calls_over() {
    let scene = Scene::new().await;
    let stalls = scene.services().known_as("one").mood(|_, attempt| match &*attempt.step {
        "hotel" => Mood::Stalls,
        _ => Mood::Fine,
    });
    let first = Running::start(worker(&scene.store, stalls).lease(lease(60_000)));
    request(&scene.store, "a").await;
    eventually("the hotel is asked", || async {
        scene.count("select count(*) from calls where step = 'hotel'").await > 0
    })
    .await;
    first.stop().await;
    // Without waiting for the end of a claim.
    let second = Running::start(worker(&scene.store, scene.services()));
    let done = scene.reaches("a", SagaStatus::Completed);
    tokio::time::timeout(Duration::from_secs(30), done).await.expect("the claim was given back");
    second.stop().await;
}
