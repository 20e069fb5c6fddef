//! What the store's test programs share: a database for each test, clients of its own, an aggregate.
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

pub(crate) mod database;
pub(crate) mod direct;
pub(crate) mod outcomes;
pub(crate) mod pooler;
pub(crate) mod proxy;
pub(crate) mod server;
pub(crate) mod waiting;
pub(crate) mod warnings;

pub(crate) use annals_eventstore::conformance::support::*;

pub(crate) use self::{
    database::{TestDatabase, kill, patient, server},
    waiting::{eventually, in_time, is_waiting, text},
};

impl TestDatabase {
    /// The URL of this database through a proxy.
    pub(crate) fn url_through(&self, proxy: &proxy::Proxy) -> String {
        self.url_at(proxy.port)
    }

    /// The URL of this database by way of a port of this machine.
    pub(crate) fn url_at(&self, port: u16) -> String {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).dbname(self.name());
        if let Some(user) = self.server().get_user() {
            config.user(user);
        }
        if let Some(password) = self.server().get_password() {
            config.password(password);
        }
        // What stands in between reads the messages.
        database::url(&config, "annals") + "sslmode=disable"
    }

    /// A pooler in transaction mode before this database.
    pub(crate) async fn pooler(&self) -> pooler::Pooler {
        pooler::Pooler::start(&self.config()).await
    }

    pub(crate) async fn proxy(&self) -> proxy::Proxy {
        proxy::Proxy::start(self.server().clone()).await
    }
}
