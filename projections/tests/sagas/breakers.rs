//! A service that is down is left alone, and no saga fails for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use annals_eventstore::breaker::{BreakerOptions, CircuitBreaker, CircuitState};
use annals_projections::saga::SagaStatus;

use crate::{
    booking::{Call, Mood, assert_settled, request},
    support::{Running, Scene, eventually, worker},
};

const COOL_DOWN: Duration = Duration::from_millis(400);

fn circuit() -> CircuitBreaker {
    let options = BreakerOptions::default().failures(3).cool_down(COOL_DOWN, COOL_DOWN);
    CircuitBreaker::new("services", options)
}

/// The attempts of a step are spent in less than half a second.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_spends_no_attempts_and_is_probed_by_one_call_at_a_time() {
    let scene = Scene::new().await;
    let down = Arc::new(AtomicBool::new(true));
    let (circuit, is_down) = (circuit(), down.clone());
    let services = scene.services().breaker(&circuit).mood(move |call, _| {
        let fails = is_down.load(Ordering::Relaxed) && *call == Call::Book;
        if fails { Mood::FailsBefore } else { Mood::Fine }
    });
    let running = Running::start(worker(&scene.store, services));
    let keys: Vec<_> = (0..12).map(|number| format!("trip {number}")).collect();
    for key in &keys {
        request(&scene.store, key).await;
    }
    let calls = async || scene.count("select count(*) from calls").await;
    eventually("the breaker opens", || async { circuit.state() != CircuitState::Closed }).await;
    // What was under way when it opened has come to its end with the second trial.
    let opened = calls().await;
    eventually("it is tried again", || async { calls().await >= opened + 2 }).await;
    let (since, before) = (Instant::now(), calls().await);
    eventually("and again", || async { calls().await >= before + 5 }).await;
    let (trials, time) = (calls().await - before, since.elapsed());
    let most = time.as_millis() / COOL_DOWN.as_millis() + 1;
    assert!(trials as u128 <= most, "{trials} calls in {time:?}");
    let ended = "select count(*) from annals.sagas where status <> 'running'";
    assert_eq!(scene.count(ended).await, 0, "an outage is no reason to give up");

    down.store(false, Ordering::Relaxed);
    for key in &keys {
        scene.reaches(key, SagaStatus::Completed).await;
    }
    assert_eq!(assert_settled(&scene.client, &keys).await, keys.len());
    assert_eq!(circuit.state(), CircuitState::Closed);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_hangs_is_down_and_one_that_refuses_is_not() {
    let scene = Scene::new().await;
    let circuit = circuit();
    let services =
        scene.services().breaker(&circuit).mood(|call, attempt| match (call, attempt.saga.key()) {
            (Call::Book, "refused") => Mood::Refuses,
            (Call::Book, _) => Mood::Stalls,
            _ => Mood::Fine,
        });
    let running = Running::start(worker(&scene.store, services));
    request(&scene.store, "refused").await;
    scene.reaches("refused", SagaStatus::Compensated).await;
    assert_eq!(circuit.state(), CircuitState::Closed);
    for key in ["a", "b", "c"] {
        request(&scene.store, key).await;
    }
    eventually("it opens", || async { circuit.state() != CircuitState::Closed }).await;
    running.stop().await;
}
