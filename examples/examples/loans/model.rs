//! The write side: a loan application, what happens to it, and the one command that records it.
//!
//! The bank's log is a record of facts, not a process that somebody designed: work is completed
//! that was never started, and states follow each other in orders that no diagram shows. So the
//! aggregate accepts whatever happened, and refuses only what contradicts the log itself.

use std::collections::BTreeMap;

use annals::{Aggregate, Apply, Command, Event, Handle, Shape};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What the bank has made of an application so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Shape)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Submitted,
    PartlySubmitted,
    Preaccepted,
    Accepted,
    Finalized,
    Registered,
    Approved,
    Activated,
    Declined,
    Cancelled,
}

impl Status {
    pub(crate) const ALL: [Self; 10] = [
        Self::Submitted,
        Self::PartlySubmitted,
        Self::Preaccepted,
        Self::Accepted,
        Self::Finalized,
        Self::Registered,
        Self::Approved,
        Self::Activated,
        Self::Declined,
        Self::Cancelled,
    ];

    /// Its name in reports and in SQL: the log's, in lower case.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::PartlySubmitted => "partlysubmitted",
            Self::Preaccepted => "preaccepted",
            Self::Accepted => "accepted",
            Self::Finalized => "finalized",
            Self::Registered => "registered",
            Self::Approved => "approved",
            Self::Activated => "activated",
            Self::Declined => "declined",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where an offer to the customer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Shape)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OfferState {
    Selected,
    Created,
    Sent,
    SentBack,
    Accepted,
    Cancelled,
    Declined,
}

impl OfferState {
    pub(crate) const ALL: [Self; 7] = [
        Self::Selected,
        Self::Created,
        Self::Sent,
        Self::SentBack,
        Self::Accepted,
        Self::Cancelled,
        Self::Declined,
    ];

    /// The log's name for it, in lower case.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Selected => "selected",
            Self::Created => "created",
            Self::Sent => "sent",
            Self::SentBack => "sent_back",
            Self::Accepted => "accepted",
            Self::Cancelled => "cancelled",
            Self::Declined => "declined",
        }
    }
}

/// How far a piece of work for a person has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WorkStep {
    Scheduled,
    Started,
    Completed,
}

/// What one row of the log says happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activity {
    Application(Status),
    Offer(OfferState),
    Work { kind: String, step: WorkStep },
}

/// What happens to a loan application.
///
/// Each event repeats the amount, as the log does, so a stream can begin with any of them. When it
/// happened is the event's `recorded_at`: the log is imported with the log's own clock.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum LoanApplicationEvent {
    /// The application reached another state, or the same one once more.
    StatusReached {
        status: Status,
        amount_requested: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
    },
    /// One of the application's offers moved on. The log does not say which one.
    OfferMoved {
        state: OfferState,
        amount_requested: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
    },
    /// A piece of work was put on the list.
    WorkScheduled {
        kind: String,
        amount_requested: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
    },
    /// Somebody took up a piece of work, or took it up again.
    WorkStarted {
        kind: String,
        amount_requested: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
    },
    /// Somebody put a piece of work aside, done or not.
    WorkCompleted {
        kind: String,
        amount_requested: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
    },
}

impl LoanApplicationEvent {
    /// The amount that the application is about, in whole euros.
    pub(crate) fn amount_requested(&self) -> i64 {
        match self {
            Self::StatusReached { amount_requested, .. }
            | Self::OfferMoved { amount_requested, .. }
            | Self::WorkScheduled { amount_requested, .. }
            | Self::WorkStarted { amount_requested, .. }
            | Self::WorkCompleted { amount_requested, .. } => *amount_requested,
        }
    }
}

/// What the events of one application add up to.
///
/// The aggregate and the read model keep it in different shapes, one in memory and one in a table,
/// and both fold events with [`Dossier::after`]: there is one place that says what an event means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dossier {
    /// In whole euros.
    pub(crate) amount_requested: i64,
    /// The state that the application reached last; `None` before the first.
    pub(crate) status: Option<Status>,
    /// How many offers were ever created.
    pub(crate) offers_created: i64,
    /// For each kind of work, how often it was scheduled less how often it was completed. Work is
    /// often completed more than once, so this falls below zero.
    pub(crate) work: BTreeMap<String, i64>,
}

impl Dossier {
    /// The dossier once `event` has happened; there is none before the first event.
    pub(crate) fn after(before: Option<Self>, event: &LoanApplicationEvent) -> Self {
        let mut dossier = before.unwrap_or_else(|| Self {
            amount_requested: event.amount_requested(),
            status: None,
            offers_created: 0,
            work: BTreeMap::new(),
        });
        match event {
            LoanApplicationEvent::StatusReached { status, .. } => dossier.status = Some(*status),
            LoanApplicationEvent::OfferMoved { state, .. } => {
                dossier.offers_created += i64::from(*state == OfferState::Created);
            }
            LoanApplicationEvent::WorkScheduled { kind, .. } => dossier.balance(kind, 1),
            LoanApplicationEvent::WorkStarted { .. } => {}
            LoanApplicationEvent::WorkCompleted { kind, .. } => dossier.balance(kind, -1),
        }
        dossier
    }

    fn balance(&mut self, kind: &str, change: i64) {
        match self.work.get_mut(kind) {
            Some(balance) => *balance += change,
            None => {
                self.work.insert(kind.to_owned(), change);
            }
        }
    }

    /// How many pieces of work wait to be completed. Completing one kind of work too often does
    /// not make up for another kind that waits.
    pub(crate) fn open_work_items(&self) -> i64 {
        self.work.values().map(|balance| (*balance).max(0)).sum()
    }
}

/// One application for a loan.
#[derive(Aggregate, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[aggregate(
    category = "loan_application",
    event = LoanApplicationEvent,
    error = LoanApplicationError
)]
pub(crate) struct LoanApplication {
    /// `None` before the first event.
    pub(crate) dossier: Option<Dossier>,
}

impl Apply<LoanApplicationEvent> for LoanApplication {
    fn apply(&mut self, event: &LoanApplicationEvent) {
        self.dossier = Some(Dossier::after(self.dossier.take(), event));
    }
}

/// Why the bank's log cannot be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoanApplicationError {
    /// An application is about one amount from its first day to its last.
    #[error(
        "application {application} is about {amount_requested} euros and cannot become one about {claimed}"
    )]
    AmountChanged {
        application: String,
        /// What the application is about.
        amount_requested: i64,
        /// What the command says that it is about.
        claimed: i64,
    },
}

/// Records one row of the bank's log.
#[derive(Command, Clone, Debug, PartialEq, Serialize)]
#[command(aggregate = LoanApplication)]
pub(crate) struct Record {
    #[command(id)]
    pub(crate) application: String,
    /// When it happened. The event's `recorded_at` says it once it is recorded; it stands here so
    /// that the same row at another time is another command.
    pub(crate) at: DateTime<Utc>,
    /// In whole euros.
    pub(crate) amount_requested: i64,
    pub(crate) activity: Activity,
    /// Who did it, if known.
    pub(crate) resource: Option<String>,
}

impl Handle<Record> for LoanApplication {
    fn handle(&self, command: Record) -> Result<Vec<LoanApplicationEvent>, LoanApplicationError> {
        let Record { application, amount_requested, activity, resource, .. } = command;
        if let Some(dossier) = &self.dossier
            && dossier.amount_requested != amount_requested
        {
            return Err(LoanApplicationError::AmountChanged {
                application,
                amount_requested: dossier.amount_requested,
                claimed: amount_requested,
            });
        }
        Ok(vec![match activity {
            Activity::Application(status) => {
                LoanApplicationEvent::StatusReached { status, amount_requested, resource }
            }
            Activity::Offer(state) => {
                LoanApplicationEvent::OfferMoved { state, amount_requested, resource }
            }
            Activity::Work { kind, step: WorkStep::Scheduled } => {
                LoanApplicationEvent::WorkScheduled { kind, amount_requested, resource }
            }
            Activity::Work { kind, step: WorkStep::Started } => {
                LoanApplicationEvent::WorkStarted { kind, amount_requested, resource }
            }
            Activity::Work { kind, step: WorkStep::Completed } => {
                LoanApplicationEvent::WorkCompleted { kind, amount_requested, resource }
            }
        }])
    }
}

#[cfg(test)]
mod tests {
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
            .when(record(Activity::Work {
                kind: "Valideren aanvraag".into(),
                step: WorkStep::Started,
            }))
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
}
