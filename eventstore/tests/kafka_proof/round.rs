//! A round: appends without pause, faults, and then the checker.

use std::{
    fmt,
    time::{Duration, Instant},
};

use annals_eventstore::kafka::{
    Delivery,
    verify::{Finding, Verification},
};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    grounds::Grounds,
    load::Load,
    scenario::{Scenario, Stage},
};

/// What a round has come to.
pub(crate) struct Outcome {
    pub(crate) faults: usize,
    pub(crate) events: u64,
    pub(crate) repeated: u64,
    pub(crate) findings: Vec<Finding>,
}

impl Outcome {
    /// In words, with the first findings.
    pub(crate) fn complaints(&self) -> impl Iterator<Item = String> {
        self.findings.iter().take(10).map(ToString::to_string)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { faults, events, repeated, findings } = self;
        let found = findings.len();
        write!(f, "{faults} faults, {events} events, {repeated} repeated, {found} findings")
    }
}

/// Plays a round for so long at least. Panics if it cannot be played to its end: if nothing is published any
/// more, say.
pub(crate) async fn play(
    scenario: Scenario,
    grounds: &mut Grounds,
    seed: u64,
    length: Duration,
) -> Outcome {
    let mut setup = grounds.setup().await;
    let load = Load::start(&setup.store, seed);
    let mut random = StdRng::seed_from_u64(seed);
    let until = Instant::now() + length;
    let (at, choices) = (&setup, &mut random);
    let stage = Stage { setup: at, grounds: &mut *grounds, load: &load, random: choices, until };
    let faults = scenario.play(stage).await;
    let acknowledged = load.stop().await;
    setup.brokers = grounds.brokers();
    setup.finish_with(scenario.delivery()).await;
    let verification = verify(&setup, scenario.delivery()).await;
    let Verification { events, repeated, .. } = verification;
    // The checker compares with the store; that must be whole too.
    assert!(events >= acknowledged, "of {acknowledged} events, the store has {events}");
    assert_eq!(verification.published, verification.log_end, "not all of it was looked at");
    assert_eq!(verification.held_back, [], "consumers wait for a transaction of nobody");
    assert_eq!((verification.expired, verification.archived), (0, 0));
    Outcome { faults, events, repeated, findings: verification.findings }
}

async fn verify(setup: &crate::kafka_support::Setup, delivery: Delivery) -> Verification {
    let verify = setup.publisher().delivery(delivery).verify(&setup.store).unwrap();
    let verifying = tokio::time::timeout(Duration::from_secs(120), verify.run());
    verifying.await.expect("the checker comes to its end").unwrap()
}
