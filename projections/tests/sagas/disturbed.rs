//! Under the kit of faults: sagas come out whole or undone, and calls that do not heed their ids are found out.

use std::time::Duration;

use annals_eventstore::testkit::faults::{Fault, Faults, Seed};
use annals_projections::{
    Cause, Start, Worker,
    saga::{Answer, Attempt, Perform},
    testkit::faults::Disturbed,
};
use uuid::Uuid;

use crate::{
    booking::{Booking, Call, Mood, Services, assert_settled, one_of, request},
    support::{Running, Scene, eventually, lease},
};

/// Makes each call under an id of its own, as somebody does who has not read what it is for.
#[derive(Clone)]
struct Careless(Services);

impl Perform<Booking> for Careless {
    async fn perform(&self, call: &Call, attempt: &Attempt) -> Result<Answer<String>, Cause> {
        let mut attempt = attempt.clone();
        attempt.id = Uuid::now_v7();
        self.0.perform(call, &attempt).await
    }
}

/// Books trips among faults, until all sagas have ended.
async fn book(scene: &Scene, faults: &Faults, services: impl Perform<Booking>) -> Vec<String> {
    let worker = Worker::new(&faults.store(&scene.store))
        .saga_from::<Booking>(Start::Beginning, Disturbed::new(services, faults))
        .poll_interval(Duration::from_millis(20))
        .lease(lease(2000))
        .stop_within(Duration::from_millis(200));
    let running = Running::start(worker);
    let keys: Vec<_> = (0..24).map(|number| format!("trip {number}")).collect();
    for key in &keys {
        request(&scene.store, key).await;
    }
    eventually("all have ended", || async {
        let sql = "select count(*) from annals.sagas where status in ('completed', 'compensated')";
        scene.count(sql).await == keys.len() as i64
    })
    .await;
    running.stop().await;
    keys
}

fn faults() -> Faults {
    Faults::new(Seed::any())
        .rate(Fault::Failure, 0.05)
        .rate(Fault::Conflict, 0.05)
        .rate(Fault::LostAnswer, 0.15)
        .rate(Fault::Repetition, 0.1)
        .rate(Fault::Delay, 0.2)
}

#[tokio::test(flavor = "multi_thread")]
async fn sagas_come_out_whole_or_undone() {
    let (scene, faults) = (Scene::new().await, faults());
    let services = scene.services().mood(|call, attempt| match call {
        Call::Book if one_of(11, attempt.id) => Mood::Refuses,
        _ => Mood::Fine,
    });
    let keys = book(&scene, &faults, services).await;
    let booked = assert_settled(&scene.client, &keys).await;
    println!("{booked} of {} are booked", keys.len());
    for fault in [Fault::LostAnswer, Fault::Repetition, Fault::Failure, Fault::Conflict] {
        assert!(faults.injected(fault) > 0, "it tests nothing: no {fault:?}");
    }
}

/// How many rooms, seats and cars are booked more than once for the same trip.
const TWICE: &str = "select count(*) from (
    select from bookings where state = 'booked' group by saga, step having count(*) > 1) twice";

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_do_not_heed_their_ids_are_found_out() {
    let (scene, faults) = (Scene::new().await, faults());
    book(&scene, &faults, Careless(scene.services())).await;
    assert!(scene.count(TWICE).await > 0, "it tests nothing");
}
