//! The publisher and brokers that come and go, each started by the test itself.
#![cfg(feature = "kafka")]
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod kafka_support;

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use annals_eventstore::{
    breaker::{BreakerOptions, CircuitBreaker, CircuitState},
    kafka::State,
    testkit::faults::{Link, Passage},
};
use kafka_support::{
    LEASE, Setup,
    cluster::{Listener, Plan},
    wait_for,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::sleep,
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

/// A port that leads to another one, and counts who comes.
struct Door {
    port: u16,
    came: Arc<AtomicUsize>,
}

impl Door {
    async fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let door = Self {
            port: listener.local_addr().unwrap().port(),
            came: Arc::new(AtomicUsize::new(0)),
        };
        let came = door.came.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                came.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        door
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::Relaxed)
    }
}

/// Waits until it is in this state, which it was not at a time before. Says when it was last seen in another one.
async fn becomes(circuit: &CircuitBreaker, state: CircuitState, before: Instant) -> Instant {
    let (start, mut last) = (Instant::now(), before);
    loop {
        let now = Instant::now();
        if circuit.state() == state {
            return last;
        }
        last = now;
        assert!(start.elapsed() < Duration::from_secs(40), "it is {:?}", circuit.state());
        sleep(Duration::from_millis(5)).await;
    }
}

/// What metrics say of a circuit.
fn told(snapshotter: &Snapshotter, circuit: &str) -> f64 {
    let all = snapshotter.snapshot().into_vec().into_iter();
    let gauge = all.into_iter().find_map(|(key, .., value)| {
        let key = key.key();
        let ours = key.name() == "annals_circuit_state"
            && key.labels().any(|label| label.value() == circuit);
        match value {
            DebugValue::Gauge(value) if ours => Some(value.into_inner()),
            _ => None,
        }
    });
    gauge.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_gone_is_left_alone_and_tried_once_after_each_cool_down() {
    const COOL_DOWN: Duration = Duration::from_secs(5);
    /// What was begun ends within this time.
    const ENDS: Duration = Duration::from_millis(500);
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let link = Link::unbound().await.unwrap();
    let door = Door::before(link.port()).await;
    let listener = Listener::new("CUT", "PLAINTEXT").advertised([door.port]);
    let mut cluster = Plan::of_nodes(1).listener(listener).start().await;
    link.lead_to(cluster.node(1).port("CUT"));
    let mut setup = Setup::new().await;
    setup.brokers = format!("127.0.0.1:{}", door.port);
    let name = setup.context.clone();
    let options = BreakerOptions::default().failures(2).cool_down(COOL_DOWN, COOL_DOWN);
    let circuit = CircuitBreaker::new(&name, options);
    let publisher = setup.publisher().circuit(circuit.clone()).build(&setup.store).unwrap();
    let mut progress = publisher.progress();
    let stop = CancellationToken::new();
    let running = tokio::spawn(publisher.run_until(stop.clone()));
    setup.append(200).await;
    wait_for(&mut progress, |progress| progress.published == 200).await;
    assert_eq!((circuit.state(), told(&snapshotter, &name)), (CircuitState::Closed, 0.0));

    let mut at = Instant::now();
    link.set(Passage::Closed);
    setup.append(200).await;
    let mut judged = 0;
    while judged < 2 {
        let opened = becomes(&circuit, CircuitState::Open, at).await;
        let is_open = |state: &State| matches!(state, State::CircuitOpen { .. });
        wait_for(&mut progress, |progress| is_open(&progress.state)).await;
        sleep(ENDS).await;
        let before = door.came();
        sleep(COOL_DOWN / 2).await;
        let found = (circuit.state(), told(&snapshotter, &name), door.came());
        // Unless this machine has stood still for the rest of the time.
        if opened.elapsed() < COOL_DOWN {
            assert_eq!(found, (CircuitState::Open, 2.0, before));
            judged += 1;
        }
        becomes(&circuit, CircuitState::HalfOpen, opened).await;
        at = Instant::now();
        while door.came() == before {
            assert!(at.elapsed() < COOL_DOWN * 4, "nothing is tried");
            sleep(Duration::from_millis(5)).await;
        }
    }
    becomes(&circuit, CircuitState::Open, at).await;
    link.set(Passage::Open);
    setup.append(200).await;
    let end = setup.store.safe_position().await.unwrap();
    wait_for(&mut progress, |progress| progress.position == end).await;
    assert_eq!((circuit.state(), told(&snapshotter, &name)), (CircuitState::Closed, 0.0));
    assert_eq!(progress.borrow().state, State::Publishing);
    stop.cancel();
    running.await.unwrap().unwrap();
    setup.brokers = cluster.brokers();
    setup.assert_published_once().await;
}
