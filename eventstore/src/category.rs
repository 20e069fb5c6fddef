//! Categories of streams, and what is in them.

use crate::{aggregate::Aggregate, event::Event};

/// A category of streams, and the events in it.
///
/// Every [`Aggregate`] is one. Where the events are another service's, this program has no aggregate of them: it names
/// the category, and the type of the public events as it knows them. With that, read models and reactors are made of
/// them as of one's own.
///
/// ```
/// use annals_eventstore::{Category, Event};
/// use serde::{Deserialize, Serialize};
///
/// /// What the lending service publishes of loans.
/// #[derive(Event, Serialize, Deserialize)]
/// enum LoanPublished {
///     Granted { amount: i64 },
/// }
///
/// struct Loans;
///
/// impl Category for Loans {
///     const NAME: &'static str = "loan";
///     type Event = LoanPublished;
/// }
/// ```
pub trait Category: 'static {
    /// Its name.
    const NAME: &'static str;
    /// Its events.
    type Event: Event;
}

impl<A: Aggregate> Category for A {
    const NAME: &'static str = A::CATEGORY;
    type Event = A::Event;
}
