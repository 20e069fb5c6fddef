//! Events that sagas hear: each once, however often it is brought.

use annals_projections::{
    control as projections,
    saga::{Progress, SagaStatus},
};

use crate::{
    booking::{Mood, TripEvent, assert_settled, request, tell},
    support::{Running, Scene, eventually, worker},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_brought_again_changes_nothing() {
    let scene = Scene::new().await;
    // It waits for its hotel for ever, so that it could hear more.
    let services = || {
        scene.services().mood(|_, attempt| match &*attempt.step {
            "hotel" => Mood::Later,
            _ => Mood::Fine,
        })
    };
    let running = Running::start(worker(&scene.store, services()));
    request(&scene.store, "a").await;
    eventually("the hotel is asked", || async {
        scene.count("select count(*) from calls where step = 'hotel'").await > 0
    })
    .await;
    running.stop().await;
    let before = scene.progress("a").await;
    // As after a restore of the read side: all is read again from the beginning.
    let again = "update annals.checkpoints set position = 0 where name = 'projection:booking'";
    assert_eq!(scene.client.execute(again, &[]).await.unwrap(), 1);
    let running = Running::start(worker(&scene.store, services()));
    request(&scene.store, "b").await;
    eventually("b is at its hotel too", || async {
        let sql = "select count(*) from calls where step = 'hotel' and saga = 'b'";
        scene.count(sql).await > 0
    })
    .await;
    assert_eq!(scene.progress("a").await, before);
    assert_eq!(scene.count("select count(*) from calls where step = 'flight'").await, 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_everything_again_makes_no_calls() {
    let scene = Scene::new().await;
    let running = Running::start(worker(&scene.store, scene.services()));
    request(&scene.store, "a").await;
    scene.reaches("a", SagaStatus::Completed).await;
    running.stop().await;
    let calls = scene.count("select count(*) from calls").await;
    let again = "update annals.checkpoints set position = 0 where name = 'projection:booking'";
    scene.client.execute(again, &[]).await.unwrap();
    let running = Running::start(worker(&scene.store, scene.services()));
    eventually("all is read", || async {
        projections::status(&scene.store).await.unwrap()[0].behind == 0
    })
    .await;
    assert_eq!(scene.count("select count(*) from calls").await, calls);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_moves_a_saga_that_is_on_its_way() {
    let scene = Scene::new().await;
    let services = scene.services().mood(|_, attempt| match (&*attempt.step, attempt.attempt) {
        ("hotel", _) if attempt.undoes.is_none() => Mood::Later,
        _ => Mood::Fine,
    });
    let running = Running::start(worker(&scene.store, services));
    request(&scene.store, "a").await;
    eventually("the hotel is asked", || async {
        scene.count("select count(*) from calls where step = 'hotel'").await > 0
    })
    .await;
    tell(&scene.store, "a", TripEvent::Cancelled).await;
    scene.reaches("a", SagaStatus::Compensated).await;
    assert_settled(&scene.client, &["a".into()]).await;
    // What comes later is not heard.
    request(&scene.store, "a").await;
    request(&scene.store, "b").await;
    eventually("all is read", || async {
        projections::status(&scene.store).await.unwrap()[0].behind == 0
    })
    .await;
    let received = |one: &&Progress| matches!(one, Progress::Received { .. });
    assert_eq!(scene.progress("a").await.iter().filter(received).count(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_in_one_batch() {
    let scene = Scene::new().await;
    let keys: Vec<_> = (0..300).map(|number| format!("trip {}", number % 150)).collect();
    for key in &keys[..150] {
        request(&scene.store, key).await;
    }
    for key in &keys[150..] {
        tell(&scene.store, key, TripEvent::Cancelled).await;
    }
    // All of it is there before anybody works: nothing was called when it was cancelled.
    let running = Running::start(worker(&scene.store, scene.services()));
    eventually("all have ended", || async {
        let sql = "select count(*) from annals.sagas where status in ('completed', 'compensated')";
        scene.count(sql).await == 150
    })
    .await;
    assert_settled(&scene.client, &keys[..150]).await;
    running.stop().await;
}
