//! Comparing what was built with what is in use.

use annals_projections::ProjectionError;
use serde_json::json;

use super::{Own, Pair, append_many, rebuild};
use crate::support::{
    Running, catch_up,
    database::TestDatabase,
    ledger::{Tally, add},
    load::{Load, seeded},
    oracle::assert_exact,
    worker,
};

#[tokio::test(flavor = "multi_thread")]
async fn each_row_that_differs_is_named_with_both_sides() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for (key, amount) in [("a", 1), ("b", 2), ("c", 3)] {
        add(&store, key, amount).await;
    }
    catch_up::<Tally>(&store).await;
    let rebuild = rebuild::<Tally>(&store);
    let refused = rebuild.compare().await;
    assert!(matches!(refused, Err(ProjectionError::NotRebuilt { .. })), "{refused:?}");
    rebuild.build().await.unwrap();
    let comparison = rebuild.compare().await.unwrap();
    assert!(comparison.is_same(), "{comparison:?}");
    assert_eq!((comparison.live_rows, comparison.rebuilt_rows), (3, 3));
    assert_eq!(comparison.position, store.safe_position().await.unwrap());

    let plant = "update tallies set total = 70 where ledger = 'a'; \
                 delete from tallies where ledger = 'b'; \
                 insert into tallies values ('d', 7, 7, 7, 7, 7)";
    client.batch_execute(plant).await.unwrap();
    let comparison = rebuild.compare().await.unwrap();
    assert_eq!(comparison.different, 3);
    assert_eq!((comparison.live_rows, comparison.rebuilt_rows), (3, 3));
    let [a, b, d] = &comparison.differences[..] else { panic!("{comparison:?}") };
    assert_eq!(a.key, json!({ "ledger": "a" }));
    assert_eq!(a.live.as_ref().unwrap()["total"], 70);
    assert_eq!(a.rebuilt.as_ref().unwrap()["total"], 1);
    assert!(a.rebuilt.as_ref().unwrap().get("valid_from").is_none());
    assert_eq!((&b.key, &b.live), (&json!({ "ledger": "b" }), &None));
    assert_eq!(b.rebuilt.as_ref().unwrap()["total"], 2);
    assert_eq!((&d.key, &d.rebuilt), (&json!({ "ledger": "d" }), &None));

    rebuild.swap().await.unwrap();
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_nothing_differs_but_what_is_planted() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, mut rng) = seeded();
    append_many(&store, &mut rng, 60).await;
    let mut tallies = Running::start(worker::<Tally>(&store).batch_size(3));
    let mut owns = Running::start(worker::<Own>(&store).batch_size(3));
    let mut pairs = Running::start(worker::<Pair>(&store).batch_size(3));
    tallies.caught_up::<Tally>(&store).await;
    owns.caught_up::<Own>(&store).await;
    pairs.caught_up::<Pair>(&store).await;
    client.batch_execute("insert into pairs values ('z', true, 1, 1, 1)").await.unwrap();
    let mut load = Load::start(&store, seed, 3, 600);
    rebuild::<Tally>(&store).build().await.unwrap();
    rebuild::<Own>(&store).build().await.unwrap();
    rebuild::<Pair>(&store).build().await.unwrap();
    let mut compared = 0;
    while compared < 5 || !load.is_done() {
        let comparison = rebuild::<Tally>(&store).compare().await.unwrap();
        assert!(comparison.is_same(), "{comparison:?}");
        let comparison = rebuild::<Own>(&store).compare().await.unwrap();
        assert!(comparison.is_same(), "{comparison:?}");
        let comparison = rebuild::<Pair>(&store).compare().await.unwrap();
        assert_eq!(comparison.different, 1, "{comparison:?}");
        assert_eq!(comparison.differences[0].key, json!({ "ledger": "z", "even": true }));
        compared += 1;
    }
    load.done().await;
    for running in [tallies, owns, pairs] {
        running.stop().await;
    }
}
