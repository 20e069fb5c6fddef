//! Connections: to no database, to not the right one, and how many there are.

use std::time::Duration;

use annals_eventstore::{Error, EventStore};
use futures::future::join_all;
use tokio::net::TcpListener;

use crate::support::{
    TestDatabase, database::value, eventually, history, one, server, stream, text,
};

const PASSWORD: &str = "hunter2secret";

/// Connects where that must fail, and soon: the timeout is a second.
async fn failure(url: &str) -> Error {
    let options = EventStore::options().connect_timeout(Duration::from_secs(1));
    let connecting = tokio::time::timeout(Duration::from_secs(15), options.connect(url));
    let error = connecting.await.expect("gives up in time").expect_err("no store there");
    let text = text(&error);
    assert!(!text.contains(PASSWORD), "the password is in the error's text: {text}");
    error
}

#[tokio::test]
async fn a_url_that_is_none_is_refused() {
    for url in [
        "",
        "postgres",
        "postgres://[::1/db",
        &format!("postgres://user:{PASSWORD}@host:port/db"),
        &format!("postgres://user:{PASSWORD}@host/db?colour=red"),
        &format!("postgres://user:{PASSWORD}@host/db?sslmode=sometimes"),
        &format!("user:{PASSWORD}@host/db"),
        // Of another tool's making, and mistyped.
        &format!("postgresql+psycopg://user:{PASSWORD}@host/db?sslmode=require"),
        &format!("postgress://user:{PASSWORD}@host/db?sslmode=require"),
        &format!("host=localhost password={PASSWORD} port=x"),
        &format!("host=localhost password='{PASSWORD} port=1"),
    ] {
        let error = failure(url).await;
        // Without a host there is nothing to connect to.
        let refused = matches!(error, Error::InvalidUrl { .. } | Error::Connect { .. });
        assert!(refused, "{url:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_named() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = failure(&format!("postgres://user:{PASSWORD}@127.0.0.1:{port}/books")).await;
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}/books")), "{error}");
    assert!(error.is_retryable(), "the server may come back");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Accepts and says nothing.
    let silent = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok(connection) = listener.accept().await {
            connections.push(connection);
        }
    });
    let error = failure(&format!("postgres://user:{PASSWORD}@127.0.0.1:{port}/books")).await;
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    silent.abort();
}

#[tokio::test]
async fn a_host_that_has_no_address_is_named() {
    let error = failure(&format!("postgres://user:{PASSWORD}@no-such-host.invalid/books")).await;
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named() {
    let database = TestDatabase::create().await;
    let mut url = database.url().replace("dbname='annals_test_", "dbname='no_such_");
    if server().get_password().is_none() {
        url.push_str(&format!(" password={PASSWORD}"));
    }
    let error = failure(&url).await;
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(text(&error).contains("does not exist"), "{}", text(&error));
    assert!(!error.is_retryable(), "it does not come by itself");
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn a_url_that_asks_for_tls_names_the_feature_that_is_missing() {
    let database = TestDatabase::create().await;
    for asked in ["sslmode=require", "sslmode=verify-ca", "sslmode=verify-full", "sslrootcert=/x"] {
        let url = format!("{} {asked}", database.url());
        let error = failure(&url).await;
        assert!(matches!(error, Error::InvalidUrl { .. }), "{error:?}");
        assert!(error.to_string().contains("cargo feature `tls`"), "{error}");
    }
    for plain in ["sslmode=disable", "sslmode=prefer"] {
        EventStore::connect(&format!("{} {plain}", database.url())).await.unwrap();
    }
}

/// The guide says how many there are, and that they are made when they are needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_made_when_needed_and_no_more_than_said() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let store = EventStore::connect(&database.url_as("counted")).await.unwrap();
    let count = async || {
        let sql = "select count(*) from pg_stat_activity
            where datname = current_database() and application_name = 'counted'";
        value::<i64>(&client, sql).await
    };
    eventually("the connection that migrated is gone", async || count().await == 0).await;
    for appended in join_all((0..300).map(|n| store.append(one(stream(n), n)))).await {
        appended.unwrap();
    }
    // Two that append, one for streams that others hold, one for nudges.
    let appending = count().await;
    assert!((1..=4).contains(&appending), "{appending} connections");
    let streams: Vec<_> = (0..300).map(stream).collect();
    for history in join_all(streams.iter().map(|stream| history(&store, stream))).await {
        assert_eq!(history.len(), 1);
    }
    let all = count().await;
    assert!(all > appending && all <= 4 + 8, "{all} connections, {appending} before the reading");
}
