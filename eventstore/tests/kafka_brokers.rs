//! The publisher and brokers that come and go, each started by the test itself.
#![cfg(feature = "kafka")]
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod kafka_support;

use std::time::Duration;

use annals_eventstore::{
    kafka::State,
    testkit::faults::{Link, Passage},
};
use kafka_support::{
    LEASE, Setup,
    cluster::{Listener, Plan},
    wait_for,
};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_paused_or_cut_off_delays_it_only() {
    let link = Link::unbound().await.unwrap();
    let listener = Listener::new("CUT", "PLAINTEXT").advertised([link.port()]);
    let mut cluster = Plan::of_nodes(1).listener(listener).start().await;
    link.lead_to(cluster.node(1).port("CUT"));
    let mut setup = Setup::new().await;
    setup.brokers = link.url().to_owned();
    let publisher = setup.publisher().lease_time_to_live(LEASE).build(&setup.store).unwrap();
    let mut progress = publisher.progress();
    let stop = CancellationToken::new();
    let running = tokio::spawn(publisher.run_until(stop.clone()));
    setup.append(1000).await;
    wait_for(&mut progress, |progress| progress.published >= 500).await;

    cluster.node(1).kill();
    setup.append(100).await;
    let unreachable = |state: &State| matches!(state, State::BrokerUnreachable { .. });
    wait_for(&mut progress, |progress| unreachable(&progress.state)).await;
    cluster.node(1).restart().await;
    let end = setup.store.safe_position().await.unwrap();
    wait_for(&mut progress, |progress| progress.position == end).await;

    for passage in [Passage::Closed, Passage::Stalled, Passage::Mute] {
        link.set(passage);
        setup.append(100).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let end = setup.store.safe_position().await.unwrap();
        assert!(progress.borrow().position < end, "it publishes over a link that is {passage:?}");
        link.set(Passage::Open);
        wait_for(&mut progress, |progress| progress.position == end).await;
    }

    cluster.node(1).pause();
    setup.append(100).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let end = setup.store.safe_position().await.unwrap();
    assert!(progress.borrow().position < end, "it publishes to a broker that is paused");
    cluster.node(1).resume();
    wait_for(&mut progress, |progress| progress.position == end).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    setup.brokers = cluster.brokers();
    setup.assert_all_published().await;
}
