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

/// Books each time under an id of its own, as somebody does who has not read what it is for.
#[derive(Clone)]
struct Careless(Services);

impl Perform<Booking> for Careless {
    async fn perform(&self, call: &Call, attempt: &Attempt) -> Result<Answer<String>, Cause> {
        let mut attempt = attempt.clone();
        let mut call = call.clone();
        match &mut call {
            Call::Book | Call::Confirm => attempt.id = Uuid::now_v7(),
            // What is undone after attempts that all failed: the reference is not of the id that the saga knows.
            Call::Cancel { reference } => *reference = None,
        }
        self.0.perform(&call, &attempt).await
    }
}

/// Books trips among faults until each of these has been met, and all sagas have ended.
async fn book(
    scene: &Scene,
    faults: &Faults,
    met: &[Fault],
    services: impl Perform<Booking>,
) -> Vec<String> {
    let worker = Worker::new(&faults.store(&scene.store))
        .saga_from::<Booking>(Start::Beginning, Disturbed::new(services, faults))
        .poll_interval(Duration::from_millis(20))
        .lease(lease(2000))
        .stop_within(Duration::from_millis(200));
    let running = Running::start(worker);
    let mut keys = Vec::new();
    while keys.len() < 24 || met.iter().any(|fault| faults.injected(*fault) == 0) {
        for _ in 0..12 {
            keys.push(format!("trip {}", keys.len()));
            request(&scene.store, keys.last().unwrap()).await;
        }
        eventually("all have ended", || async {
            let sql =
                "select count(*) from annals.sagas where status in ('completed', 'compensated')";
            scene.count(sql).await == keys.len() as i64
        })
        .await;
    }
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
    let met = [Fault::LostAnswer, Fault::Repetition, Fault::Failure, Fault::Conflict];
    let keys = book(&scene, &faults, &met, services).await;
    let booked = assert_settled(&scene.client, &keys).await;
    println!("{booked} of {} are booked", keys.len());
}

/// How many rooms, seats and cars are booked more than once for the same trip.
const TWICE: &str = "select count(*) from (
    select from bookings where state = 'booked' group by saga, step having count(*) > 1) twice";

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_do_not_heed_their_ids_are_found_out() {
    let (scene, faults) = (Scene::new().await, faults());
    book(&scene, &faults, &[Fault::LostAnswer], Careless(scene.services())).await;
    assert!(scene.count(TWICE).await > 0, "it tests nothing");
}
