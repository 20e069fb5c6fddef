//! Records that are delivered again.

use annals_eventstore::testkit::faults::{Fault, Faults, Seed, repeat_records};

use crate::{
    relay::Relay,
    support::{
        Running,
        database::TestDatabase,
        ledger::{Tally, add},
        load::Load,
        oracle::assert_exact,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn records_that_come_again_have_no_effect() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let relay = Relay::start(&store).await;
    let mut running = Running::start(relay.worker::<Tally>(&store));
    relay.feeds("tallies", || async { drop(add(&store, "a", 1).await) }).await;
    let seed = Seed::any();
    let faults = Faults::new(seed).rate(Fault::Repetition, 0.3);
    let mut repeated = 0;
    for round in 0..3 {
        Load::start(&store, seed.get().wrapping_add(round), 2, 40).done().await;
        relay.published().await;
        let topic = relay.topic("ledger");
        repeated += repeat_records(&relay.brokers, &topic, &faults).await.unwrap();
    }
    // Behind what was repeated there is more.
    add(&store, "a", 1).await;
    running.caught_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
    assert!(repeated > 10, "{repeated} records: it tests nothing");
    println!("{repeated} records came again");
    running.stop().await;
}
