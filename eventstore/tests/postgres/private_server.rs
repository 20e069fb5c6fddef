//! The tests' own servers: what other tests build on them is worth nothing if they do not work.

use crate::support::{TestDatabase, eventually, log, one, server::PrivateServer, stream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_killed_and_comes_back_with_what_it_acknowledged() {
    let mut server = PrivateServer::start(&["max_connections=20"]).await;
    let database = TestDatabase::create_on(server.config()).await;
    let store = database.store().await;
    for number in 0..5 {
        store.append(one(stream("a"), number)).await.unwrap();
    }
    server.kill();
    // A store that was connected finds the server again by itself.
    eventually("it is gone", async || store.append(one(stream("a"), 5)).await.is_err()).await;
    server.restart().await;
    eventually("the store appends again", async || store.append(one(stream("b"), 0)).await.is_ok())
        .await;
    assert!(log(&store).await.len() >= 6);
    let client = database.client().await;
    let setting = client.query_one("show max_connections", &[]).await.unwrap();
    assert_eq!(setting.get::<_, &str>(0), "20");
}
