//! The calls of sagas: done once, in order, tried again, undone in reverse.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use annals_projections::{
    control,
    saga::{Instance, Progress, SagaStatus},
};
use uuid::Uuid;

use crate::{
    booking::{Booking, Call, Mood, assert_settled, request},
    support::{Running, Scene, eventually, worker},
};

/// What was called, in its order: the kind and the step.
async fn called(scene: &Scene) -> Vec<String> {
    let sql = "select kind || ' ' || step from calls order by number";
    scene.client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trip_is_booked() {
    let scene = Scene::new().await;
    let running = Running::start(worker(&scene.store, scene.services()));
    request(&scene.store, "a").await;
    scene.reaches("a", SagaStatus::Completed).await;
    assert_eq!(called(&scene).await, ["book flight", "book hotel", "book car", "confirm confirm"]);
    assert_eq!(assert_settled(&scene.client, &["a".into()]).await, 1);
    // Its stream says so, as that of any aggregate.
    let saga = scene.store.load::<Instance<Booking>>("a").await.unwrap().unwrap().state;
    assert_eq!(saga.status(), SagaStatus::Completed);
    assert_eq!(saga.done().collect::<Vec<_>>(), ["flight", "hotel", "car", "confirm"]);
    let status = control::status(&scene.store).await.unwrap();
    assert_eq!((&*status[0].name, status[0].kind), ("booking", control::Kind::Saga));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_booked_is_cancelled_in_reverse() {
    let scene = Scene::new().await;
    let services = scene.services().mood(|call, attempt| match (call, &*attempt.step) {
        (Call::Book, "car") => Mood::Refuses,
        _ => Mood::Fine,
    });
    let running = Running::start(worker(&scene.store, services));
    request(&scene.store, "a").await;
    scene.reaches("a", SagaStatus::Compensated).await;
    assert_eq!(
        called(&scene).await,
        ["book flight", "book hotel", "book car", "cancel hotel", "cancel flight"]
    );
    assert_settled(&scene.client, &["a".into()]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_under_the_same_id() {
    let scene = Scene::new().await;
    let services = scene.services().mood(|_, attempt| match (&*attempt.step, attempt.attempt) {
        ("flight", 1) | ("confirm", 1) => Mood::FailsAfter,
        ("flight", 2) => Mood::Panics,
        ("flight", 3) => Mood::FailsBefore,
        ("hotel", 1) => Mood::Stalls,
        _ => Mood::Fine,
    });
    let running = Running::start(worker(&scene.store, services));
    request(&scene.store, "a").await;
    scene.reaches("a", SagaStatus::Completed).await;
    let sql = "select count(*)::bigint from calls group by id order by min(number)";
    let rows = scene.client.query(sql, &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [4, 2, 1, 2]);
    assert_settled(&scene.client, &["a".into()]).await;
    let reasons: Vec<_> = scene
        .progress("a")
        .await
        .into_iter()
        .filter_map(|progress| {
            let Progress::Failed { reason, .. } = progress else { return None };
            Some(reason)
        })
        .collect();
    let expected = [
        "the connection broke",
        "it panicked: the client of the service panics",
        "the service fails",
        "no answer within 8s",
        "the connection broke",
    ];
    assert_eq!(reasons, expected);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_done_is_undone_by_its_id() {
    let scene = Scene::new().await;
    // It books, and its answers are lost.
    let services = scene.services().mood(|call, attempt| match (call, &*attempt.step) {
        (Call::Book, "hotel") => Mood::FailsAfter,
        _ => Mood::Fine,
    });
    let running = Running::start(worker(&scene.store, services));
    request(&scene.store, "a").await;
    scene.reaches("a", SagaStatus::Compensated).await;
    let id = "select distinct id from calls where kind = 'book' and step = 'hotel'";
    let undone = "select undoes from calls where kind = 'cancel' and step = 'hotel'";
    let id: Uuid = scene.client.query_one(id, &[]).await.unwrap().get(0);
    let undone: Uuid = scene.client.query_one(undone, &[]).await.unwrap().get(0);
    assert_eq!(undone, id);
    assert_settled(&scene.client, &["a".into()]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_off_counts_as_no_attempt() {
    let scene = Scene::new().await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    // More often than there are attempts.
    let services = scene.services().mood(move |_, attempt| {
        let first = attempt.step == "flight";
        let later = first && count.fetch_add(1, Ordering::Relaxed) < 10;
        if later { Mood::Later } else { Mood::Fine }
    });
    let running = Running::start(worker(&scene.store, services));
    request(&scene.store, "a").await;
    scene.reaches("a", SagaStatus::Completed).await;
    assert_eq!(asked.load(Ordering::Relaxed), 11);
    assert_eq!(scene.count("select max(attempt)::bigint from calls").await, 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_cannot_take_an_answer_holds_up_no_other() {
    let scene = Scene::new().await;
    let raving = Arc::new(AtomicU32::new(1));
    let mood = raving.clone();
    let services = scene.services().mood(move |_, attempt| {
        let raves = attempt.saga.key() == "a" && mood.load(Ordering::Relaxed) == 1;
        if raves { Mood::Raves } else { Mood::Fine }
    });
    let running = Running::start(worker(&scene.store, services));
    request(&scene.store, "a").await;
    scene.reaches("a", SagaStatus::Stuck).await;
    request(&scene.store, "b").await;
    scene.reaches("b", SagaStatus::Completed).await;
    let listed = annals_projections::saga::control::list(&scene.store, None).await.unwrap();
    assert_eq!(listed.len(), 1);
    let reason = listed[0].reason.as_ref().unwrap();
    assert!(reason.contains("panicked"), "{reason}");
    // The code was mended:
    raving.store(0, Ordering::Relaxed);
    let retried =
        annals_projections::saga::control::retry(&scene.store, "booking", "a", "mended").await;
    assert!(retried.unwrap());
    scene.reaches("a", SagaStatus::Completed).await;
    assert_settled(&scene.client, &["a".into(), "b".into()]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_the_same_time_and_each_in_its_order() {
    let scene = Scene::new().await;
    let running = Running::start(worker(&scene.store, scene.services()));
    let keys: Vec<_> = (0..60).map(|number| format!("trip {number}")).collect();
    for key in &keys {
        request(&scene.store, key).await;
    }
    eventually("all are booked", || async {
        scene.count("select count(*) from annals.sagas where status = 'completed'").await == 60
    })
    .await;
    assert_eq!(assert_settled(&scene.client, &keys).await, 60);
    // Of one saga, one call began when the one before it had ended.
    let disorder = scene
        .count(
            "select count(*) from (
                 select array_agg(step order by number) steps from calls group by saga) s
             where steps <> '{flight,hotel,car,confirm}'",
        )
        .await;
    assert_eq!(disorder, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_saga_makes_no_calls() {
    let scene = Scene::new().await;
    let running = Running::start(worker(&scene.store, scene.services()));
    request(&scene.store, "a").await;
    scene.reaches("a", SagaStatus::Completed).await;
    assert!(control::pause(&scene.store, "booking", "a rehearsal").await.unwrap());
    let due = "update annals.sagas set status = 'running', call_due = clock_timestamp()";
    scene.client.execute(due, &[]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Whoever takes the call finds that it was made, and puts the row right.
    let still_due = "select count(*) from annals.sagas where status = 'running' and attempts = 0
        and call_due <= clock_timestamp()";
    assert_eq!(scene.count(still_due).await, 1);
    assert!(control::resume(&scene.store, "booking").await.unwrap());
    let put_right = "select count(*) from annals.sagas where call_due is null";
    eventually("it is looked at again", async || scene.count(put_right).await == 1).await;
    running.stop().await;
}
