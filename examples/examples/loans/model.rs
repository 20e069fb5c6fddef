//! The write side: a loan application, what happens to it, and the one command that records it.
//!
//! The bank's log is a record of facts, not a process that somebody designed: work is completed
//! that was never started, and states follow each other in orders that no diagram shows. So the
//! aggregate accepts whatever happened, and refuses only what contradicts the log itself.

use std::collections::BTreeMap;

use annals::{Aggregate, Apply, Command, Event, Handle, JsonSchema, Shape};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What the bank has made of an application so far.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Shape, JsonSchema,
)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Shape, JsonSchema)]
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
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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

// By its path, since another example includes this file by its own.
#[cfg(test)]
#[path = "model/tests.rs"]
mod tests;
