//! Which events are published, as what, and to which topics.
#![cfg(feature = "kafka")]
// Also in the helpers of tests.
#![allow(clippy::unwrap_used)]

mod kafka_support;

use annals_eventstore::{
    Append, Event, ExpectedVersion, Metadata, NewEvent, Payload, Recorded, StreamId,
    kafka::{Disclosure, TopicSpec},
};
use kafka_support::{PARTITIONS, Setup, event, read_topic};
use serde::{Deserialize, Serialize};

async fn append(setup: &Setup, category: &str, key: &str, events: Vec<NewEvent>) {
    let stream = StreamId::new(category, key).unwrap();
    setup.store.append(Append::to(stream, ExpectedVersion::Any, events)).await.unwrap();
}

fn raw(kind: &str, version: u32, json: &'static str) -> NewEvent {
    NewEvent::raw(kind, version, Payload::from_json(json).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_named_categories_are_published_and_the_position_passes_the_others() {
    let setup = Setup::new().await;
    setup.append(120).await;
    append(&setup, "loan", "last", vec![event("{}")]).await;
    append(&setup, "member_card", "last", vec![event("{}"), event("{}")]).await;
    let end = setup.store.safe_position().await.unwrap();
    let progress = setup.publish_all(setup.publisher().only_categories(["loan"])).await;

    let log = setup.log().await;
    let loans: Vec<_> = log.iter().filter(|event| event.stream.category() == "loan").collect();
    assert_eq!(setup.topic_content("loan").len(), loans.len());
    assert_eq!(progress.published, loans.len() as u64);
    assert_eq!(setup.topic_content("member_card").len(), 0);
    assert!(!setup.topic_exists("member_card"), "nobody needs it");
    assert_eq!(setup.checkpoint().await, end.get());
}

#[tokio::test(flavor = "multi_thread")]
async fn filtered_events_are_left_out_and_passed() {
    let setup = Setup::new().await;
    setup.append(200).await;
    let end = setup.store.safe_position().await.unwrap();
    let odd = |event: &Recorded| event.version.get() % 2 == 1;
    let progress = setup.publish_all(setup.publisher().filter(odd)).await;

    let mut expected: Vec<_> =
        setup.log().await.into_iter().filter(odd).map(|event| event.position).collect();
    let contents = ["loan", "member_card"].map(|category| setup.topic_content(category));
    let mut seen: Vec<_> = contents.iter().flatten().map(|message| message.position()).collect();
    expected.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, expected);
    assert_eq!(progress.published, expected.len() as u64);
    assert_eq!(setup.checkpoint().await, end.get());

    // Nothing at all is published, and it goes on.
    setup.append(30).await;
    let end = setup.store.safe_position().await.unwrap();
    let progress = setup.publish_all(setup.publisher().filter(|_| false)).await;
    assert_eq!(progress.published, 0);
    assert_eq!(setup.checkpoint().await, end.get());
}

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    #[event(version = 2, upcast_from = LentV1)]
    Lent {
        cents: i64,
        ssn: String,
    },
    Scored {
        score: u8,
    },
}

#[derive(Deserialize)]
struct LentV1 {
    euros: i64,
}

impl From<LentV1> for LoanEvent {
    fn from(LentV1 { euros }: LentV1) -> Self {
        Self::Lent { cents: 100 * euros, ssn: String::new() }
    }
}

/// What others know of loans.
#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
enum PublicLoan {
    #[event(name = "loan.lent", version = 3)]
    Lent { amount: i64 },
}

fn public(loan: &Recorded<LoanEvent>) -> Option<PublicLoan> {
    match &loan.event {
        LoanEvent::Lent { cents, .. } => Some(PublicLoan::Lent { amount: *cents }),
        LoanEvent::Scored { .. } => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mapped_events_are_published_in_their_public_form() {
    let setup = Setup::new().await;
    let loans = vec![
        raw("lent", 1, r#"{"euros":2}"#),
        raw("scored", 1, r#"{"score":7}"#),
        raw("lent", 2, r#"{"cents":250,"ssn":"078-05-1120"}"#).metadata(Metadata::new().actor("x")),
    ];
    append(&setup, "loan", "7", loans).await;
    // A category that is not mapped goes through byte for byte.
    append(&setup, "member_card", "7", vec![event(r#"{ "n" : 1.50 }"#)]).await;
    let builder = setup.publisher().map("loan", public).schemas("https://schemas.example.org/l");
    let progress = setup.publish_all(builder).await;
    assert_eq!(progress.published, 3);

    let messages = setup.topic_content("loan");
    let seen: Vec<_> = messages.iter().map(|message| message.read(&setup.context)).collect();
    let decoded = seen.iter().map(|event| event.clone().decode::<PublicLoan>().unwrap().one());
    let amounts: Vec<_> = decoded.map(|event| event.unwrap().event).collect();
    assert_eq!(amounts, [200, 250].map(|amount| PublicLoan::Lent { amount }));
    let log = setup.log().await;
    for (event, private) in seen.iter().zip([&log[0], &log[2]]) {
        assert_eq!((&*event.event_type, event.schema_version), ("loan.lent", 3));
        assert_eq!(
            (event.position, event.version, event.id, &event.stream, event.recorded_at),
            (private.position, private.version, private.id, &private.stream, private.recorded_at),
        );
    }
    let kind = format!("{}.loan.loan.lent.v3", setup.context);
    for message in &messages {
        assert_eq!(message.headers["ce_type"], kind);
        let schema = "https://schemas.example.org/l/loan.loan.lent.v3.json";
        assert_eq!(message.headers["ce_dataschema"], schema);
        assert!(!String::from_utf8_lossy(&message.payload).contains("078-05-1120"));
    }
    let cards = setup.topic_content("member_card");
    assert_eq!(cards[0].payload, br#"{ "n" : 1.50 }"#);
    let schema = "https://schemas.example.org/l/member_card.Noted.v1.json";
    assert_eq!(cards[0].headers["ce_dataschema"], schema);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_a_public_form_stops_the_publisher_and_nothing_passes_it() {
    let setup = Setup::new().await;
    let mut loans: Vec<_> = (0..80).map(|_| raw("lent", 1, r#"{"euros":2}"#)).collect();
    loans[69] = raw("lent", 2, r#"{"cents":"many"}"#);
    append(&setup, "loan", "7", loans).await;
    let error = setup.failure(setup.publisher().map("loan", public)).await;
    for part in ["event 70 of stream loan-7, at position 70", "\"lent\" version 2", "does not fit"]
    {
        assert!(error.contains(part), "{error}");
    }
    // The batch before it is published; the checkpoint may be on its way there.
    assert!(setup.checkpoint().await <= 50);
    assert_eq!(setup.topic_content("loan").len(), 50);

    // A mapping that can do without the payload goes on where the other one stopped.
    #[derive(Event, Serialize, Deserialize)]
    #[event(dropped("lent"))]
    enum Forgiving {
        Scored { score: u8 },
    }
    let nothing = |_: &Recorded<Forgiving>| None::<PublicLoan>;
    setup.publish_all(setup.publisher().map("loan", nothing)).await;
    assert_eq!(setup.checkpoint().await, 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_chooses_the_topic_of_a_stream() {
    let setup = Setup::new().await;
    for key in ["eu:1", "us:1", "eu:2", "plain"] {
        append(&setup, "loan", key, vec![event("{}"), event("{}")]).await;
    }
    append(&setup, "loan", "eu:1", vec![event("{}")]).await;
    let context = setup.context.clone();
    let route = move |stream: &StreamId| {
        let (region, _) = stream.key().split_once(':')?;
        Some(format!("{context}.loan.{region}"))
    };
    let [eu, us] = ["eu", "us"].map(|region| format!("{}.loan.{region}", setup.context));
    let builder = setup.publisher().route(route.clone());
    setup.publish_all(builder.topic(&eu, TopicSpec::new().partitions(1))).await;
    let keys = |topic: &str| {
        let messages = read_topic(&setup.brokers, topic);
        messages.into_iter().map(|m| String::from_utf8(m.key).unwrap()).collect::<Vec<_>>()
    };
    // It has one partition, so it is in the order of the log.
    assert_eq!(keys(&eu), ["eu:1", "eu:1", "eu:2", "eu:2", "eu:1"]);
    assert_eq!(keys(&us), ["us:1", "us:1"]);
    assert_eq!(keys(&setup.topic("loan")), ["plain", "plain"]);
    assert_eq!(setup.partitions(&us), usize::from(PARTITIONS));

    append(&setup, "loan", "a b:1", vec![event("{}")]).await;
    let error = setup.failure(setup.publisher().route(route)).await;
    for part in ["event 1 of stream loan-a b:1, at position 10", ".loan.a b\""] {
        assert!(error.contains(part), "{error}");
    }
}

/// The checker of topics knows what the publisher was told.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_verified_by_the_same_options() {
    let setup = Setup::new().await;
    append(&setup, "loan", "eu:1", vec![raw("lent", 1, r#"{"euros":2}"#)]).await;
    append(&setup, "loan", "eu:1", vec![raw("scored", 1, r#"{"score":7}"#)]).await;
    append(&setup, "member_card", "1", vec![event("{}"), event("[]")]).await;
    let elsewhere = format!("{}.elsewhere", setup.context);
    let topic = elsewhere.clone();
    let builder = setup
        .publisher()
        .map("loan", public)
        .filter(|event| event.event.as_bytes() != b"[]")
        .route(move |stream| (stream.category() == "loan").then(|| topic.clone()))
        .schemas("https://schemas.example.org/lending/");
    setup.publish_all(builder.clone()).await;
    let verification = builder.clone().verify(&setup.store).unwrap().run().await.unwrap();
    assert!(verification.is_sound(), "{:?}", verification.findings);
    assert_eq!(verification.topics.iter().map(|topic| topic.records).sum::<u64>(), 2);

    let stricter = builder.topic(elsewhere, TopicSpec::new()).filter(|_| false);
    let verification = stricter.verify(&setup.store).unwrap().run().await.unwrap();
    let kinds: Vec<_> = verification.findings.iter().map(|finding| finding.kind()).collect();
    assert_eq!(kinds, ["withheld"; 2], "{:?}", verification.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_it_is_published_on_request() {
    let setup = Setup::new().await;
    let metadata = Metadata::new().actor("ada").with("channel", "web").correlation_id("c");
    append(&setup, "loan", "1", vec![event("{}").metadata(metadata)]).await;
    setup.publish_all(setup.publisher().metadata(Disclosure::All)).await;
    let message = &setup.topic_content("loan")[0];
    assert_eq!(message.read(&setup.context), setup.log().await[0]);
    assert_eq!(message.headers["ce_actor"], "ada");
}
