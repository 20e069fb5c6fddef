//! A database for each test.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use annals_eventstore::{EventStore, Options};
use tokio_postgres::{Client, Config, NoTls, config::Host};

use super::waiting::PATIENCE;

/// A database of one test's own, on the server of `DATABASE_URL`; dropped with all in it at the end.
pub(crate) struct TestDatabase {
    server: Config,
    name: String,
}

impl TestDatabase {
    pub(crate) async fn create() -> Self {
        Self::create_on(server()).await
    }

    /// The same on another server.
    pub(crate) async fn create_on(server: Config) -> Self {
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

    /// Its name on the server.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The server that it is on.
    pub(crate) fn server(&self) -> &Config {
        &self.server
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = self.server.clone();
        config.dbname(&self.name);
        config
    }

    pub(crate) fn url(&self) -> String {
        self.url_as("annals")
    }

    /// The URL of this database. The store's backends are known by `application_name`.
    pub(crate) fn url_as(&self, application_name: &str) -> String {
        url(&self.config(), application_name)
    }

    /// A store that waits for a busy machine as long as the tests do.
    pub(crate) async fn store(&self) -> EventStore {
        self.store_with(patient(EventStore::options())).await
    }

    pub(crate) async fn store_with(&self, options: Options) -> EventStore {
        options.connect(&self.url()).await.unwrap()
    }

    /// A store whose backends [`kill`] finds by this name.
    pub(crate) async fn store_as(&self, application_name: &str) -> EventStore {
        EventStore::connect(&self.url_as(application_name)).await.unwrap()
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

/// The limits of time that have nothing to do with what is tested.
pub(crate) fn patient(options: Options) -> Options {
    options
        .connect_timeout(PATIENCE / 3)
        .lock_timeout(PATIENCE / 3)
        .queue_timeout(PATIENCE / 3)
        .append_timeout(PATIENCE / 2)
}

pub(crate) fn url(config: &Config, application_name: &str) -> String {
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
pub(crate) fn server() -> Config {
    let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| {
        panic!("these tests need a PostgreSQL server: run `cargo xtask test`, or set DATABASE_URL")
    });
    url.parse().expect("DATABASE_URL is a PostgreSQL URL")
}

async fn connect(config: &Config) -> Client {
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
    kill_after(client, application_name, "%").await
}

/// The same of those that last ran a statement like this.
pub(crate) async fn kill_after(client: &Client, application_name: &str, statement: &str) -> usize {
    let killed = client
        .query(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name = $1 and datname = current_database() and query ilike $2",
            &[&application_name, &statement],
        )
        .await
        .unwrap();
    killed.len()
}

/// One value of the first column of the first row.
pub(crate) async fn value<T>(client: &Client, sql: &str) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// The SQLSTATE and the message that a statement is refused with.
pub(crate) async fn refusal(client: &Client, sql: &str) -> (String, String) {
    let error = client.query(sql, &[]).await.expect_err(sql);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}"));
    (error.code().code().to_owned(), error.message().to_owned())
}
