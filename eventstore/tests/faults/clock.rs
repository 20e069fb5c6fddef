//! The database's clock is set back.

use annals_eventstore::{EventStore, Options, Position};
use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::Client;

use crate::support::{TestDatabase, assert_sound, direct, log, one, stream};

/// Gives the store's functions a clock of the test's: they find this function before PostgreSQL's.
async fn take_the_clock(client: &Client) {
    client
        .batch_execute(
            "create table annals.test_clock (ahead interval);
             insert into annals.test_clock values ('0');
             create function annals.clock_timestamp() returns timestamptz language sql volatile
             as 'select pg_catalog.clock_timestamp() + ahead from annals.test_clock'",
        )
        .await
        .unwrap();
}

async fn set_the_clock(client: &Client, ahead: &str) {
    let sql = format!("update annals.test_clock set ahead = '{ahead}'");
    client.batch_execute(&sql).await.unwrap();
}

async fn now(client: &Client) -> DateTime<Utc> {
    client.query_one("select annals.clock_timestamp()", &[]).await.unwrap().get(0)
}

/// A store all of whose statements go by the test's clock.
async fn store(database: &TestDatabase) -> EventStore {
    let url = format!("{} options='-c search_path=annals,pg_catalog'", database.url());
    Options::default().connect(&url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recording_times_never_go_back() {
    let database = TestDatabase::create().await;
    let store = store(&database).await;
    let client = database.client().await;
    take_the_clock(&client).await;
    for (number, ahead) in (0..).zip(["0", "1 day", "-1 day", "0", "-10 years", "2 days", "0"]) {
        set_the_clock(&client, ahead).await;
        store.append(one(stream(number % 2), number)).await.unwrap();
        // One that is rolled back moves time, too, and takes none of it away.
        if number % 3 == 0 {
            client.batch_execute("begin").await.unwrap();
            direct::append(&client, "gone", &direct::ids(1)).await.unwrap();
            client.batch_execute("rollback").await.unwrap();
        }
    }
    let log = log(&store).await;
    assert_sound(&log);
    assert_eq!(store.verify().run().await.unwrap().findings, []);
    let span = log[6].recorded_at - log[0].recorded_at;
    assert!(span > TimeDelta::hours(47), "the test's clock is not the store's: {log:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_as_of_a_time_stays_when_the_clock_is_set_back() {
    let database = TestDatabase::create().await;
    let store = store(&database).await;
    let client = database.client().await;
    take_the_clock(&client).await;
    let empty = now(&client).await;
    assert_eq!(store.position_at(empty).await.unwrap(), Position::START);
    set_the_clock(&client, "-1 hour").await;
    assert_eq!(store.position_at(empty).await.unwrap(), Position::START, "asked again");
    let mut last = store.append(one(stream("a"), 0)).await.unwrap().last_position;
    assert_eq!(store.position_at(empty).await.unwrap(), Position::START, "of the empty log");

    for number in 1..5 {
        set_the_clock(&client, &format!("{number} days")).await;
        // No event proves that this time is over.
        let time = now(&client).await;
        assert_eq!(store.position_at(time).await.unwrap(), last);
        let time_in_sql = now(&client).await;
        let asking = database.client().await;
        asking.batch_execute("set search_path = annals, pg_catalog").await.unwrap();
        let sql = "select annals.position_at($1)";
        let answer: i64 = asking.query_one(sql, &[&time_in_sql]).await.unwrap().get(0);
        assert_eq!(Position::new(answer), last);

        set_the_clock(&client, &format!("{number} days -6 hours")).await;
        let next = store.append(one(stream("a"), number)).await.unwrap().last_position;
        assert_eq!(store.position_at(time).await.unwrap(), last, "the answer has changed");
        assert_eq!(store.position_at(time_in_sql).await.unwrap(), last, "the answer has changed");
        last = next;
    }
    assert_sound(&log(&store).await);
    assert_eq!(store.verify().run().await.unwrap().findings, []);
}

/// Asking must not push time on: a later event would be stamped with a time that has not come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_can_push_time_on_by_asking() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let client = database.client().await;
    for (moment, passed) in
        [("2100-01-01", false), ("infinity", false), ("2000-01-01", true), ("-infinity", true)]
    {
        let sql = format!("select annals.time_passed('{moment}')");
        assert_eq!(
            client.query_one(&sql, &[]).await.unwrap().get::<_, bool>(0),
            passed,
            "{moment}"
        );
    }
    let far = "select annals.position_at('2050-01-01', '2100-01-01')";
    client.batch_execute(far).await.unwrap();
    store.append(one(stream("a"), 1)).await.unwrap();
    assert!(log(&store).await[0].recorded_at < Utc::now() + TimeDelta::hours(1));
}

/// A transaction that can set no counter is answered all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_transaction_may_ask() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let last = store.append(one(stream("a"), 1)).await.unwrap().last_position;
    let client = database.client().await;
    client.batch_execute("set default_transaction_read_only = on").await.unwrap();
    let sql = "select annals.position_at(clock_timestamp() - interval '1 microsecond')";
    let answer: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(Position::new(answer), last);
}
