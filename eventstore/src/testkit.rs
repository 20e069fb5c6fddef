//! Given, when, then: tests of aggregates without a database.
//!
//! ```
//! # use annals_eventstore::{Aggregate, Apply, Command, Event, Handle};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
//! # enum AccountEvent { Deposited { amount: i64 }, Withdrawn { amount: i64 } }
//! # #[derive(Debug, PartialEq, thiserror::Error)]
//! # #[error("not enough money")]
//! # struct Overdrawn;
//! # #[derive(Aggregate, Default)]
//! # #[aggregate(category = "account", event = AccountEvent, error = Overdrawn)]
//! # struct Account { balance: i64 }
//! # impl Apply<AccountEvent> for Account {
//! #     fn apply(&mut self, event: &AccountEvent) {
//! #         match event {
//! #             AccountEvent::Deposited { amount } => self.balance += amount,
//! #             AccountEvent::Withdrawn { amount } => self.balance -= amount,
//! #         }
//! #     }
//! # }
//! # #[derive(Command, Serialize, Clone)]
//! # #[command(aggregate = Account)]
//! # struct Withdraw { #[command(id)] account: String, amount: i64 }
//! # impl Handle<Withdraw> for Account {
//! #     fn handle(&self, command: Withdraw) -> Result<Vec<AccountEvent>, Overdrawn> {
//! #         if command.amount > self.balance { return Err(Overdrawn); }
//! #         Ok(vec![AccountEvent::Withdrawn { amount: command.amount }])
//! #     }
//! # }
//! use annals_eventstore::testkit::Given;
//!
//! Given::<Account>(vec![AccountEvent::Deposited { amount: 100 }])
//!     .when(Withdraw { account: "ada".into(), amount: 30 })
//!     .then(vec![AccountEvent::Withdrawn { amount: 30 }]);
//!
//! Given::<Account>(vec![])
//!     .when(Withdraw { account: "ada".into(), amount: 30 })
//!     .then_rejected(Overdrawn);
//! ```

#[cfg(feature = "faults")]
pub mod faults;

use std::fmt::Debug;

use uuid::Uuid;

use crate::{
    Aggregate, Command, Event, Handle, Metadata, Payload, Position, Recorded, StreamId, Version,
};

/// A record of an event, for tests of what consumes events. It counts as recorded `position` seconds
/// after the start of 1970.
///
/// # Panics
/// If `key` cannot be the key of a stream.
#[track_caller]
pub fn recorded<A: Aggregate>(
    key: impl std::fmt::Display,
    version: i64,
    position: i64,
    event: A::Event,
) -> Recorded<A::Event> {
    let stream = match StreamId::new(A::CATEGORY, key) {
        Ok(stream) => stream,
        Err(error) => panic!("{error}"),
    };
    let kind = event.event_type();
    Recorded {
        position: Position::new(position),
        stream,
        version: Version::new(version),
        id: Uuid::from_u128(position.unsigned_abs().into()),
        event_type: kind.name.into(),
        schema_version: kind.version,
        recorded_at: chrono::DateTime::from_timestamp(position, 0).unwrap_or_default(),
        occurred_at: None,
        metadata: Metadata::new(),
        event,
    }
}

/// What an event is read as that is stored under this name, in this schema version, with this JSON: for
/// tests of upcasters.
///
/// ```
/// use annals_eventstore::{Event, testkit::stored};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// enum AccountEvent {
///     #[event(version = 2, alias = "paid_in")]
///     Deposited {
///         #[serde(alias = "sum")]
///         amount: i64,
///     },
/// }
///
/// let events = stored::<AccountEvent>("paid_in", 1, r#"{"sum":100}"#);
/// assert_eq!(events, [AccountEvent::Deposited { amount: 100 }]);
/// ```
///
/// # Panics
/// If it does not decode.
#[track_caller]
pub fn stored<E: Event>(name: &str, version: u32, json: &str) -> Vec<E> {
    let payload = match Payload::from_json(json.to_owned()) {
        Ok(payload) => payload,
        Err(error) => panic!("{json} is not JSON: {error}"),
    };
    match E::decode(name, version, &payload) {
        Ok(events) => events.into_iter().collect(),
        Err(error) => match std::error::Error::source(&error) {
            Some(source) => panic!("{name:?} version {version}: {error}: {source}"),
            None => panic!("{name:?} version {version}: {error}"),
        },
    }
}

/// The events that have happened before the test's command.
#[derive(Clone, Debug)]
pub struct Given<A: Aggregate>(pub Vec<A::Event>);

impl<A: Aggregate> Given<A> {
    /// The state that the events lead to.
    pub fn state(&self) -> A {
        let mut state = A::default();
        self.0.iter().for_each(|event| state.apply(event));
        state
    }

    /// Lets the aggregate decide on a command.
    pub fn when<C>(self, command: C) -> When<A>
    where
        A: Handle<C>,
        C: Command<Aggregate = A>,
    {
        When { outcome: self.state().handle(command), given: self }
    }
}

/// What the aggregate decided.
#[derive(Debug)]
#[must_use = "say what is expected with then, then_rejected or then_state"]
pub struct When<A: Aggregate> {
    given: Given<A>,
    outcome: Result<Vec<A::Event>, A::Error>,
}

impl<A: Aggregate> When<A> {
    /// The events, or the refusal, to look at by hand.
    ///
    /// # Errors
    /// The aggregate's refusal.
    pub fn outcome(self) -> Result<Vec<A::Event>, A::Error> {
        self.outcome
    }

    /// Expects exactly these events.
    ///
    /// # Panics
    /// If the aggregate decided otherwise.
    #[track_caller]
    pub fn then(self, expected: impl Into<Vec<A::Event>>)
    where
        A::Event: Debug + PartialEq,
    {
        match self.outcome {
            Ok(events) => assert_eq!(events, expected.into(), "the command led to other events"),
            Err(error) => panic!("the command was rejected: {error}"),
        }
    }

    /// Expects that the command is rejected for this reason.
    ///
    /// # Panics
    /// If the aggregate decided otherwise.
    #[track_caller]
    pub fn then_rejected(self, expected: A::Error)
    where
        A::Event: Debug,
        A::Error: PartialEq,
    {
        match self.outcome {
            Ok(events) => panic!("the command was accepted and led to {events:?}"),
            Err(error) => {
                assert_eq!(error, expected, "the command was rejected for another reason")
            }
        }
    }

    /// Expects that the command is accepted and that its events lead to this state.
    ///
    /// # Panics
    /// If the command was rejected, or the state is another.
    #[track_caller]
    pub fn then_state(self, expected: &A)
    where
        A: Debug + PartialEq,
    {
        let mut state = self.given.state();
        match self.outcome {
            Ok(events) => events.iter().for_each(|event| state.apply(event)),
            Err(error) => panic!("the command was rejected: {error}"),
        }
        assert_eq!(&state, expected, "the events lead to another state");
    }
}
