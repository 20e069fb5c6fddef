//! What the tests of the examples share: a database for each test, and the example programs.

// Each test file uses a part of it; a helper that fails fails its test.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod admin;
pub(crate) mod collector;
pub(crate) mod tool;
pub(crate) mod trip;

use std::{
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

/// A database of the test's own, dropped at the end.
pub(crate) struct Database {
    name: String,
    server: String,
}

impl Database {
    pub(crate) async fn create() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = server();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("annals_example_{}_{number}", std::process::id());
        execute(&server, &format!("create database {name}")).await;
        Self { name, server }
    }

    /// The URL of this database.
    pub(crate) fn url(&self) -> String {
        url_of(&self.server, &self.name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) async fn execute(&self, sql: &str) {
        execute(&self.url(), sql).await;
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        count(&self.url(), sql).await
    }
}

/// The URL of the server that the tests run on.
pub(crate) fn server() -> String {
    std::env::var("DATABASE_URL")
        .expect("DATABASE_URL is not set; run the tests with `cargo xtask test`")
}

/// The URL of a database: the server's with another path.
pub(crate) fn url_of(server: &str, database: &str) -> String {
    let (base, rest) = server.rsplit_once('/').unwrap();
    let options = rest.split_once('?').map(|(_, o)| format!("?{o}")).unwrap_or_default();
    format!("{base}/{database}{options}")
}

/// The number that a query returns.
pub(crate) async fn count(url: &str, sql: &str) -> i64 {
    connect(url).await.query_one(sql, &[]).await.unwrap().get(0)
}

/// The text that a query returns.
pub(crate) async fn text(url: &str, sql: &str) -> String {
    connect(url).await.query_one(sql, &[]).await.unwrap().get(0)
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A runtime cannot be entered from within another; a thread of its own can.
        let drop = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let sql = format!("drop database {name} with (force)");
            runtime.unwrap().block_on(execute(&server, &sql));
        });
        drop.join().unwrap();
    }
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Executes statements.
pub(crate) async fn execute(url: &str, sql: &str) {
    connect(url).await.batch_execute(sql).await.unwrap();
}

/// An example program.
pub(crate) fn example(name: &str) -> Command {
    // Cargo builds examples with tests of their own as tests only, so the programs are built here,
    // with the features that the tests are built with.
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--workspace", "--all-features", "--examples"]);
        // What cargo tells this test of its crate makes some build scripts run again, and everything above them.
        let ours =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
            build.env_remove(name);
        }
        assert!(build.status().unwrap().success(), "the examples do not build");
    });
    // From target/debug/deps/this-test.
    let target = std::env::current_exe().unwrap();
    let mut command = Command::new(target.ancestors().nth(2).unwrap().join("examples").join(name));
    command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    command
}
