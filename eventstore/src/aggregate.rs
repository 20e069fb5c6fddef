//! Aggregates: state folded from events, and the decisions made on it. Pure, without I/O.

use crate::{
    event::Event,
    ids::{Position, Version},
    shape::ShapeText,
    shown::Shown,
    snapshot::Snapshots,
};

/// The state of one stream, folded from its events.
///
/// Derive it, and implement [`Apply`] for the fold. `Default` is the state before the first event.
///
/// ```
/// use annals_eventstore::{Aggregate, Apply, Event};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// enum AccountEvent {
///     Deposited { amount: i64 },
/// }
///
/// #[derive(Aggregate, Default)]
/// #[aggregate(category = "account", event = AccountEvent)]
/// struct Account {
///     balance: i64,
/// }
///
/// impl Apply<AccountEvent> for Account {
///     fn apply(&mut self, event: &AccountEvent) {
///         match event {
///             AccountEvent::Deposited { amount } => self.balance += amount,
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate",
    label = "not an aggregate",
    note = "add `#[derive(Aggregate, Default)]` and `#[aggregate(category = \"...\", event = ...)]`"
)]
pub trait Aggregate: Apply<Self::Event> + Default + Send + Sync + 'static {
    /// The category of its streams.
    const CATEGORY: &'static str;
    /// Its events.
    type Event: Event;
    /// Why it refuses commands.
    type Error: std::error::Error + Send + Sync + 'static;
    /// How its state is kept in snapshots; never, if `None`. `#[snapshot(..)]` beside the derive sets it.
    const SNAPSHOTS: Option<Snapshots<Self>> = None;

    /// A copy of the state for a load that the cache answers; `None` where it cannot be copied, and
    /// every load reads the database. The derive copies what is `Clone`.
    fn duplicate(&self) -> Option<Self> {
        None
    }

    /// The state for people to look at, on the command line or in a log: as JSON where it is `Serialize`,
    /// else as its `Debug` prints it. The derive finds out.
    ///
    /// # Errors
    /// If its `Serialize` fails.
    fn shown(&self) -> serde_json::Result<Shown> {
        Ok(Shown::Hidden)
    }

    /// The shape of the state when it is serialized, as text ([`Shape`](crate::Shape)): other text means
    /// that what was written under the old one does not fit.
    ///
    /// What does not say otherwise is opaque: changes of it are not noticed.
    fn shape() -> String {
        ShapeText::written(|text| text.opaque(std::any::type_name::<Self>()))
    }
}

/// How one event changes the state.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how `{E}` changes it",
    label = "`Apply<{E}>` is missing",
    note = "write `impl Apply<{E}> for {Self} {{ fn apply(&mut self, event: &{E}) {{ .. }} }}`"
)]
pub trait Apply<E> {
    /// Applies an event. It cannot refuse: the event has happened.
    fn apply(&mut self, event: &E);
}

/// An aggregate as loaded: its state, and how far it has been folded.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Loaded<A> {
    /// The state.
    pub state: A,
    /// The version of the last event in it.
    pub version: Version,
    /// The position of the last event in it.
    pub position: Position,
}

impl<A: Aggregate> Loaded<A> {
    /// The state before the first event.
    pub(crate) fn initial() -> Self {
        Self { state: A::default(), version: Version::NONE, position: Position::START }
    }

    /// `None` for a stream without events.
    pub(crate) fn if_exists(self) -> Option<Self> {
        (self.version > Version::NONE).then_some(self)
    }
}

/// Lets the derive macro copy a state that is `Clone` and leave another alone: of two traits, the
/// compiler takes the one that needs no further reference, if the state has it. Likewise what is
/// `Serialize` or `Debug` is shown.
#[derive(Debug)]
pub struct State<'a, A>(pub &'a A);

/// The copy of a state that is `Clone`.
pub trait Copied<A> {
    /// Copies it.
    fn copied(&self) -> Option<A>;
}

impl<A: Clone> Copied<A> for State<'_, A> {
    fn copied(&self) -> Option<A> {
        Some(self.0.clone())
    }
}

/// A state that is not `Clone`.
pub trait NotCopied<A> {
    /// There is no copy.
    fn copied(&self) -> Option<A>;
}

impl<A> NotCopied<A> for &State<'_, A> {
    fn copied(&self) -> Option<A> {
        None
    }
}
