//! Timers: they go off once, also those whose time came while nobody was there.

use std::time::Duration;

use annals_projections::saga::{Progress, SagaStatus};

use crate::{
    booking::{Call, Mood, TripEvent, assert_settled, tell},
    support::{Running, Scene, worker},
};

async fn request_within(scene: &Scene, trip: &str, milliseconds: u64) {
    let requested = TripEvent::Requested { deadline_ms: Some(milliseconds) };
    tell(&scene.store, trip, requested).await;
}

fn fired(progress: &[Progress]) -> usize {
    progress.iter().filter(|one| matches!(one, Progress::TimerFired { .. })).count()
}

/// The hotel never has an answer.
fn stalls(call: &Call, step: &str) -> Mood {
    if *call == Call::Book && step == "hotel" { Mood::Later } else { Mood::Fine }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_what_takes_too_long() {
    let scene = Scene::new().await;
    let services = scene.services().mood(|call, attempt| stalls(call, &attempt.step));
    let running = Running::start(worker(&scene.store, services));
    request_within(&scene, "a", 400).await;
    scene.reaches("a", SagaStatus::Compensated).await;
    assert_eq!(fired(&scene.progress("a").await), 1);
    assert_settled(&scene.client, &["a".into()]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_whose_time_came_while_nobody_was_there() {
    let scene = Scene::new().await;
    let services = scene.services().mood(|call, attempt| stalls(call, &attempt.step));
    let running = Running::start(worker(&scene.store, services.clone()));
    request_within(&scene, "a", 8000).await;
    scene.reaches("a", SagaStatus::Running).await;
    running.abort().await;
    tokio::time::sleep(Duration::from_millis(8500)).await;
    assert_eq!(scene.status("a").await, Some(SagaStatus::Running), "nobody is there");
    // Two, who both see that it is due.
    let both = [(); 2].map(|()| Running::start(worker(&scene.store, services.clone())));
    scene.reaches("a", SagaStatus::Compensated).await;
    assert_eq!(fired(&scene.progress("a").await), 1);
    assert_settled(&scene.client, &["a".into()]).await;
    for running in both {
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_of_a_saga_that_has_ended_does_not_go_off() {
    let scene = Scene::new().await;
    let running = Running::start(worker(&scene.store, scene.services()));
    request_within(&scene, "a", 8000).await;
    scene.reaches("a", SagaStatus::Completed).await;
    assert_eq!(scene.count("select count(look_at) from annals.sagas").await, 0);
    tokio::time::sleep(Duration::from_millis(8500)).await;
    assert_eq!(fired(&scene.progress("a").await), 0);
    assert_eq!(scene.status("a").await, Some(SagaStatus::Completed));
    running.stop().await;
}

/// While nothing is due, nobody asks all the time.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_costs_little() {
    let scene = Scene::new().await;
    let running = Running::start(worker(&scene.store, scene.services()));
    request_within(&scene, "a", 3_600_000).await;
    scene.reaches("a", SagaStatus::Completed).await;
    let waits = "update annals.sagas
                 set status = 'running', look_at = clock_timestamp() + interval '1 hour'";
    scene.client.execute(waits, &[]).await.unwrap();
    let scans = "select coalesce(sum(idx_scan + seq_scan), 0)::bigint from pg_stat_user_tables
                 where relname = 'sagas'";
    // Statistics come late.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let before = scene.count(scans).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let after = scene.count(scans).await;
    // Four looks of a few statements each, and what the statistics may be late.
    assert!(after - before < 60, "{} scans in four seconds", after - before);
    running.stop().await;
}
