//! Snapshots that are not what they say.

use annals_eventstore::{
    Append, EventStore, ExpectedVersion, Position, Version,
    verify::{Check, Finding, Unchecked, Verification},
};
use tokio_postgres::Client;

use super::{changed, damage, looked_at, of};
use crate::support::{
    TestDatabase,
    counter::counter,
    snapshots::{ByHand, EveryOne, Plain, earlier},
};

async fn verify(store: &EventStore) -> Verification {
    store.verify().aggregate::<ByHand>().aggregate::<Plain>().run().await.unwrap()
}

/// Streams `counter-a` to `counter-c` with snapshots at the versions 3, 6 and 9 each.
async fn store_with_snapshots() -> (TestDatabase, EventStore, Client) {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    for numbers in [[1, 2, 3], [4, 5, 6], [7, 8, 9]] {
        for key in ["a", "b", "c"] {
            let append = Append::to(counter(key), ExpectedVersion::Any, numbers.map(changed));
            store.append(append).await.unwrap();
            store.snapshot::<ByHand>(key).await.unwrap();
        }
    }
    let verification = verify(&store).await;
    assert_eq!((verification.findings, verification.unchecked), (vec![], vec![]));
    (database, store, client)
}

#[tokio::test]
async fn snapshots_are_compared_with_their_folds() {
    let (_database, store, _client) = store_with_snapshots().await;
    let verification = verify(&store).await;
    assert_eq!(looked_at(&verification, Check::Snapshots), 9);
    assert_eq!(looked_at(&verification, Check::States), 9);
    // Of archived and deleted streams too.
    store.archive_stream(&counter("a"), ExpectedVersion::Any).await.unwrap();
    store.delete_stream(&counter("b"), ExpectedVersion::Any).await.unwrap();
    let verification = verify(&store).await;
    assert_eq!((verification.findings.len(), looked_at(&verification, Check::States)), (0, 9));
}

#[tokio::test]
async fn a_snapshot_that_was_tampered_with_is_found() {
    let (_database, store, client) = store_with_snapshots().await;
    store.archive_stream(&counter("b"), ExpectedVersion::Any).await.unwrap();
    client
        .batch_execute(
            r#"update annals.snapshots set state = '{"total":21,"last":[1,2,3,4,6,5]}'
               where version = 6 and stream_id = (select id from annals.streams where key = 'b')"#,
        )
        .await
        .unwrap();
    let findings = verify(&store).await.findings;
    assert_eq!(
        findings,
        [Finding::SnapshotDiffers {
            stream: counter("b"),
            name: "ByHand".to_owned(),
            version: Version::new(6),
            position: Position::new(15),
            at: "/last/4".to_owned(),
        }]
    );
    assert_eq!(
        findings[0].to_string(),
        "the snapshot of ByHand of stream counter-b at version 6, position 15, is not the fold of its \
         events: it differs at /last/4"
    );
}

#[tokio::test]
async fn a_state_in_another_spelling_is_the_same() {
    let (_database, store, client) = store_with_snapshots().await;
    let sql = r#"update annals.snapshots set state =
        '{ "last" : [1, 2, 3], "more": null, "total" : 6 }' where version = 3"#;
    client.batch_execute(sql).await.unwrap();
    assert_eq!(verify(&store).await.findings, []);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_is_found() {
    let (_database, store, client) = store_with_snapshots().await;
    let sql = r#"update annals.snapshots set state = '{"total":"much"}' where version = 9
        and stream_id = (select id from annals.streams where key = 'c')"#;
    client.batch_execute(sql).await.unwrap();
    let findings = verify(&store).await.findings;
    assert_eq!(findings.len(), 1, "{findings:?}");
    let finding = &findings[0];
    assert_eq!(finding.kind(), "snapshot_unreadable");
    let named = (finding.stream(), finding.version(), finding.position());
    assert_eq!(named, (Some(&counter("c")), Some(Version::new(9)), Some(Position::new(27))));
}

#[tokio::test]
async fn a_snapshot_of_no_event_is_found() {
    let (_database, store, client) = store_with_snapshots().await;
    client
        .batch_execute(
            "update annals.snapshots set position = position + 1
             where version = 3 and stream_id = (select id from annals.streams where key = 'a');
             update annals.snapshots set version = 10
             where version = 9 and stream_id = (select id from annals.streams where key = 'b');
             update annals.snapshots set stream_id = 999
             where version = 6 and stream_id = (select id from annals.streams where key = 'c')",
        )
        .await
        .unwrap();
    let findings = verify(&store).await.findings;
    let texts: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "the snapshot of ByHand is of event 3 of stream counter-a at position 4, which does not exist",
            "the snapshot of ByHand is of event 10 of stream counter-b at position 24, which does not exist",
            "the snapshot of ByHand is of event 6 of a stream that does not exist at position 18, which \
             does not exist",
        ]
    );
    assert!(findings.iter().all(|one| one.check() == Check::Snapshots));
}

#[tokio::test]
async fn snapshots_of_other_shapes_and_other_aggregates_are_unchecked() {
    let (_database, store, _client) = store_with_snapshots().await;
    store.snapshot::<earlier::EveryOne>("a").await.unwrap();
    let unchecked = async |store: &EventStore| verify(store).await.unchecked;
    let (category, name) = ("counter".to_owned(), "EveryOne".to_owned());
    let snapshots = 1;
    assert_eq!(
        unchecked(&store).await,
        [Unchecked::Snapshots { category: category.clone(), name: name.clone(), snapshots }]
    );
    let verification =
        store.verify().aggregate::<EveryOne>().aggregate::<ByHand>().run().await.unwrap();
    assert_eq!(verification.findings, []);
    assert_eq!(
        verification.unchecked,
        [Unchecked::OutdatedSnapshots { category, name, snapshots }]
    );
    // Both shapes at once: each is compared with its own.
    let both = store.verify().aggregate::<EveryOne>().aggregate::<earlier::EveryOne>();
    assert_eq!(looked_at(&both.run().await.unwrap(), Check::States), 1);
}

#[tokio::test]
async fn what_cannot_be_folded_is_unchecked_and_its_cause_a_finding() {
    let (_database, store, client) = store_with_snapshots().await;
    damage(&client, &format!("delete from events where {}", of(&counter("a"), 5))).await;
    damage(&client, &format!("update events set payload = '7' where {}", of(&counter("b"), 7)))
        .await;
    let verification = verify(&store).await;
    let kinds: Vec<_> = verification.findings.iter().map(Finding::kind).collect();
    assert_eq!(kinds, ["undecodable", "version_gap"]);
    let (category, name) = ("counter".to_owned(), "ByHand".to_owned());
    assert_eq!(verification.unchecked, [Unchecked::Unfoldable { category, name, snapshots: 3 }]);
    assert_eq!(looked_at(&verification, Check::States), 6);
}
