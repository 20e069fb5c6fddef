//! The id of an effect is the same on each attempt and in each release, and shared by no other.

use std::{collections::HashSet, sync::Mutex};

use annals_eventstore::{Aggregate, Apply, Event, Payload, testkit::recorded};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::*;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(split("several", Several))]
enum LoanEvent {
    Approved { amount: i64 },
    Declined,
}

/// A stored event that is read as several, or none.
#[derive(Serialize, Deserialize)]
struct Several(Vec<LoanEvent>);

impl From<Several> for Vec<LoanEvent> {
    fn from(Several(parts): Several) -> Self {
        parts
    }
}

#[derive(Aggregate, Default)]
#[aggregate(category = "loan", event = LoanEvent)]
struct Loan;

impl Apply<LoanEvent> for Loan {
    fn apply(&mut self, _: &LoanEvent) {}
}

/// Writes down what it is called with.
struct Mailer {
    name: &'static str,
    calls: Mutex<Vec<(LoanEvent, Effect)>>,
}

impl Mailer {
    fn new(name: &'static str) -> Self {
        Self { name, calls: Mutex::default() }
    }
}

impl Reactor for Mailer {
    fn name(&self) -> &str {
        self.name
    }

    fn sources() -> Vec<ReactorSource<Self>> {
        vec![ReactorSource::of::<Loan>()]
    }
}

impl React<LoanEvent> for Mailer {
    async fn react(&self, event: &Recorded<LoanEvent>, effect: &Effect) -> Result<Reaction, Cause> {
        self.calls.lock().unwrap().push((event.event.clone(), *effect));
        match event.event {
            LoanEvent::Approved { amount: 0 } => Err("no amount".into()),
            LoanEvent::Approved { amount } if amount < 0 => Ok(Reaction::park("below nothing")),
            LoanEvent::Approved { .. } => Ok(Reaction::Done),
            LoanEvent::Declined => {
                Ok(Reaction::RetryAfter(Duration::from_secs(effect.attempt.into())))
            }
        }
    }
}

const APPROVED: LoanEvent = LoanEvent::Approved { amount: 900 };

/// The event as it is stored.
fn stored(position: i64, event: &LoanEvent) -> Recorded {
    recorded::<Loan>("7", 1, position, event.clone()).with_event(event.encode().unwrap())
}

/// The same event, of a type that is now several.
fn split(position: i64, parts: Vec<LoanEvent>) -> Recorded {
    let payload = Payload::from_json(serde_json::to_vec(&Several(parts)).unwrap()).unwrap();
    let mut event = stored(position, &APPROVED).with_event(payload);
    event.event_type = "several".into();
    event
}

fn triggers(event: Recorded) -> Vec<Trigger<Mailer>> {
    let sources = Mailer::sources();
    assert_eq!(sources[0].category(), "loan");
    sources[0].triggers(event).unwrap().into_iter().collect()
}

async fn react(mailer: &Mailer, event: &LoanEvent, attempt: u32) -> Result<Reaction, Cause> {
    let triggers = triggers(stored(3, event));
    assert_eq!((triggers.len(), triggers[0].position().get()), (1, 3));
    triggers[0].react(mailer, attempt).await
}

#[tokio::test]
async fn every_attempt_has_the_same_id_and_its_own_number() {
    let mailer = Mailer::new("mailer");
    for attempt in 1..=3 {
        // Decoded anew, as after a crash.
        assert_eq!(react(&mailer, &APPROVED, attempt).await.unwrap(), Reaction::Done);
    }
    let first = Effect::of("mailer", &stored(3, &APPROVED));
    let calls = mailer.calls.into_inner().unwrap();
    assert_eq!(calls, [1, 2, 3].map(|attempt| (APPROVED, first.attempt(attempt))));
}

#[tokio::test]
async fn a_reaction_says_what_comes_next() {
    let mailer = Mailer::new("mailer");
    let later = react(&mailer, &LoanEvent::Declined, 2).await.unwrap();
    assert_eq!(later, Reaction::RetryAfter(Duration::from_secs(2)));
    let parked = react(&mailer, &LoanEvent::Approved { amount: -1 }, 1).await.unwrap();
    assert_eq!(parked, Reaction::Park("below nothing".to_owned()));
    let failed = react(&mailer, &LoanEvent::Approved { amount: 0 }, 1).await.unwrap_err();
    assert_eq!(failed.to_string(), "no amount");
    assert_eq!(mailer.start(), Start::End, "it sends no mails of years past");
}

#[test]
fn ids_are_shared_by_no_other_reactor_event_or_part() {
    let mut ids = HashSet::new();
    let mut effects = 0;
    for reactor in ["mailer", "mailer2", "audit"] {
        for position in 1..=20 {
            for trigger in triggers(split(position, vec![APPROVED; 4])) {
                let effect = trigger.effect(reactor);
                assert_eq!((effect.attempt, effect.position.get()), (1, position));
                assert_eq!(effect.id.get_version_num(), 5);
                ids.insert(effect.id);
                effects += 1;
            }
        }
    }
    assert_eq!((ids.len(), effects), (240, 240));
}

#[test]
fn splitting_a_type_keeps_the_id_of_the_first_part() {
    let whole = Effect::of("mailer", &stored(3, &APPROVED));
    let parts = triggers(split(3, vec![APPROVED, LoanEvent::Declined]));
    assert_eq!(parts[0].effect("mailer"), whole);
    assert_ne!(parts[1].effect("mailer").id, whole.id);
    assert!(triggers(split(3, vec![])).is_empty());
}

/// Whoever was called under these ids has stored them.
#[test]
fn ids_are_the_same_in_each_release() {
    let of = |part| effect::id("mailer", Uuid::from_u128(7), part).to_string();
    assert_eq!(of(0), "f3af4dcc-8ad4-5574-b053-9f5ff656cdcf");
    assert_eq!(of(1), "95a15972-d04d-519b-8130-3d790ce8fbcc");
}

#[test]
fn an_event_that_does_not_decode_is_named() {
    let mut event = stored(3, &APPROVED);
    event.event_type = "transfused".into();
    let error = Mailer::sources()[0].triggers(event).unwrap_err();
    assert!(error.to_string().contains("transfused") && error.to_string().contains("loan-7"));
}
