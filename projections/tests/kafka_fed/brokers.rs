//! Brokers that are killed, and a network that fails, while projections are fed and events come all the time.

use std::{cell::Cell, time::Duration};

use annals_eventstore::{
    EventStore,
    kafka::Security,
    testkit::faults::{self, Delay, Link, Passage, Seed},
};
use annals_projections::{
    QueryReadModels,
    control::{self, FedBy},
    kafka::Source,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio_postgres::Client;

use crate::{
    cluster::{Listener, Plan},
    relay::Relay,
    support::{
        Running,
        account::{Balance, move_some},
        database::TestDatabase,
        eventually, lease,
        ledger::{Tally, add},
        load::{Load, seeded},
        oracle::assert_exact,
        worker,
    },
};

/// One that consumer groups share out, and one that a lease holds.
struct Fed<'a> {
    store: &'a EventStore,
    balances: Running,
    tallies: Running,
}

impl<'a> Fed<'a> {
    async fn start(store: &'a EventStore, relay: &Relay, source: &Source) -> Self {
        let balances = worker::<Balance>(store).kafka(source.clone()).lease(lease(1500));
        let tallies = worker::<Tally>(store).kafka(source.clone()).lease(lease(1500));
        let (balances, tallies) = (balances.batch_size(7), tallies.batch_size(7));
        let (balances, tallies) = (Running::start(balances), Running::start(tallies));
        let seed = Cell::new(0);
        let some = || async {
            seed.set(seed.get() + 1);
            move_some(store, &mut StdRng::seed_from_u64(seed.get())).await;
            add(store, "a", 1).await;
        };
        relay.feeds("balances", some).await;
        relay.feeds("tallies", some).await;
        Self { store, balances, tallies }
    }

    async fn caught_up(&mut self) {
        self.balances.caught_up::<Balance>(self.store).await;
        self.tallies.caught_up::<Tally>(self.store).await;
    }

    /// What came, came from Kafka: a worker that cannot reach it waits.
    async fn assert_fed_by_kafka(&self) {
        let all = control::status(self.store).await.unwrap();
        let mut slices = all.iter().flat_map(|projection| &projection.slices);
        assert!(slices.all(|slice| slice.fed_by == FedBy::Kafka), "{all:?}");
    }

    /// Everything has come, from Kafka, and once.
    async fn ends_exact(mut self, client: &Client) {
        self.caught_up().await;
        self.assert_fed_by_kafka().await;
        self.balances.stop().await;
        self.tallies.stop().await;
        assert_exact::<Balance>(self.store, client).await;
        assert_exact::<Tally>(self.store, client).await;
    }
}

/// Appends to both, side by side with what happens.
fn loads(store: &EventStore, seed: u64, appends: usize) -> [Load; 2] {
    [Load::start(store, seed, 2, appends), Load::of_accounts(store, seed, appends)]
}

async fn all_done(loads: [Load; 2]) {
    for load in loads {
        load.done().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_killed_and_started_again_under_load() {
    let mut cluster = Plan::of_nodes(1).start().await;
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let relay = Relay::at(cluster.brokers(), Security::new(), &store);
    let mut fed = Fed::start(&store, &relay, &relay.source()).await;
    let (seed, mut rng) = seeded();
    for round in 0..4 {
        let loads = loads(&store, seed + round, 150);
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..400))).await;
        cluster.node(1).kill();
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..2000))).await;
        cluster.node(1).restart().await;
        // Now and then while all of them are still coming back.
        if round % 2 == 0 {
            all_done(loads).await;
            fed.caught_up().await;
        } else {
            cluster.node(1).kill();
            cluster.node(1).restart().await;
            all_done(loads).await;
        }
    }
    fed.ends_exact(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_to_the_broker_is_cut_and_stalls() {
    let link = Link::unbound().await.unwrap();
    let listener = Listener::new("CUT", "PLAINTEXT").advertised([link.port()]);
    let mut cluster = Plan::of_nodes(1).listener(listener).start().await;
    link.lead_to(cluster.node(1).port("CUT"));
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    // The publisher has another way: it is the feeds that are cut off.
    let relay = Relay::at(cluster.brokers(), Security::new(), &store);
    let source = Source::new(link.url(), &relay.context).unwrap();
    let mut fed = Fed::start(&store, &relay, &source).await;

    for passage in [Passage::Closed, Passage::Stalled, Passage::Mute] {
        fed.caught_up().await;
        link.set(passage);
        let key = format!("{passage:?}");
        add(&store, &key, 1).await;
        relay.published().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let row = || async { store.query::<Tally>().get(&key).await.unwrap() };
        assert_eq!(row().await, None, "it is fed over a link that is {passage:?}");
        link.set(Passage::Open);
        eventually("it is fed again", || async { row().await.is_some() }).await;
    }

    let (seed, mut rng) = seeded();
    let mut loads = loads(&store, seed, 600);
    let mut turns = 0;
    while turns < 25 || !loads.iter_mut().all(Load::is_done) {
        turns += 1;
        match rng.random_range(0..5) {
            0 => link.set(Passage::Closed),
            1 => link.set(Passage::Stalled),
            2 => link.set(Passage::Mute),
            _ => link.cut(),
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..500))).await;
        link.set(Passage::Open);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..300))).await;
    }
    all_done(loads).await;
    fed.ends_exact(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publisher_and_feeds_stay_exact_over_a_bad_network() {
    let link = Link::unbound().await.unwrap();
    let listener = Listener::new("BAD", "PLAINTEXT").advertised([link.port()]);
    let mut cluster = Plan::of_nodes(1).listener(listener).start().await;
    link.lead_to(cluster.node(1).port("BAD"));
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let mut relay = Relay::at(link.url().to_owned(), Security::new(), &store);
    let mut fed = Fed::start(&store, &relay, &relay.source()).await;

    let (seed, _) = seeded();
    let network = || faults::Plan::new(Seed::of(seed));
    let slow = Delay::exponential(Duration::from_millis(2));
    link.follow(network().delay(slow).cuts(0.006).loses_answers(0.006).refuses(0.1));
    all_done(loads(&store, seed, 600)).await;
    fed.caught_up().await;
    let disturbed = link.disturbed();
    println!("{disturbed} disturbances");
    assert!(disturbed > 10, "it tests nothing: {disturbed} disturbances");
    link.follow(network());
    fed.ends_exact(&client).await;
    relay.stop().await;
}
