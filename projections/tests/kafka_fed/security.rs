//! Feeds from a broker that lets nobody in who does not prove who it is.

use std::time::Duration;

use annals_eventstore::kafka::{Sasl, Security};

use rand::{SeedableRng, rngs::StdRng};

use crate::{
    relay::Relay,
    secured::{PASSWORD, SECURE, Secured, USER},
    support::{
        Running,
        account::{Balance, move_some},
        database::TestDatabase,
        lease,
        oracle::assert_exact,
        worker,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_fed_over_tls_with_a_password() {
    let secured = Secured::start().await;
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let security = Security::new().tls(secured.tls()).sasl(Sasl::scram_sha_512(USER, PASSWORD));
    let relay = Relay::at(secured.cluster.brokers_at(SECURE), security.clone(), &store);
    let source = || relay.source().security(&security).unwrap();
    let mut running = Running::start(worker::<Balance>(&store).kafka(source()).lease(lease(1500)));
    let some = || async {
        let mut rng = StdRng::from_rng(&mut rand::rng());
        for _ in 0..5 {
            move_some(&store, &mut rng).await;
        }
    };
    relay.feeds("balances", some).await;
    running.caught_up::<Balance>(&store).await;
    running.stop().await;
    assert_exact::<Balance>(&store, &client).await;

    // Without the password it waits, and goes on where it was once it has it.
    let wrong = Security::new().tls(secured.tls()).sasl(Sasl::scram_sha_512(USER, "battery"));
    let kept_out = worker::<Balance>(&store).kafka(relay.source().security(&wrong).unwrap());
    let kept_out = Running::start(kept_out.lease(lease(1500)));
    some().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(kept_out.is_running());
    kept_out.stop().await;
    let mut running = Running::start(worker::<Balance>(&store).kafka(source()).lease(lease(1500)));
    running.caught_up::<Balance>(&store).await;
    running.stop().await;
    assert_exact::<Balance>(&store, &client).await;
}
