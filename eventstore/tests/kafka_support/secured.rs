//! A broker that lets nobody in who does not prove who it is.

use annals_eventstore::kafka::{Pem, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::cluster::{Cluster, Listener, Plan};

/// Users and passwords over TLS.
pub(crate) const SECURE: &str = "SECURE";
/// Certificates on both sides.
pub(crate) const MUTUAL: &str = "MUTUAL";
/// TLS with the certificate of another host.
pub(crate) const MISNAMED: &str = "MISNAMED";
/// Users and passwords in the open.
pub(crate) const OPEN: &str = "OPEN";

pub(crate) const USER: &str = "publisher";
pub(crate) const PASSWORD: &str = "correct-horse";
/// A user who may do nothing.
pub(crate) const STRANGER: &str = "stranger";

/// An authority that signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name, and its key.
    pub(crate) fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A broker with a listener for each way of proving who one is. Only [`USER`], and who has its
/// certificate, may do anything.
pub(crate) struct Secured {
    pub(crate) cluster: Cluster,
    pub(crate) authority: Authority,
}

impl Secured {
    pub(crate) async fn start() -> Self {
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

    pub(crate) fn tls(&self) -> Tls {
        Tls::new().trust(Pem::text(self.authority.pem()))
    }
}
