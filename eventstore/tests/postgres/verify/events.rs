//! Damage to events, streams and idempotency keys.

use annals_eventstore::{
    Append, Envelope, ExpectedVersion, NewEvent, Payload, Position, StreamState, Version,
    verify::{Check, Finding, Unchecked},
};

use super::{changed, damage, findings, looked_at, of, store_of_three, texts, verify};
use crate::support::{
    TestDatabase,
    counter::{Change, counter},
    events, one, stream,
};

const ANY: ExpectedVersion = ExpectedVersion::Any;

#[tokio::test]
async fn a_sound_store_has_no_findings() {
    let (_database, store, client) = store_of_three().await;
    let both = Append::to(stream("a"), ANY, events([8])).and(stream("d"), ANY, events([8, 9]));
    store.append(both.idempotency_key("both")).await.unwrap();
    store.execute(Change::new("a", [1, 2])).await.unwrap();
    store.execute(Envelope::new(Change::new("a", [])).idempotency_key("none")).await.unwrap();
    store.execute(Envelope::new(Change::new("a", [3, 4])).idempotency_key("two")).await.unwrap();
    // A hole in the positions, and a stream that got no event.
    client
        .batch_execute(
            "begin; select setval('annals.positions', annals.last_position() + 7); rollback;
             insert into annals.streams (category, key, version) values ('thing', 'empty', 0)",
        )
        .await
        .unwrap();
    store.archive_stream(&stream("b"), ANY).await.unwrap();
    store.delete_stream(&stream("c"), ANY).await.unwrap();
    store.archive_stream(&stream("a"), ANY).await.unwrap();
    store.restore_stream(&stream("a")).await.unwrap();
    store.append(one(stream("a"), 10)).await.unwrap();

    let verification = verify(&store).await;
    assert_eq!(verification.findings, []);
    assert!(verification.is_sound());
    assert_eq!(verification.up_to, store.safe_position().await.unwrap());
    let counts = [
        (Check::Log, 20),
        (Check::Payloads, 4),
        (Check::Streams, 6),
        (Check::IdempotencyKeys, 3),
        (Check::Snapshots, 0),
        (Check::States, 0),
    ];
    for (check, count) in counts {
        assert_eq!(looked_at(&verification, check), count, "{check}");
    }
    let category = "thing".to_owned();
    assert_eq!(verification.unchecked, [Unchecked::Payloads { category, events: 16 }]);
    assert_eq!(verification.in_flight, []);
}

#[tokio::test]
async fn an_event_that_is_missing_in_the_middle_is_found() {
    let (_database, store, client) = store_of_three().await;
    let a = stream("a");
    damage(&client, &format!("delete from events where {}", of(&a, 2))).await;
    let (after, next) = (Version::new(1), Version::new(3));
    let gap = Finding::VersionGap { stream: a, after, next, position: Position::new(7) };
    assert_eq!(gap.to_string(), "stream thing-a has no event 2; the next is 3, at position 7");
    assert_eq!((gap.version(), gap.check()), (Some(Version::new(2)), Check::Streams));
    assert_eq!(findings(&store).await, [gap]);
    damage(&client, &format!("delete from events where {}", of(&stream("a"), 3))).await;
    assert_eq!(
        texts(&store).await,
        ["stream thing-a has no event 2 to 3; the next is 4, at position 10"]
    );
}

#[tokio::test]
async fn events_that_are_missing_at_the_end_are_found() {
    let (_database, store, client) = store_of_three().await;
    damage(&client, &format!("delete from events where {}", of(&stream("b"), 4))).await;
    assert_eq!(
        findings(&store).await,
        [Finding::WrongVersion {
            stream: stream("b"),
            version: Version::new(4),
            last: Version::new(3),
        }]
    );
    damage(&client, "delete from events").await;
    assert_eq!(
        texts(&store).await,
        ["a", "b", "c"]
            .map(|key| format!("stream thing-{key} says version 4, and its last event is 0"))
    );
}

#[tokio::test]
async fn an_event_that_is_missing_of_an_archived_or_deleted_stream_is_found() {
    let (_database, store, client) = store_of_three().await;
    store.archive_stream(&stream("a"), ANY).await.unwrap();
    store.delete_stream(&stream("b"), ANY).await.unwrap();
    assert_eq!(findings(&store).await, []);
    damage(&client, &format!("delete from archived_events where {}", of(&stream("a"), 1))).await;
    damage(&client, &format!("delete from events where {}", of(&stream("b"), 3))).await;
    assert_eq!(
        texts(&store).await,
        [
            "stream thing-a has no event 1; the next is 2, at position 4",
            "stream thing-b has no event 3; the next is 4, at position 11",
        ]
    );
}

#[tokio::test]
async fn a_version_that_leaves_a_gap_is_found() {
    let (_database, store, client) = store_of_three().await;
    damage(&client, &format!("update events set version = 9 where {}", of(&stream("c"), 4))).await;
    assert_eq!(
        texts(&store).await,
        [
            "stream thing-c has no event 4 to 8; the next is 9, at position 12",
            "stream thing-c says version 4, and its last event is 9",
        ]
    );
}

#[tokio::test]
async fn a_wrong_version_of_a_stream_is_found() {
    let (_database, store, client) = store_of_three().await;
    for (version, advice) in [(5, "Restore the events"), (3, "Set the version")] {
        let update = format!("update streams set version = {version} where key = 'a'");
        damage(&client, &update).await;
        let found = findings(&store).await;
        let (version, last) = (Version::new(version), Version::new(4));
        assert_eq!(found, [Finding::WrongVersion { stream: stream("a"), version, last }]);
        assert!(found[0].advice().contains(advice), "{}", found[0].advice());
    }
}

#[tokio::test]
async fn events_that_changed_places_are_found() {
    let (_database, store, client) = store_of_three().await;
    let (first, second) = (of(&stream("a"), 1), of(&stream("a"), 2));
    let swap = format!(
        "update events set version = 99 where {first};
         update events set version = 1 where {second};
         update events set version = 2 where {}",
        of(&stream("a"), 99)
    );
    damage(&client, &swap).await;
    assert_eq!(
        texts(&store).await,
        ["event 2 of stream thing-a stands at position 1, before the stream's earlier event at 4"]
    );
}

#[tokio::test]
async fn a_position_that_an_archived_event_has_too_is_found() {
    let (_database, store, client) = store_of_three().await;
    damage(
        &client,
        &format!("insert into archived_events select * from events where {}", of(&stream("b"), 2)),
    )
    .await;
    let (stream, version, position) = (stream("b"), Version::new(2), Position::new(5));
    assert_eq!(
        findings(&store).await,
        [
            Finding::PositionTwice { position, stream: Some(stream.clone()), version },
            Finding::VersionTwice { stream: stream.clone(), version, position },
            Finding::Misplaced { stream, state: StreamState::Live, events: 1 },
        ]
    );
}

#[tokio::test]
async fn a_position_that_is_taken_twice_is_found_wherever_a_page_ends() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    store.append(Append::to(stream("a"), ANY, events(1..=10_010))).await.unwrap();
    for (from, count) in [(1_990, 20), (9_990, 20)] {
        let copy = format!(
            "insert into archived_events
             select * from events where position between {from} and {from} + {count} - 1"
        );
        damage(&client, &copy).await;
        let verification = verify(&store).await;
        let positions: Vec<_> = (verification.findings.iter())
            .filter(|finding| matches!(finding, Finding::PositionTwice { .. }))
            .filter_map(Finding::position)
            .map(Position::get)
            .collect();
        assert_eq!(positions, (from..from + count).collect::<Vec<_>>());
        assert_eq!(looked_at(&verification, Check::Log), 10_010 + count as u64);
        damage(&client, "delete from archived_events").await;
    }
}

#[tokio::test]
async fn a_stream_that_is_not_where_its_events_are_is_found() {
    let (_database, store, client) = store_of_three().await;
    damage(&client, "update streams set state = 2 where key = 'a'").await;
    assert_eq!(
        texts(&store).await,
        ["stream thing-a is archived, and 4 of its events are in events"]
    );
    damage(&client, "update streams set state = 0").await;
    store.archive_stream(&stream("a"), ANY).await.unwrap();
    damage(&client, "update streams set state = 1 where key = 'a'").await;
    assert_eq!(
        texts(&store).await,
        ["stream thing-a is deleted, and 4 of its events are in archived_events"]
    );
}

#[tokio::test]
async fn a_time_that_goes_back_is_found() {
    let (_database, store, client) = store_of_three().await;
    damage(
        &client,
        "update events set recorded_at = recorded_at - interval '1 day' where position = 6",
    )
    .await;
    let found = findings(&store).await;
    assert_eq!(found.len(), 1, "{found:?}");
    let Finding::TimeWentBack { position, stream: of, version, recorded_at, before } = &found[0]
    else {
        panic!("{found:?}")
    };
    assert_eq!((position.get(), of.clone(), version.get()), (6, Some(stream("c")), 2));
    assert!(recorded_at < before);
}

#[tokio::test]
async fn events_without_their_stream_are_found() {
    let (_database, store, client) = store_of_three().await;
    damage(&client, "delete from streams where key = 'b'").await;
    let found = findings(&store).await;
    let positions: Vec<_> = found.iter().map(|finding| finding.position().unwrap().get()).collect();
    assert_eq!(positions, [2, 5, 8, 11]);
    assert!(found.iter().all(|one| one.kind() == "event_without_stream"), "{found:?}");
}

#[tokio::test]
async fn payloads_that_do_not_decode_are_found() {
    let (_database, store, client) = store_of_three().await;
    let raw = |kind: &str, version, json: &'static str| {
        NewEvent::raw(kind, version, Payload::from_json(json).unwrap())
    };
    let odd = [
        changed(1),
        raw("changed", 1, r#"{"by":"much"}"#),
        raw("vanished", 1, "{}"),
        raw("changed", 7, r#"{"by":1}"#),
    ];
    store.append(Append::to(counter("odd"), ANY, odd)).await.unwrap();
    // Also of streams that loads do not see.
    store.delete_stream(&counter("odd"), ANY).await.unwrap();
    store.append(Append::to(counter("old"), ANY, [raw("vanished", 1, "{}")])).await.unwrap();
    store.archive_stream(&counter("old"), ANY).await.unwrap();
    let found = findings(&store).await;
    let named: Vec<_> = found
        .iter()
        .map(|finding| {
            assert_eq!(finding.kind(), "undecodable");
            let (stream, version) = (finding.stream().unwrap(), finding.version().unwrap());
            (stream.to_string(), version.get(), finding.position().unwrap().get())
        })
        .collect();
    let expected = [("odd", 2, 14), ("odd", 3, 15), ("odd", 4, 16), ("old", 1, 17)];
    assert_eq!(named, expected.map(|(key, version, at)| (format!("counter-{key}"), version, at)));
    for (finding, reason) in
        found.iter().zip(["invalid type", "no variant", "deploy the newer", "no variant"])
    {
        assert!(finding.to_string().contains(reason), "{finding}");
    }
    // What was damaged later, and so is no JSON of an event any more.
    damage(&client, &format!("update events set payload = '7' where {}", of(&counter("odd"), 1)))
        .await;
    assert_eq!(findings(&store).await.len(), 5);
}

#[tokio::test]
async fn metadata_that_cannot_be_read_is_found() {
    let (_database, store, client) = store_of_three().await;
    damage(&client, r#"update events set metadata = '{"actor":7}' where position = 3"#).await;
    let found = findings(&store).await;
    let (stream, version) = (Some(stream("c")), Version::new(1));
    let Finding::MetadataUnreadable { reason, .. } = &found[0] else { panic!("{found:?}") };
    let (position, reason) = (Position::new(3), reason.clone());
    assert_eq!(found, [Finding::MetadataUnreadable { stream, version, position, reason }]);
}

#[tokio::test]
async fn a_key_whose_events_are_gone_is_found() {
    let (_database, store, client) = store_of_three().await;
    let keyed = |key: &str| {
        Append::to(stream(key), ANY, events([1, 2, 3])).idempotency_key(format!("key-{key}"))
    };
    store.append(keyed("x")).await.unwrap();
    store.append(keyed("y")).await.unwrap();
    store.archive_stream(&stream("y"), ANY).await.unwrap();
    assert_eq!(findings(&store).await, []);
    damage(
        &client,
        "insert into idempotency (key, fingerprint, version, position, events)
         values ('orphan', '', 1, 99, 2)",
    )
    .await;
    damage(&client, &format!("delete from archived_events where {}", of(&stream("y"), 3))).await;
    let keys: Vec<_> =
        (texts(&store).await.into_iter()).filter(|text| text.contains("key")).collect();
    assert_eq!(
        keys,
        [
            "idempotency key \"key-y\" led to 3 events up to position 18, and 2 of them can be found",
            "idempotency key \"orphan\" led to 2 events up to position 99, and 0 of them can be found",
        ]
    );
}

#[tokio::test]
async fn many_findings_are_counted_and_the_first_are_kept() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    // More than a page of streams.
    let mut all = Append::to(stream(0), ANY, events([1]));
    for key in 1..2_500 {
        all = all.and(stream(key), ANY, events([1]));
    }
    store.append(all).await.unwrap();
    let verification = verify(&store).await;
    assert!(verification.is_sound());
    assert_eq!(looked_at(&verification, Check::Streams), 2_500);
    damage(&client, "update streams set version = 2").await;
    let verification = store.verify().max_findings(7).run().await.unwrap();
    assert_eq!((verification.findings.len(), verification.findings_left_out), (7, 2_493));
    assert!(!verification.is_sound());
    let none = store.verify().max_findings(0).run().await.unwrap();
    assert!(!none.is_sound());
}
