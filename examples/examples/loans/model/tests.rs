//! The domain, without a store.

use annals::{EventShapes, Payload, testkit::Given};

use super::*;

const AMOUNT: i64 = 20_000;

fn reached(status: Status) -> LoanApplicationEvent {
    LoanApplicationEvent::StatusReached {
        status,
        amount_requested: AMOUNT,
        resource: Some("112".into()),
    }
}

fn offer(state: OfferState) -> LoanApplicationEvent {
    LoanApplicationEvent::OfferMoved { state, amount_requested: AMOUNT, resource: None }
}

fn scheduled(kind: &str) -> LoanApplicationEvent {
    LoanApplicationEvent::WorkScheduled {
        kind: kind.into(),
        amount_requested: AMOUNT,
        resource: None,
    }
}

fn completed(kind: &str) -> LoanApplicationEvent {
    LoanApplicationEvent::WorkCompleted {
        kind: kind.into(),
        amount_requested: AMOUNT,
        resource: None,
    }
}

fn record(activity: Activity) -> Record {
    Record {
        application: "173688".into(),
        at: DateTime::UNIX_EPOCH,
        amount_requested: AMOUNT,
        activity,
        resource: None,
    }
}

fn dossier(events: &[LoanApplicationEvent]) -> Dossier {
    Given::<LoanApplication>(events.to_vec()).state().dossier.expect("there are events")
}

#[test]
fn a_submission_opens_the_dossier() {
    Given::<LoanApplication>(vec![])
        .when(Record {
            resource: Some("112".into()),
            ..record(Activity::Application(Status::Submitted))
        })
        .then(vec![reached(Status::Submitted)]);
}

#[test]
fn any_activity_may_come_first() {
    for (step, event) in [
        (WorkStep::Scheduled, scheduled("Nabellen offertes")),
        (WorkStep::Completed, completed("Nabellen offertes")),
    ] {
        Given::<LoanApplication>(vec![])
            .when(record(Activity::Work { kind: "Nabellen offertes".into(), step }))
            .then(vec![event]);
    }
    Given::<LoanApplication>(vec![])
        .when(record(Activity::Offer(OfferState::SentBack)))
        .then(vec![offer(OfferState::SentBack)]);
}

#[test]
fn work_may_start_without_having_been_scheduled() {
    Given::<LoanApplication>(vec![reached(Status::Submitted)])
        .when(record(Activity::Work { kind: "Valideren aanvraag".into(), step: WorkStep::Started }))
        .then(vec![LoanApplicationEvent::WorkStarted {
            kind: "Valideren aanvraag".into(),
            amount_requested: AMOUNT,
            resource: None,
        }]);
}

#[test]
fn states_follow_each_other_in_any_order_and_repeat() {
    Given::<LoanApplication>(vec![reached(Status::Activated), reached(Status::Declined)])
        .when(record(Activity::Application(Status::Declined)))
        .then_state(&LoanApplication {
            dossier: Some(Dossier {
                amount_requested: AMOUNT,
                status: Some(Status::Declined),
                offers_created: 0,
                work: BTreeMap::new(),
            }),
        });
}

#[test]
fn the_amount_never_changes() {
    Given::<LoanApplication>(vec![scheduled("Afhandelen leads")])
        .when(Record {
            amount_requested: 25_000,
            ..record(Activity::Application(Status::Accepted))
        })
        .then_rejected(LoanApplicationError::AmountChanged {
            application: "173688".into(),
            amount_requested: AMOUNT,
            claimed: 25_000,
        });
}

#[test]
fn a_refusal_says_both_amounts() {
    let error = LoanApplicationError::AmountChanged {
        application: "173688".into(),
        amount_requested: 20_000,
        claimed: 25_000,
    };
    assert_eq!(
        error.to_string(),
        "application 173688 is about 20000 euros and cannot become one about 25000"
    );
}

#[test]
fn only_created_offers_count() {
    let events: Vec<_> = OfferState::ALL.into_iter().map(offer).collect();
    let dossier = dossier(&[events.clone(), events].concat());
    assert_eq!((dossier.offers_created, dossier.status), (2, None));
}

#[test]
fn work_of_one_kind_does_not_make_up_for_another() {
    let dossier = dossier(&[
        scheduled("Nabellen offertes"),
        completed("Nabellen offertes"),
        completed("Nabellen offertes"),
        scheduled("Valideren aanvraag"),
        scheduled("Valideren aanvraag"),
    ]);
    assert_eq!(dossier.open_work_items(), 2);
    assert_eq!(dossier.work["Nabellen offertes"], -1);
}

#[test]
fn completed_before_it_is_scheduled_it_is_not_open() {
    let dossier = dossier(&[completed("Afhandelen leads"), scheduled("Afhandelen leads")]);
    assert_eq!(dossier.open_work_items(), 0);
}

#[test]
fn events_are_stored_under_stable_names_with_small_payloads() {
    let stored = |event: &LoanApplicationEvent| {
        let payload = event.encode().unwrap();
        let again = LoanApplicationEvent::decode(event.event_type().name, 1, &payload).unwrap();
        assert_eq!(again.as_slice(), std::slice::from_ref(event));
        let json = String::from_utf8(payload.as_bytes().to_vec()).unwrap();
        (event.event_type().name, json)
    };
    assert_eq!(
        stored(&reached(Status::PartlySubmitted)),
        (
            "status_reached",
            r#"{"status":"partlysubmitted","amount_requested":20000,"resource":"112"}"#.into()
        )
    );
    assert_eq!(
        stored(&offer(OfferState::SentBack)),
        ("offer_moved", r#"{"state":"sent_back","amount_requested":20000}"#.into())
    );
    assert_eq!(
        stored(&completed("Nabellen offertes")),
        ("work_completed", r#"{"kind":"Nabellen offertes","amount_requested":20000}"#.into())
    );
    assert!(
        LoanApplicationEvent::decode(
            "status_reached",
            1,
            &Payload::from_json(r#"{"status":"lost","amount_requested":1}"#).unwrap()
        )
        .is_err()
    );
}

#[test]
fn stored_events_keep_their_shapes() {
    let shapes = EventShapes::new().aggregate::<LoanApplication>();
    shapes.assert_locked("examples/loans/events.lock");
}

#[test]
fn every_status_and_offer_state_serializes_as_its_name() {
    for status in Status::ALL {
        assert_eq!(serde_json::to_value(status).unwrap(), status.name());
    }
    for state in OfferState::ALL {
        assert_eq!(serde_json::to_value(state).unwrap(), state.name());
    }
}

#[test]
fn the_same_row_at_another_time_is_another_command() {
    let command = record(Activity::Offer(OfferState::Created));
    let later = Record { at: command.at + chrono::TimeDelta::seconds(1), ..command.clone() };
    assert_eq!(command.stream_key(), "173688");
    assert_ne!(serde_json::to_value(&command).unwrap(), serde_json::to_value(&later).unwrap());
}
