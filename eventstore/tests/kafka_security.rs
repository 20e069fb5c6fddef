//! TLS and SASL, towards a broker that asks for both.
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod kafka_support;
#[path = "kafka_support/secured.rs"]
mod secured;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use annals_eventstore::kafka::{Pem, Sasl, Security, State, Tls};
use kafka_support::{Setup, cluster, topic::read_topic_as};
use rdkafka::ClientConfig;
use secured::{Authority, MISNAMED, MUTUAL, OPEN, PASSWORD, SECURE, STRANGER, Secured, USER};
use tokio_util::sync::CancellationToken;

/// How long it may take until somebody is told what is wrong, on a busy machine.
const SOON: Duration = Duration::from_secs(25);

impl Secured {
    /// A store whose events are published over a listener.
    async fn setup(&self, listener: &str) -> Setup {
        let mut setup = Setup::new().await;
        setup.brokers = self.cluster.brokers_at(listener);
        setup.append(20).await;
        setup
    }

    async fn assert_published(&self, listener: &str, security: Security) {
        let setup = self.setup(listener).await;
        setup.publish_all(setup.publisher().security(security.clone())).await;
        // A client of a program's own gets in with the same settings.
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &setup.brokers);
        for (property, value) in security.properties() {
            client.set(property, value);
        }
        let read = |category| read_topic_as(client.clone(), &setup.topic(category));
        let published = ["loan", "member_card"].map(|category| read(category).len());
        assert_eq!(published.iter().sum::<usize>(), 20, "{listener} {security:?}");
    }

    /// A publisher that is not let in, or will not have the broker, says why, soon, waits, and stops at once
    /// when it is told to.
    async fn assert_kept_out(&self, listener: &str, security: Security, why: &str) {
        let setup = self.setup(listener).await;
        let publisher = setup.publisher().security(security).build(&setup.store).unwrap();
        let mut progress = publisher.progress();
        let stop = CancellationToken::new();
        let running = tokio::spawn(publisher.run_until(stop.clone()));
        let start = Instant::now();
        let mut told = BTreeSet::new();
        while !told.iter().any(|reason: &String| reason.to_lowercase().contains(why)) {
            let left = SOON.saturating_sub(start.elapsed());
            let change = tokio::time::timeout(left, progress.changed()).await;
            change.unwrap_or_else(|_| panic!("{listener}: {told:#?}, and not {why}")).unwrap();
            if let State::BrokerUnreachable { reason } = &progress.borrow_and_update().state {
                told.insert(reason.clone());
            }
        }
        assert!(!format!("{told:?}").contains("battery"), "{told:?}");
        let start = Instant::now();
        stop.cancel();
        running.await.unwrap().unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "{listener}: {:?}", start.elapsed());
        assert_eq!(setup.checkpoint().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_proves_who_it_is_publishes_and_reads() {
    let secured = Secured::start().await;
    let over_tls = |sasl| Security::new().tls(secured.tls()).sasl(sasl);
    secured.assert_published(SECURE, over_tls(Sasl::scram_sha_512(USER, PASSWORD))).await;
    secured.assert_published(SECURE, over_tls(Sasl::scram_sha_256(USER, PASSWORD))).await;
    secured.assert_published(SECURE, over_tls(Sasl::plain(USER, PASSWORD))).await;
    let open = Security::new().sasl(Sasl::scram_sha_512(USER, PASSWORD));
    secured.assert_published(OPEN, open).await;

    let (certificate, key) = secured.authority.sign(USER);
    let mutual = secured.tls().identity(Pem::text(&certificate), Pem::text(&key));
    secured.assert_published(MUTUAL, Security::new().tls(mutual)).await;
    // The same from files.
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Pem::file(path)
    };
    let tls = Tls::new().trust(file("ca.pem", &secured.authority.pem()));
    let tls = tls.identity(file("client.pem", &certificate), file("client.key", &key));
    secured.assert_published(MUTUAL, Security::new().tls(tls)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_is_told_why() {
    let secured = Secured::start().await;
    let tls = || Security::new().tls(secured.tls());
    let scram = |password| Sasl::scram_sha_512(USER, password);

    let wrong =
        [scram("battery"), Sasl::plain(USER, "battery"), Sasl::scram_sha_512("x", "battery")];
    for sasl in wrong {
        let kept_out = tls().sasl(sasl);
        secured.assert_kept_out(SECURE, kept_out, "authentication failed").await;
    }
    let others = Tls::new().trust(Pem::text(Authority::new("another").pem()));
    let security = Security::new().tls(others).sasl(scram(PASSWORD));
    secured.assert_kept_out(SECURE, security, "certificate verify failed").await;
    let security = tls().sasl(scram(PASSWORD));
    secured.assert_kept_out(MISNAMED, security, "certificate verify failed").await;
    // Plain text to a listener with TLS, TLS without a user, no certificate of one's own.
    secured.assert_kept_out(SECURE, Security::new(), "a listener for tls or sasl").await;
    secured.assert_kept_out(SECURE, tls(), "a listener for tls or sasl").await;
    secured.assert_kept_out(MUTUAL, tls(), "certificate").await;

    // One who is let in and has no rights.
    let setup = secured.setup(SECURE).await;
    let stranger = tls().sasl(Sasl::scram_sha_512(STRANGER, PASSWORD));
    let start = Instant::now();
    let error = setup.failure(setup.publisher().security(stranger)).await;
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert!(error.to_lowercase().contains("authorization failed"), "{error}");
    assert!(error.contains("create the topic") && error.contains("TopicPolicy::Check"), "{error}");
}
