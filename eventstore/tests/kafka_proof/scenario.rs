//! What is done to publishers and to what they work with.

use std::time::{Duration, Instant};

use annals_eventstore::{
    kafka::{Delivery, FAIL_POINTS, Publisher},
    postgres::Checkpoint,
    testkit::faults::Passage,
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom as _};
use tokio::time::sleep;

use super::{grounds::Grounds, load::Load};
use crate::kafka_support::{LEASE, Process, Setup, What};

/// How long a transaction may be open where that matters.
const TRANSACTION: Duration = Duration::from_secs(2);

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// The publisher is killed with -9, once at each of its fail points.
    Killed,
    /// The same, published at least once.
    KilledAtLeastOnce,
    /// The answer to a commit is lost.
    Answers,
    /// The publisher stops for longer than its lease and its transaction last, and wakes up late.
    Paused,
    /// One stops within a transaction, the next while it takes over, and the first goes on meanwhile.
    Crossed,
    /// Ten takeovers in a row.
    Takeovers,
    /// Several publishers are started together, and killed at random.
    Several,
    /// The only broker is killed with -9 and started again.
    Broker,
    /// Of three brokers each is killed once, the leaders and the coordinator of transactions with them.
    Nodes,
    /// The network between publisher and broker is cut, stalls or loses answers.
    Network,
    /// The database server is restarted, or crashes.
    Database,
}

impl Scenario {
    #[allow(dead_code, reason = "a test plays one")]
    pub(crate) const ALL: [Self; 11] = [
        Self::Killed,
        Self::KilledAtLeastOnce,
        Self::Answers,
        Self::Paused,
        Self::Crossed,
        Self::Takeovers,
        Self::Several,
        Self::Broker,
        Self::Nodes,
        Self::Network,
        Self::Database,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::KilledAtLeastOnce => "killed-at-least-once",
            Self::Answers => "answers",
            Self::Paused => "paused",
            Self::Crossed => "crossed",
            Self::Takeovers => "takeovers",
            Self::Several => "several",
            Self::Broker => "broker",
            Self::Nodes => "nodes",
            Self::Network => "network",
            Self::Database => "database",
        }
    }

    pub(crate) fn delivery(self) -> Delivery {
        match self {
            Self::KilledAtLeastOnce => Delivery::AtLeastOnce,
            _ => Delivery::ExactlyOnce,
        }
    }

    /// Starts the servers that it needs.
    pub(crate) async fn grounds(self) -> Grounds {
        match self {
            Self::Paused | Self::Broker | Self::Network => Grounds::broker().await,
            Self::Nodes => Grounds::cluster().await,
            Self::Database => Grounds::database().await,
            _ => Grounds::default(),
        }
    }

    /// Does it for so long, and at least once. Returns how many faults there were.
    pub(crate) async fn play(self, mut stage: Stage<'_>) -> usize {
        match self {
            Self::Killed | Self::KilledAtLeastOnce => killed(&mut stage, self.delivery()).await,
            Self::Answers => answers(&mut stage).await,
            Self::Paused => paused(&mut stage).await,
            Self::Crossed => crossed(&mut stage).await,
            Self::Takeovers => takeovers(&mut stage).await,
            Self::Several => several(&mut stage).await,
            Self::Broker => broker(&mut stage).await,
            Self::Nodes => nodes(&mut stage).await,
            Self::Network => network(&mut stage).await,
            Self::Database => database(&mut stage).await,
        }
    }
}

/// What a scenario works with.
pub(crate) struct Stage<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) grounds: &'a mut Grounds,
    pub(crate) load: &'a Load,
    pub(crate) random: &'a mut StdRng,
    pub(crate) until: Instant,
}

impl Stage<'_> {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    async fn pause(&mut self, millis: std::ops::Range<u64>) {
        let pause = self.random.random_range(millis);
        sleep(Duration::from_millis(pause)).await;
    }

    fn publisher(&self) -> Process {
        Process::of(self.setup).transaction_timeout(TRANSACTION).start()
    }

    /// Waits until something that is recorded from now on is published.
    async fn published_more(&self) {
        let before = self.load.acknowledged();
        let start = Instant::now();
        while self.load.acknowledged() == before {
            assert!(start.elapsed() < PATIENCE, "nothing is recorded");
            sleep(STEP).await;
        }
        let database = self.setup.store.database().unwrap();
        // The database may have been restarted: connections from before that fail.
        let mut end = None;
        loop {
            if end.is_none() {
                end = self.setup.store.safe_position().await.ok();
            }
            let published = Checkpoint::position_of(database, Publisher::CHECKPOINT).await;
            if end.is_some_and(|end| published.is_ok_and(|at| at.unwrap_or_default() >= end)) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "nothing is published any more");
            sleep(STEP).await;
        }
    }
}

/// What anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);
const STEP: Duration = Duration::from_millis(10);

/// Whether a publisher that goes on comes by a point no second time.
fn comes_once(point: &str) -> bool {
    let at_start = ["lease-taken", "connected", "initialised", "progress-read"];
    at_start.iter().any(|name| point.strip_prefix("publisher-") == Some(name))
}

async fn killed(stage: &mut Stage<'_>, delivery: Delivery) -> usize {
    let mut faults = 0_usize;
    while faults == 0 || !stage.is_over() {
        for point in FAIL_POINTS {
            let is_of_transactions = ["publisher-initialised", "publisher-begun"].contains(&point)
                || point.contains("commit");
            if delivery == Delivery::AtLeastOnce && is_of_transactions {
                continue;
            }
            let count = match point {
                _ if comes_once(point) => 1,
                "publisher-sent" => stage.random.random_range(1..200),
                _ => stage.random.random_range(1..8),
            };
            let process = Process::of(stage.setup).delivery(delivery);
            process.at(point, count, What::Die).start().died().await;
            faults += 1;
        }
    }
    faults
}

async fn answers(stage: &mut Stage<'_>) -> usize {
    let mut faults = 0_usize;
    while faults < 3 || !stage.is_over() {
        let count = stage.random.random_range(1..10);
        let process = Process::of(stage.setup);
        let process = process.at("publisher-committed", count, What::LoseAnswer).start();
        stage.published_more().await;
        stage.pause(0..400).await;
        drop(process);
        faults += 1;
    }
    faults
}

async fn paused(stage: &mut Stage<'_>) -> usize {
    // With those before it has initialised its transactions: it takes them from the active one then.
    let points = FAIL_POINTS.into_iter().filter(|point| *point != "publisher-checkpoint-moved");
    let points: Vec<_> = points.collect();
    // With the time in which the broker notices.
    let over = TRANSACTION.max(LEASE) + Duration::from_millis(1500);
    let mut faults = 0_usize;
    while faults < 4 || !stage.is_over() {
        let point = *points.choose(stage.random).unwrap();
        let count = if comes_once(point) { 1 } else { stage.random.random_range(1..20) };
        let late = Process::of(stage.setup).transaction_timeout(TRANSACTION);
        let late = late.at(point, count, What::Pause).start();
        late.paused().await;
        // Either the broker ends the transaction, or the next publisher.
        let next = if faults.is_multiple_of(2) {
            sleep(over).await;
            stage.publisher()
        } else {
            let next = stage.publisher();
            sleep(over).await;
            next
        };
        stage.published_more().await;
        late.signal("-CONT");
        stage.pause(200..1500).await;
        // Either may be the one that goes on.
        stage.published_more().await;
        drop((late, next));
        faults += 1;
    }
    faults
}

async fn crossed(stage: &mut Stage<'_>) -> usize {
    let open = ["sent", "delivered", "progress-sent", "before-commit"];
    let taking_over = ["lease-taken", "connected", "initialised", "progress-read"];
    let point = |name: &str| {
        let is_named = |point: &&&str| point.strip_prefix("publisher-") == Some(name);
        FAIL_POINTS.iter().find(is_named).copied().expect("a fail point")
    };
    let mut faults = 0_usize;
    while faults < 8 || !stage.is_over() {
        // Its transaction lasts: only the one that takes over can end it.
        let first = Process::of(stage.setup).transaction_timeout(Duration::from_secs(60));
        let count = stage.random.random_range(1..20);
        let first = first.at(point(open[faults % open.len()]), count, What::Pause).start();
        first.paused().await;
        let next = Process::of(stage.setup).transaction_timeout(TRANSACTION);
        // All of both within eight, and another pair of them each time.
        let at = taking_over[(faults + faults / open.len()) % taking_over.len()];
        let next = next.at(point(at), 1, What::Pause).start();
        next.paused().await;
        first.signal("-CONT");
        stage.pause(50..1000).await;
        next.signal("-CONT");
        stage.published_more().await;
        drop((first, next));
        faults += 1;
    }
    faults
}

async fn takeovers(stage: &mut Stage<'_>) -> usize {
    let mut faults = 0_usize;
    let mut active = stage.publisher();
    while faults < 10 || !stage.is_over() {
        let next = stage.publisher();
        stage.published_more().await;
        stage.pause(0..300).await;
        // The one that was first holds the lease, as a rule.
        drop(active);
        active = next;
        faults += 1;
    }
    faults
}

async fn several(stage: &mut Stage<'_>) -> usize {
    let mut faults = 0_usize;
    while faults < 3 || !stage.is_over() {
        let mut together: Vec<_> = (0..4).map(|_| stage.publisher()).collect();
        stage.published_more().await;
        while let Some(last) = together.len().checked_sub(1) {
            let index = stage.random.random_range(0..=last);
            drop(together.swap_remove(index));
            faults += 1;
            stage.pause(0..500).await;
        }
    }
    faults
}

async fn broker(stage: &mut Stage<'_>) -> usize {
    let publisher = stage.publisher();
    let mut faults = 0_usize;
    while faults < 2 || !stage.is_over() {
        stage.published_more().await;
        stage.pause(0..700).await;
        let cluster = stage.grounds.cluster.as_mut().expect("brokers of its own");
        cluster.node(1).kill();
        stage.pause(0..2000).await;
        let cluster = stage.grounds.cluster.as_mut().expect("brokers of its own");
        cluster.node(1).restart().await;
        faults += 1;
    }
    stage.published_more().await;
    drop(publisher);
    faults
}

async fn nodes(stage: &mut Stage<'_>) -> usize {
    let publisher = stage.publisher();
    let mut faults = 0_usize;
    while faults < 3 || !stage.is_over() {
        // Each in turn: among them are the leaders of all partitions, and the coordinator.
        for node in 1..=3 {
            stage.published_more().await;
            stage.pause(0..700).await;
            let cluster = stage.grounds.cluster.as_mut().expect("brokers of its own");
            cluster.node(node).kill();
            // The others go on.
            stage.published_more().await;
            let cluster = stage.grounds.cluster.as_mut().expect("brokers of its own");
            cluster.node(node).restart().await;
            faults += 1;
        }
    }
    stage.published_more().await;
    drop(publisher);
    faults
}

async fn network(stage: &mut Stage<'_>) -> usize {
    let publisher = stage.publisher();
    let mut faults = 0_usize;
    let kinds = [Passage::Closed, Passage::Stalled, Passage::Mute];
    while faults < 6 || !stage.is_over() {
        stage.published_more().await;
        stage.pause(0..400).await;
        let link = stage.grounds.link.as_ref().expect("a way that can be cut");
        link.set(kinds[faults % kinds.len()]);
        stage.pause(0..1500).await;
        let link = stage.grounds.link.as_ref().expect("a way that can be cut");
        // Sometimes what stood still is lost, sometimes it arrives late.
        if stage.random.random_bool(0.5) {
            link.set(Passage::Closed);
            sleep(Duration::from_millis(50)).await;
        }
        link.set(Passage::Open);
        faults += 1;
    }
    stage.published_more().await;
    drop(publisher);
    faults
}

async fn database(stage: &mut Stage<'_>) -> usize {
    let publisher = stage.publisher();
    let mut faults = 0_usize;
    while faults < 2 || !stage.is_over() {
        stage.published_more().await;
        stage.pause(0..700).await;
        let server = stage.grounds.database.as_mut().expect("a server of its own");
        // A crash the first time, then a restart.
        if faults.is_multiple_of(2) {
            server.kill();
        }
        server.restart().await;
        faults += 1;
    }
    stage.published_more().await;
    drop(publisher);
    faults
}
