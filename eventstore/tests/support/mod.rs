//! What the store's test programs share: a database for each test, clients of its own, an aggregate.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod direct;
pub(crate) mod pooler;
pub(crate) mod proxy;
pub(crate) mod server;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

#[allow(unused_imports, reason = "each test program uses a part of it")]
pub(crate) use annals_eventstore::conformance::support::*;
use annals_eventstore::{EventStore, Options};
use tokio_postgres::{Client, NoTls, config::Host};

/// What everything else here waits for at most. It bounds a hang, not the speed.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs a test, and fails it if it hangs.
pub(crate) async fn in_time<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, test).await.expect("the test hangs")
}

/// A database of one test's own, on the server of `DATABASE_URL`; dropped with all in it at the end.
pub(crate) struct TestDatabase {
    server: tokio_postgres::Config,
    name: String,
}

impl TestDatabase {
    pub(crate) async fn create() -> Self {
        Self::create_on(server()).await
    }

    /// The same on another server.
    pub(crate) async fn create_on(server: tokio_postgres::Config) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("annals_test_{}_{count}", std::process::id());
        let admin = connect(&server).await;
        for sql in [
            // A process of the same number may have been killed in the middle of its tests.
            "drop database if exists {} with (force)",
            "create database {}",
            // A statement that waits in vain fails, and the test with it.
            "alter database {} set statement_timeout = '60s'",
        ] {
            admin.batch_execute(&sql.replace("{}", &name)).await.unwrap();
        }
        Self { server, name }
    }

    fn config(&self) -> tokio_postgres::Config {
        let mut config = self.server.clone();
        config.dbname(&self.name);
        config
    }

    /// The URL of this database. The store's backends are known by `application_name`.
    pub(crate) fn url_as(&self, application_name: &str) -> String {
        url(&self.config(), application_name)
    }

    /// The URL of this database through a proxy.
    pub(crate) fn url_through(&self, proxy: &proxy::Proxy) -> String {
        self.url_at(proxy.port)
    }

    /// The URL of this database by way of a port of this machine.
    pub(crate) fn url_at(&self, port: u16) -> String {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).dbname(&self.name);
        if let Some(user) = self.server.get_user() {
            config.user(user);
        }
        if let Some(password) = self.server.get_password() {
            config.password(password);
        }
        // What stands in between reads the messages.
        url(&config, "annals") + "sslmode=disable"
    }

    /// A pooler in transaction mode before this database.
    pub(crate) async fn pooler(&self) -> pooler::Pooler {
        pooler::Pooler::start(&self.config()).await
    }

    pub(crate) async fn proxy(&self) -> proxy::Proxy {
        proxy::Proxy::start(self.server.clone()).await
    }

    pub(crate) fn url(&self) -> String {
        self.url_as("annals")
    }

    pub(crate) async fn store(&self) -> EventStore {
        self.store_with(EventStore::options()).await
    }

    pub(crate) async fn store_with(&self, options: Options) -> EventStore {
        options.connect(&self.url()).await.unwrap()
    }

    /// A connection past the store.
    pub(crate) async fn client(&self) -> Client {
        connect(&self.config()).await
    }

    /// The same, under a name by which [`kill`] finds it.
    pub(crate) async fn client_as(&self, application_name: &str) -> Client {
        connect(self.config().application_name(application_name)).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A runtime cannot be waited for from within a runtime's own thread.
        let dropping = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let admin = connect(&server).await;
                admin.batch_execute(&format!("drop database {name} with (force)")).await.unwrap();
            });
        });
        if dropping.join().is_err() && !std::thread::panicking() {
            panic!("the test's database was not dropped");
        }
    }
}

fn url(config: &tokio_postgres::Config, application_name: &str) -> String {
    let hosts: Vec<_> = config.get_hosts().iter().map(host).collect();
    let ports: Vec<_> = config.get_ports().iter().map(u16::to_string).collect();
    let options = [
        ("dbname", config.get_dbname().map(str::to_owned)),
        ("application_name", Some(application_name.to_owned())),
        ("host", (!hosts.is_empty()).then(|| hosts.join(","))),
        ("port", (!ports.is_empty()).then(|| ports.join(","))),
        ("user", config.get_user().map(str::to_owned)),
        ("password", config.get_password().map(|p| String::from_utf8_lossy(p).into_owned())),
    ];
    let quoted = |value: String| value.replace('\\', r"\\").replace('\'', r"\'");
    let options = options.into_iter().filter_map(|(name, value)| Some((name, quoted(value?))));
    options.map(|(name, value)| format!("{name}='{value}' ")).collect()
}

fn host(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

/// The server of `DATABASE_URL`.
pub(crate) fn server() -> tokio_postgres::Config {
    let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| {
        panic!("these tests need a PostgreSQL server: run `cargo xtask test`, or set DATABASE_URL")
    });
    url.parse().expect("DATABASE_URL is a PostgreSQL URL")
}

async fn connect(config: &tokio_postgres::Config) -> Client {
    // A test that kills backends may hit one that is only just connecting.
    let mut attempts = 0;
    loop {
        match config.connect(NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return client;
            }
            Err(error) => {
                attempts += 1;
                assert!(attempts < 10, "cannot connect: {error:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Terminates the backends of an application in the client's database; returns how many there were.
pub(crate) async fn kill(client: &Client, application_name: &str) -> usize {
    let killed = client
        .query(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name = $1 and datname = current_database()",
            &[&application_name],
        )
        .await
        .unwrap();
    killed.len()
}

/// Asks again and again until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE / 3, asking).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// True if the future is still at it after a good while.
pub(crate) async fn is_waiting<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    tokio::time::timeout(Duration::from_millis(400), future).await.is_err()
}

/// An error with all its causes, as text: what a program would print or log.
pub(crate) fn text(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(|error| format!("{error} / {error:?}")).collect::<Vec<_>>().join(": ")
}
