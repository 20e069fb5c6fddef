//! TLS and SASL, towards a broker that asks for both.
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod kafka_support;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use annals_eventstore::kafka::{Pem, Sasl, Security, State, Tls};
use kafka_support::{
    Setup,
    cluster::{Cluster, Listener, Plan},
    topic::read_topic_as,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rdkafka::ClientConfig;
use tokio_util::sync::CancellationToken;

/// Users and passwords over TLS.
const SECURE: &str = "SECURE";
/// Certificates on both sides.
const MUTUAL: &str = "MUTUAL";
/// TLS with the certificate of another host.
const MISNAMED: &str = "MISNAMED";
/// Users and passwords in the open.
const OPEN: &str = "OPEN";

const USER: &str = "publisher";
const PASSWORD: &str = "correct-horse";
/// A user who may do nothing.
const STRANGER: &str = "stranger";
/// How long it may take until somebody is told what is wrong, on a busy machine.
const SOON: Duration = Duration::from_secs(25);

/// An authority that signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A broker with a listener for each way of proving who one is. Only [`USER`], and who has its
/// certificate, may do anything.
struct Secured {
    cluster: Cluster,
    authority: Authority,
}

impl Secured {
    async fn start() -> Self {
        let authority = Authority::new("the broker's");
        let mut plan = Plan::of_nodes(1)
            .property(
                "authorizer.class.name",
                "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            )
            .property("super.users", format!("User:ANONYMOUS;User:{USER};User:CN={USER}"));
        for (listener, protocol, host) in [
            (SECURE, "SASL_SSL", "127.0.0.1"),
            (MUTUAL, "SSL", "127.0.0.1"),
            (MISNAMED, "SASL_SSL", "elsewhere.example.org"),
            (OPEN, "SASL_PLAINTEXT", "127.0.0.1"),
        ] {
            plan = plan.listener(Listener::new(listener, protocol));
            let of = |property: &str| {
                format!("listener.name.{}.{property}", listener.to_ascii_lowercase())
            };
            if protocol != "SASL_PLAINTEXT" {
                let (certificate, key) = authority.sign(host);
                plan = plan
                    .property(of("ssl.keystore.type"), "PEM")
                    .property(of("ssl.keystore.certificate.chain"), certificate)
                    .property(of("ssl.keystore.key"), key)
                    .property(of("ssl.truststore.type"), "PEM")
                    .property(of("ssl.truststore.certificates"), authority.pem());
            }
            if protocol == "SSL" {
                plan = plan.property(of("ssl.client.auth"), "required");
                continue;
            }
            let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
            let plain = format!(
                "org.apache.kafka.common.security.plain.PlainLoginModule required \
                 user_{USER}=\"{PASSWORD}\";"
            );
            plan = plan
                .property(of("sasl.enabled.mechanisms"), "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512")
                .property(of("scram-sha-256.sasl.jaas.config"), scram)
                .property(of("scram-sha-512.sasl.jaas.config"), scram)
                .property(of("plain.sasl.jaas.config"), plain);
        }
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            for user in [USER, STRANGER] {
                plan = plan
                    .format_argument("--add-scram")
                    .format_argument(format!("{mechanism}=[name={user},password={PASSWORD}]"));
            }
        }
        Self { cluster: plan.start().await, authority }
    }

    fn tls(&self) -> Tls {
        Tls::new().trust(Pem::text(self.authority.pem()))
    }

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
