//! What an operator can do about sagas.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use annals_projections::saga::{Progress, SagaStatus, control};

use crate::{
    booking::{Call, Mood, Services, assert_settled, request},
    support::{Running, Scene, worker},
};

/// Services that refuse one kind of call of one step until told otherwise.
fn refusing(scene: &Scene, refused: Call, step: &'static str) -> (Services, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let same = move |call: &Call| match (call, &refused) {
        (Call::Cancel { .. }, Call::Cancel { .. }) => true,
        (call, refused) => call == refused,
    };
    let services = scene.services().mood(move |call, attempt| {
        // The car is never to be had, where something is to be undone.
        let gone = step != "confirm" && *call == Call::Book && attempt.step == "car";
        let refuses = same(call) && attempt.step == step && is_broken.load(Ordering::Relaxed);
        if gone || refuses { Mood::Refuses } else { Mood::Fine }
    });
    (services, broken)
}

fn cancel() -> Call {
    Call::Cancel { reference: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_saga_is_seen_and_tried_again() {
    let scene = Scene::new().await;
    let (services, broken) = refusing(&scene, cancel(), "hotel");
    let running = Running::start(worker(&scene.store, services));
    request(&scene.store, "a").await;
    scene.reaches("a", SagaStatus::Stuck).await;
    let listed = control::list(&scene.store, Some("booking")).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&*listed[0].key, listed[0].step.as_deref()), ("a", Some("hotel")));
    assert_eq!(
        listed[0].reason.as_deref(),
        Some("step hotel could not be undone: it was refused: the service refuses")
    );
    assert!(control::list(&scene.store, Some("other")).await.unwrap().is_empty());
    // It stays stuck as long as nothing is mended, and says so again.
    assert!(control::retry(&scene.store, "booking", "a", "let us see").await.unwrap());
    crate::support::eventually("it is stuck again", || async {
        let stuck = |one: &&Progress| matches!(one, Progress::Stuck { .. });
        scene.progress("a").await.iter().filter(stuck).count() == 2
    })
    .await;
    broken.store(false, Ordering::Relaxed);
    assert!(control::retry(&scene.store, "booking", "a", "the hotel is back").await.unwrap());
    scene.reaches("a", SagaStatus::Compensated).await;
    assert_settled(&scene.client, &["a".into()]).await;
    let whys: Vec<_> = scene
        .progress("a")
        .await
        .into_iter()
        .filter_map(|progress| {
            let Progress::Retried { why } = progress else { return None };
            Some(why)
        })
        .collect();
    assert_eq!(whys, ["let us see", "the hotel is back"]);
    // There is nothing more to be done.
    assert!(!control::retry(&scene.store, "booking", "a", "again").await.unwrap());
    assert!(!control::abort(&scene.store, "booking", "a", "again").await.unwrap());
    assert!(!control::retry(&scene.store, "booking", "nobody", "again").await.unwrap());
    assert!(control::show(&scene.store, "booking", "nobody").await.unwrap().is_none());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_by_hand_is_skipped() {
    let scene = Scene::new().await;
    let (services, _) = refusing(&scene, cancel(), "hotel");
    let running = Running::start(worker(&scene.store, services));
    request(&scene.store, "a").await;
    scene.reaches("a", SagaStatus::Stuck).await;
    assert!(control::skip(&scene.store, "booking", "a", "I called the hotel").await.unwrap());
    scene.reaches("a", SagaStatus::Compensated).await;
    let left = "select string_agg(step, ',') from bookings where state = 'booked'";
    let left: Option<String> = scene.client.query_one(left, &[]).await.unwrap().get(0);
    assert_eq!(left.as_deref(), Some("hotel"), "all but what was skipped is undone");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_stuck_on_its_way_can_go_back() {
    let scene = Scene::new().await;
    let (services, _) = refusing(&scene, Call::Confirm, "confirm");
    let running = Running::start(worker(&scene.store, services));
    request(&scene.store, "a").await;
    scene.reaches("a", SagaStatus::Stuck).await;
    assert!(control::compensate(&scene.store, "booking", "a", "give up").await.unwrap());
    scene.reaches("a", SagaStatus::Compensated).await;
    assert_settled(&scene.client, &["a".into()]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_aborted_stays_as_it_is() {
    let scene = Scene::new().await;
    let (services, _) = refusing(&scene, Call::Confirm, "confirm");
    let running = Running::start(worker(&scene.store, services));
    request(&scene.store, "a").await;
    scene.reaches("a", SagaStatus::Stuck).await;
    assert!(control::abort(&scene.store, "booking", "a", "a test booking").await.unwrap());
    scene.reaches("a", SagaStatus::Aborted).await;
    assert_eq!(scene.count("select count(*) from bookings where state = 'booked'").await, 3);
    let (summary, _) = control::show(&scene.store, "booking", "a").await.unwrap().unwrap();
    assert_eq!(summary.reason.as_deref(), Some("a test booking"));
    assert!(control::list(&scene.store, None).await.unwrap().is_empty());
    running.stop().await;
}
