//! What a round is played on: the servers that tests share, or such that it may kill.

use annals_eventstore::testkit::faults::Link;

use crate::{
    kafka_support::{
        Setup,
        cluster::{Cluster, Listener, Plan},
    },
    server::PrivateServer,
};

/// The servers of a scenario, for all its rounds.
#[derive(Default)]
pub(crate) struct Grounds {
    /// Brokers of its own.
    pub(crate) cluster: Option<Cluster>,
    /// The way to the only one of them.
    pub(crate) link: Option<Link>,
    /// A PostgreSQL of its own.
    pub(crate) database: Option<PrivateServer>,
}

impl Grounds {
    /// One broker, and a way to it that can be cut.
    pub(crate) async fn broker() -> Self {
        let link = Link::unbound().await.unwrap();
        let listener = Listener::new("CUT", "PLAINTEXT").advertised([link.port()]);
        let mut cluster = Plan::of_nodes(1).listener(listener).start().await;
        link.lead_to(cluster.node(1).port("CUT"));
        Self { cluster: Some(cluster), link: Some(link), database: None }
    }

    /// Three brokers; two must have what is acknowledged.
    pub(crate) async fn cluster() -> Self {
        Self { cluster: Some(Plan::of_nodes(3).start().await), ..Self::default() }
    }

    /// A PostgreSQL server.
    pub(crate) async fn database() -> Self {
        let server = PrivateServer::start(&[]).await;
        Self { database: Some(server), ..Self::default() }
    }

    /// The brokers, past whatever can be cut.
    pub(crate) fn brokers(&self) -> String {
        match &self.cluster {
            Some(cluster) => cluster.brokers(),
            None => crate::kafka_support::variable("KAFKA_BROKERS"),
        }
    }

    /// A store and a context for a round. Its publishers take the way that can be cut.
    pub(crate) async fn setup(&self) -> Setup {
        let server = match &self.database {
            Some(server) => server.url(),
            None => crate::kafka_support::variable("DATABASE_URL"),
        };
        let brokers = match &self.link {
            Some(link) => link.url().to_owned(),
            None => self.brokers(),
        };
        Setup::on(server, brokers).await
    }
}
