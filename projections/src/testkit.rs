//! Tests of read models without a database.
//!
//! ```
//! # use annals_eventstore::{Aggregate, Apply, Event, Recorded};
//! # use annals_projections::{Change, Project, ReadModel};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Event, Serialize, Deserialize)]
//! # enum AccountEvent { Deposited { amount: i64 } }
//! # #[derive(Aggregate, Default)]
//! # #[aggregate(category = "account", event = AccountEvent)]
//! # struct Account;
//! # impl Apply<AccountEvent> for Account { fn apply(&mut self, _: &AccountEvent) {} }
//! # #[derive(ReadModel, Clone, Debug, PartialEq)]
//! # #[read_model(table = "account_overview", from(Account))]
//! # struct AccountOverview { #[read_model(key)] account: String, balance: i64 }
//! # impl Project<AccountEvent> for AccountOverview {
//! #     fn project(row: Option<Self>, event: &Recorded<AccountEvent>) -> Change<Self> {
//! #         let AccountEvent::Deposited { amount } = event.event;
//! #         let balance = row.map_or(0, |row| row.balance) + amount;
//! #         Change::Set(AccountOverview { account: event.stream.key().to_owned(), balance })
//! #     }
//! # }
//! use annals_projections::testkit::Projected;
//!
//! Projected::<AccountOverview>::new()
//!     .event::<Account>("ada", AccountEvent::Deposited { amount: 100 })
//!     .event::<Account>("ada", AccountEvent::Deposited { amount: 20 })
//!     .then("ada".to_owned(), Some(AccountOverview { account: "ada".into(), balance: 120 }));
//! ```

#[cfg(feature = "faults")]
pub mod faults;

use std::{collections::HashMap, fmt::Debug};

use annals_eventstore::{
    Aggregate,
    testkit::{recorded, stored},
};

use crate::{
    read_model::{Project, ReadModel, Step},
    rows::{Batch, Rows},
};

/// A read model in memory, fed event by event.
#[derive(Debug)]
pub struct Projected<R: ReadModel> {
    rows: Rows<R>,
    versions: HashMap<String, i64>,
    position: i64,
}

impl<R: ReadModel> Default for Projected<R> {
    fn default() -> Self {
        Self { rows: Rows::default(), versions: HashMap::new(), position: 0 }
    }
}

impl<R: ReadModel> Projected<R> {
    /// A read model without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Projects the next event of an aggregate's stream.
    ///
    /// # Panics
    /// If the event's keys cannot be made out, or the row has another key than it was asked for.
    #[track_caller]
    #[must_use]
    pub fn event<A: Aggregate>(self, key: impl std::fmt::Display, event: A::Event) -> Self
    where
        R: Project<A::Event>,
    {
        self.events::<A>(key, vec![event])
    }

    /// Projects the next event of an aggregate's stream as it is stored: under this name, in this schema
    /// version, with this JSON. Where its type was split or dropped, that is several events or none.
    ///
    /// # Panics
    /// If it does not decode, else as [`event`](Self::event).
    #[track_caller]
    #[must_use]
    pub fn stored<A: Aggregate>(
        self,
        key: impl std::fmt::Display,
        name: &str,
        version: u32,
        json: &str,
    ) -> Self
    where
        R: Project<A::Event>,
    {
        self.events::<A>(key, stored::<A::Event>(name, version, json))
    }

    /// Projects what the next stored event is read as.
    #[track_caller]
    fn events<A: Aggregate>(mut self, key: impl std::fmt::Display, events: Vec<A::Event>) -> Self
    where
        R: Project<A::Event>,
    {
        self.position += 1;
        let version = self.versions.entry(format!("{}-{key}", A::CATEGORY)).or_default();
        *version += 1;
        let version = *version;
        let mut batch = Batch::default();
        for event in events {
            let step = match Step::of(recorded::<A>(&key, version, self.position, event)) {
                Ok(step) => step,
                Err(error) => panic!("{error}"),
            };
            if let Err(error) = batch.step(&self.rows, &step) {
                panic!("{error}");
            }
        }
        self.rows.merge(batch, |_| ());
        self
    }

    /// The row with this key.
    pub fn row(&self, key: &R::Key) -> Option<&R> {
        self.rows.get(key)
    }

    /// Expects this row, or none, under this key.
    ///
    /// # Panics
    /// If there is another.
    #[track_caller]
    pub fn then(&self, key: R::Key, expected: Option<R>) -> &Self
    where
        R: Debug + PartialEq,
    {
        assert_eq!(self.row(&key), expected.as_ref(), "the row is another");
        self
    }
}
