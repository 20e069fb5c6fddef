//! A standby, and its promotion to take the primary's place.

use std::fs;

use annals_eventstore::{Error, Position};

use crate::support::{
    TestDatabase, assert_sound, eventually, log, one, server::PrivateServer, stream, text,
};

fn is_refused(error: &Error) -> bool {
    text(error).contains("AN007") && !error.is_retryable()
}

/// It may lack events that are recorded, and sees nothing of appends in flight. What it lacks when it is
/// promoted must not come back as other events at the same positions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_does_not_answer_and_when_promoted_uses_no_position_again() {
    let mut server = PrivateServer::start(&[]).await;
    let database = TestDatabase::create_on(server.config()).await;
    let store = database.store().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    let recorded_at = log(&store).await[0].recorded_at;
    drop(store);
    server.stop();
    // It waits for a primary that never comes, and lets readers in.
    fs::write(server.data().join("standby.signal"), "").unwrap();
    server.restart().await;

    let store = database.store().await;
    let error = store.position_at(recorded_at).await.unwrap_err();
    assert!(is_refused(&error), "{error:?}");
    let error = store.safe_position().await.unwrap_err();
    assert!(is_refused(&error), "{error:?}");
    let error = store.append(one(stream("a"), 2)).await.unwrap_err();
    assert!(matches!(error, Error::Database { .. }), "{error:?}");

    let client = database.client().await;
    let promoted = client.query_one("select pg_promote()", &[]).await.unwrap();
    assert!(promoted.get::<_, bool>(0), "it is promoted");
    let again = one(stream("a"), 2).idempotency_key("again");
    eventually("it appends", async || store.append(again.clone()).await.is_ok()).await;
    let log = log(&store).await;
    assert_sound(&log);
    assert_eq!(store.verify().run().await.unwrap().findings, []);
    assert_eq!(log.len(), 2);
    let far = Position::new(1 << 24);
    assert!(log[1].position > far, "positions go on behind a gap: {}", log[1].position);
    assert_eq!(store.position_at(recorded_at).await.unwrap(), log[0].position);
}
