//! What most tests project: ledgers, and audits of them, into one table.

use annals_eventstore::{
    Aggregate, Append, Appended, Apply, Command, Event, EventStore, ExpectedVersion, Handle,
    NewEvent, Recorded, StreamId,
};
use annals_projections::{Change, KeyError, Keys, Project, ReadModel};
use serde::{Deserialize, Serialize};

/// An amount at which a worker that is a process of its own pauses itself.
pub(crate) const PAUSE: i64 = 1_000_000;
/// An amount at which the thread stands still, the first time.
pub(crate) const STALL: i64 = 2_000_000;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum LedgerEvent {
    /// Of the ledger itself.
    Added { amount: i64 },
    /// Of several ledgers, whose streams this is not.
    Shared { ledgers: Vec<String>, amount: i64 },
    /// Changes nothing.
    Noted,
    /// Its row goes; it may come back.
    Closed,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "ledger", event = LedgerEvent)]
pub(crate) struct Ledger;

impl Apply<LedgerEvent> for Ledger {
    fn apply(&mut self, _: &LedgerEvent) {}
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Ledger)]
pub(crate) struct Add {
    #[command(id)]
    pub(crate) ledger: String,
    pub(crate) amount: i64,
}

impl Handle<Add> for Ledger {
    fn handle(&self, command: Add) -> Result<Vec<LedgerEvent>, Self::Error> {
        Ok(vec![LedgerEvent::Added { amount: command.amount }])
    }
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum AuditEvent {
    Passed { ledger: String },
}

/// An audit looks at ledgers: its streams feed the ledgers' rows.
#[derive(Aggregate, Default)]
#[aggregate(category = "audit", event = AuditEvent)]
pub(crate) struct Audit;

impl Apply<AuditEvent> for Audit {
    fn apply(&mut self, _: &AuditEvent) {}
}

/// A row that shows every event that is lost, repeated, or out of order.
#[derive(ReadModel, Serialize, Clone, Debug, PartialEq)]
#[read_model(table = "tallies", from(Ledger, Audit), history)]
pub(crate) struct Tally {
    #[read_model(key)]
    pub(crate) ledger: String,
    pub(crate) total: i64,
    /// How many events were applied since the row began.
    pub(crate) events: i64,
    /// Their positions, in their order.
    pub(crate) trail: i64,
    pub(crate) audits: i64,
}

impl Tally {
    pub(crate) fn new(ledger: &str) -> Self {
        Self { ledger: ledger.to_owned(), total: 0, events: 0, trail: 0, audits: 0 }
    }

    pub(crate) fn at<E>(mut self, event: &Recorded<E>) -> Self {
        self.events += 1;
        self.trail = self.trail.wrapping_mul(31).wrapping_add(event.position.get());
        self
    }
}

impl Project<LedgerEvent> for Tally {
    fn keys(event: &Recorded<LedgerEvent>) -> Result<Keys<String>, KeyError> {
        Ok(match &event.event {
            LedgerEvent::Shared { ledgers, .. } => Keys::many(ledgers.iter().cloned()),
            _ => Keys::one(event.stream.key().to_owned()),
        })
    }

    fn project(_: Option<Self>, _: &Recorded<LedgerEvent>) -> Change<Self> {
        unreachable!("project_row is there")
    }

    fn project_row(key: &String, row: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
        let row = row.unwrap_or_else(|| Self::new(key)).at(event);
        match &event.event {
            LedgerEvent::Added { amount } | LedgerEvent::Shared { amount, .. } => {
                match *amount {
                    PAUSE => crate::paused::pause_if_worker(),
                    STALL => crate::paused::stall_once(),
                    _ => {}
                }
                Change::Set(Self { total: row.total + amount, ..row })
            }
            LedgerEvent::Noted => Change::Keep,
            LedgerEvent::Closed => Change::Delete,
        }
    }
}

impl Project<AuditEvent> for Tally {
    fn keys(event: &Recorded<AuditEvent>) -> Result<Keys<String>, KeyError> {
        let AuditEvent::Passed { ledger } = &event.event;
        Ok(Keys::one(ledger.clone()))
    }

    fn project(row: Option<Self>, event: &Recorded<AuditEvent>) -> Change<Self> {
        // An audit of a ledger without a row changes nothing.
        row.map_or(Change::Keep, |row| {
            Change::Set(Self { audits: row.audits + 1, ..row.at(event) })
        })
    }
}

/// Appends events to a stream in any state.
pub(crate) async fn append<A: Aggregate>(
    store: &EventStore,
    key: &str,
    events: impl IntoIterator<Item = A::Event>,
) -> Appended {
    let events: Vec<_> = events.into_iter().map(|event| NewEvent::of(&event).unwrap()).collect();
    let stream = StreamId::new(A::CATEGORY, key).unwrap();
    store.append(Append::to(stream, ExpectedVersion::Any, events)).await.unwrap()
}

pub(crate) async fn add(store: &EventStore, ledger: &str, amount: i64) -> Appended {
    append::<Ledger>(store, ledger, [LedgerEvent::Added { amount }]).await
}

/// An event of a category that no read model here is built from.
pub(crate) async fn unrelated(store: &EventStore, key: &str) -> Appended {
    let event = NewEvent::raw("happened", 1, annals_eventstore::Payload::from_json("{}").unwrap());
    let stream = StreamId::new("other", key).unwrap();
    store.append(Append::to(stream, ExpectedVersion::Any, [event])).await.unwrap()
}
