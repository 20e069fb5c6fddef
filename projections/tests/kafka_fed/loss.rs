//! What Kafka has lost is read from the store.

use annals_projections::control::{self, FedBy};

use rand::{SeedableRng, rngs::StdRng};

use crate::{
    relay::Relay,
    support::{
        Running,
        account::{Balance, move_some},
        database::TestDatabase,
        load::{Load, seeded},
        oracle::assert_exact,
    },
};

async fn caught_up_and_stopped(relay: &Relay, database: &TestDatabase) {
    let store = database.store().await;
    let mut running = Running::start(relay.worker::<Balance>(&store));
    running.caught_up::<Balance>(&store).await;
    running.stop().await;
    assert_exact::<Balance>(&store, &database.client().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_was_faster() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let relay = Relay::start(&store).await;
    let (seed, _) = seeded();
    Load::of_accounts(&store, seed, 40).done().await;
    relay.published().await;
    caught_up_and_stopped(&relay, &database).await;
    Load::of_accounts(&store, seed + 1, 60).done().await;
    relay.published().await;
    relay.forget("account").await;
    relay.forget("review").await;
    let mut running = Running::start(relay.worker::<Balance>(&store));
    running.caught_up::<Balance>(&store).await;
    let replayed = control::status(&store).await.unwrap().remove(0).slices;
    let why = replayed.iter().filter_map(|slice| match &slice.fed_by {
        FedBy::Replay { reason: Some(reason) } => Some(reason.as_str()),
        _ => None,
    });
    assert!(why.clone().any(|reason| reason.contains("does not go on")), "{replayed:?}");
    // Then Kafka feeds it again.
    relay
        .feeds("balances", || async {
            let mut rng = StdRng::from_os_rng();
            move_some(&store, &mut rng).await;
        })
        .await;
    running.caught_up::<Balance>(&store).await;
    running.stop().await;
    let slices = control::status(&store).await.unwrap().remove(0).slices;
    assert!(slices.iter().all(|slice| slice.fed_by == FedBy::Kafka), "{slices:?}");
    assert_exact::<Balance>(&store, &database.client().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_was_deleted_and_made_anew() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let mut relay = Relay::start(&store).await;
    let (seed, _) = seeded();
    for round in 0..2 {
        Load::of_accounts(&store, seed + round, 40).done().await;
        caught_up_and_stopped(&relay, &database).await;
        relay.published().await;
        relay.stop().await;
        relay.delete("account").await;
        relay.go_on();
        // More than the topic held before, in the second round.
        Load::of_accounts(&store, seed + 10 + round, 40 + 80 * round as usize).done().await;
        caught_up_and_stopped(&relay, &database).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_no_event_leaves_no_gap() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let relay = Relay::start(&store).await;
    let (seed, mut rng) = seeded();
    let mut running = Running::start(relay.worker::<Balance>(&store));
    Load::of_accounts(&store, seed, 20).done().await;
    running.caught_up::<Balance>(&store).await;
    for _ in 0..5 {
        relay.send_junk("account").await;
        move_some(&store, &mut rng).await;
        running.caught_up::<Balance>(&store).await;
    }
    running.stop().await;
    assert_exact::<Balance>(&store, &database.client().await).await;
}
