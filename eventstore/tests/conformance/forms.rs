//! What has a form before any store sees it.

use annals_eventstore::{Error, EventQuery, EventStore, Payload, StreamId};

#[test]
fn stream_names_have_a_form() {
    for (category, key) in [
        ("", "1"),
        ("Thing", "1"),
        ("1thing", "1"),
        ("th-ing", "1"),
        ("thing", ""),
        ("thing", "a\nb"),
        ("thing", &"x".repeat(256)),
        (&"x".repeat(65), "1"),
    ] {
        let error = StreamId::new(category, key).unwrap_err();
        assert!(matches!(error, Error::InvalidStream { .. }), "{category:?} {key:?}: {error}");
    }
    assert_eq!(StreamId::new("thing_2", "a-b c").unwrap().to_string(), "thing_2-a-b c");
}

#[test]
fn what_is_not_json_is_no_payload() {
    for text in ["", "{", "{} {}", "{'a':1}", "nul", "01", "\"\n\"", "[1,]", "NaN"] {
        assert!(Payload::from_json(text).is_err(), "{text:?}");
    }
    let error = Error::Encode { what: "x".into(), source: Payload::from_json("{").unwrap_err() };
    assert_eq!(error.to_string(), "cannot encode x as JSON");
}

/// What is accepted here fails later: in the database, or in every reader.
#[test]
fn what_is_not_text_is_no_payload() {
    let not_text: [&[u8]; 4] = [b"\"\xff\"", br#""\ud800""#, br#"{"\udc00":1}"#, b"\"\xc3\x28\""];
    for text in not_text {
        assert!(Payload::from_json(text).is_err(), "{:?}", String::from_utf8_lossy(text));
    }
}

#[test]
fn a_stored_query_with_an_unknown_part_is_refused() {
    let query = EventQuery::stream(&StreamId::new("thing", "a-1").unwrap())
        .event_types(["x"])
        .limit(3)
        .backward();
    let stored = serde_json::to_string(&query).unwrap();
    assert_eq!(serde_json::from_str::<EventQuery>(&stored).unwrap(), query);
    // An older program must not leave out a filter that it does not know.
    let newer = stored.replacen('{', r#"{"tags":["y"],"#, 1);
    assert!(serde_json::from_str::<EventQuery>(&newer).is_err());
    let invalid = stored.replace("a-1", "");
    assert!(serde_json::from_str::<EventQuery>(&invalid).is_err());
}

#[tokio::test]
async fn a_store_in_memory_has_no_sql() {
    let store = EventStore::in_memory();
    assert!(matches!(store.database(), Err(Error::NeedsPostgres { .. })));
    let unit = store.begin().await.unwrap();
    assert!(matches!(unit.sql(), Err(Error::NeedsPostgres { .. })));
    assert!(store.in_flight().await.unwrap().is_empty());
}
