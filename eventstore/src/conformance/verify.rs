//! A verification has nothing against a sound store, and names what cannot be read.

use annals_eventstore::{
    Append, Envelope, EventStore, ExpectedVersion, NewEvent, Payload,
    verify::{Check, Finding},
};

use super::support::{
    counter::{Change, Counter, counter},
    one,
    snapshots::{Count, KeepTwo},
    stream,
};

const ANY: ExpectedVersion = ExpectedVersion::Any;

pub(crate) async fn a_sound_store_has_no_findings(store: &EventStore) {
    let verification = store.verify().run().await.unwrap();
    assert!(verification.is_sound(), "an empty one: {:?}", verification.findings);
    for number in 0..5 {
        for key in ["live", "deleted", "archived"] {
            store.append(one(stream(key), number)).await.unwrap();
        }
        store
            .execute(Envelope::new(Count("a".into(), number)).idempotency_key(number.to_string()))
            .await
            .unwrap();
    }
    store.execute(Change::new("b", [1, 2])).await.unwrap();
    store.snapshot::<KeepTwo>("a").await.unwrap();
    store.delete_stream(&stream("deleted"), ANY).await.unwrap();
    store.archive_stream(&stream("archived"), ANY).await.unwrap();
    let verify = store.verify().aggregate::<Counter>().aggregate::<KeepTwo>();
    let verification = verify.run().await.unwrap();
    assert_eq!(verification.findings, []);
    assert_eq!(verification.up_to, store.safe_position().await.unwrap());
    for (check, expected) in [(Check::Log, 22), (Check::Payloads, 7), (Check::Streams, 5)] {
        let checked = verification.checked.iter().find(|checked| checked.check == check).unwrap();
        assert_eq!((checked.looked_at, checked.findings), (expected, 0), "{check}");
    }
    assert_eq!(verification.unchecked.len(), 1, "{:?}", verification.unchecked);
}

pub(crate) async fn what_cannot_be_decoded_is_found(store: &EventStore) {
    store.execute(Change::new("a", [1, 2])).await.unwrap();
    let odd = NewEvent::raw("vanished", 3, Payload::from_json("{}").unwrap());
    let position = store.append(Append::to(counter("a"), ANY, [odd])).await.unwrap().last_position;
    let verification = store.verify().aggregate::<Counter>().run().await.unwrap();
    let [finding] = &*verification.findings else { panic!("{:?}", verification.findings) };
    assert!(matches!(finding, Finding::Undecodable { schema_version: 3, .. }), "{finding}");
    let version = finding.version().map(|version| version.get());
    assert_eq!((finding.stream(), version), (Some(&counter("a")), Some(3)));
    assert_eq!(finding.position(), Some(position));
    // Who does not say what the events are is not told.
    assert!(store.verify().run().await.unwrap().is_sound());
}
