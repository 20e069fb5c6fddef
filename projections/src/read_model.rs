//! Read models: rows of a table, each a fold of the events that touch it. Pure, without I/O.

use std::{collections::HashSet, sync::Arc};

use annals_eventstore::{
    Category, Decoded, Error as StoreError, Event, Position, Recorded, StreamId, Version,
};
use tokio_postgres::Row;

pub use crate::definition::{ColumnDef, IndexDef};
use crate::{
    column::{Column, SqlParam, SqlValue},
    error::EventFailure,
    guard::{Cause, guarded},
};

/// One row of a read model. Derive it.
///
/// ```
/// use annals_eventstore::{Aggregate, Apply, Event, Recorded};
/// use annals_projections::{Change, Project, ReadModel};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// enum AccountEvent {
///     Opened { owner: String },
///     Deposited { amount: i64 },
///     Closed,
/// }
/// # #[derive(Aggregate, Default)]
/// # #[aggregate(category = "account", event = AccountEvent)]
/// # struct Account;
/// # impl Apply<AccountEvent> for Account { fn apply(&mut self, _: &AccountEvent) {} }
///
/// #[derive(ReadModel, Clone)]
/// #[read_model(table = "account_overview", from(Account), history)]
/// struct AccountOverview {
///     #[read_model(key)]
///     account: String,
///     owner: String,
///     balance: i64,
/// }
///
/// impl Project<AccountEvent> for AccountOverview {
///     fn project(row: Option<Self>, event: &Recorded<AccountEvent>) -> Change<Self> {
///         match (&event.event, row) {
///             (AccountEvent::Opened { owner }, _) => Change::Set(AccountOverview {
///                 account: event.stream.key().to_owned(),
///                 owner: owner.clone(),
///                 balance: 0,
///             }),
///             (AccountEvent::Deposited { amount }, Some(row)) => {
///                 Change::Set(AccountOverview { balance: row.balance + amount, ..row })
///             }
///             (AccountEvent::Closed, _) => Change::Delete,
///             (_, None) => Change::Keep,
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a read model",
    label = "not a read model",
    note = "add `#[derive(ReadModel, Clone)]` and `#[read_model(table = \"...\", from(...))]`"
)]
pub trait ReadModel: Clone + Send + Sync + 'static {
    /// The table. It is the projection's name too.
    const TABLE: &'static str;
    /// Whether every version of every row is kept, for queries as of any moment.
    const HISTORY: History;
    /// The version of the fold, from 1. Raise it when [`Project`] makes other rows of the same events:
    /// the read model is built anew then. A change of the columns is noticed without.
    const VERSION: u32 = 1;
    /// Into how many parts the projection is split, by key of stream; as many workers can share it.
    /// From 1 to 256. In more than one, events touch no row but that whose key is their stream's.
    const SLICES: u16 = 1;
    /// The columns, those of the key among them.
    const COLUMNS: &'static [ColumnDef];
    /// The indexes beside that of the key.
    const INDEXES: &'static [IndexDef] = &[];
    /// The key: the type of the key's field, or a tuple where several fields make the key.
    type Key: RowKey;

    /// Where its events come from.
    fn sources() -> Vec<Source<Self>>;
    /// The key of this row.
    fn key(&self) -> Self::Key;
    /// The values of each column over many rows, in the order of [`ReadModel::COLUMNS`]: arrays of
    /// each column's [`param_type`](ColumnDef::param_type).
    fn columns<'a>(rows: &[&'a Self]) -> Vec<Box<SqlParam<'a>>>;
    /// Adds the values of this row, in the order of [`ReadModel::COLUMNS`]: what is sent where rows are
    /// copied into the table one by one. Those of [`ReadModel::columns`] are for many rows at once.
    fn values<'a>(&'a self, into: &mut Vec<SqlValue<'a>>);
    /// Reads a row that was selected in the order of [`ReadModel::COLUMNS`].
    ///
    /// # Errors
    /// Fails if a column holds another type than its field.
    fn from_row(row: &Row) -> Result<Self, tokio_postgres::Error>;
}

/// How one event changes one row: a pure fold.
#[diagnostic::on_unimplemented(
    message = "the read model `{Self}` does not say what it does with `{E}`",
    label = "`Project<{E}>` is missing",
    note = "it lists an aggregate with these events in `from(...)`: write `impl Project<{E}> for {Self}`"
)]
pub trait Project<E>: ReadModel {
    /// The rows that the event touches: by default the one whose key is the stream's key.
    ///
    /// # Errors
    /// By default, if the stream's key cannot be read as this read model's key.
    fn keys(event: &Recorded<E>) -> Result<Keys<Self::Key>, KeyError> {
        Self::Key::from_stream_key(event.stream.key()).map(Keys::one)
    }

    /// Folds the event into the row; `None` if there is no such row.
    fn project(row: Option<Self>, event: &Recorded<E>) -> Change<Self>;

    /// Folds the event into the row with this key. By default [`project`](Self::project) does.
    ///
    /// Implement it where one event touches several rows and so begins more than one: without the
    /// key, a row that does not exist yet could not be told from the others.
    fn project_row(key: &Self::Key, row: Option<Self>, event: &Recorded<E>) -> Change<Self> {
        let _ = key;
        Self::project(row, event)
    }
}

/// What an event does to a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<R> {
    /// The row is now this.
    Set(R),
    /// The row is gone. Another event may bring it back.
    Delete,
    /// The row stays as it is.
    Keep,
}

/// Whether a read model keeps the versions of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// Only the current rows are kept.
    None,
    /// Every version is kept, with the range of positions in which it held.
    Kept,
}

/// The keys of the rows that an event touches.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys<K>(KeyList<K>);

#[derive(Clone, Debug, PartialEq)]
enum KeyList<K> {
    // Nearly every event touches one row: no allocation for it.
    One(K),
    Many(Vec<K>),
}

impl<K> Keys<K> {
    /// No row.
    pub fn none() -> Self {
        Self(KeyList::Many(Vec::new()))
    }

    /// One row.
    pub fn one(key: K) -> Self {
        Self(KeyList::One(key))
    }

    /// Several rows. A key that stands twice counts once.
    pub fn many(keys: impl IntoIterator<Item = K>) -> Self
    where
        K: Clone + Eq + std::hash::Hash,
    {
        let mut known = HashSet::new();
        Self(KeyList::Many(keys.into_iter().filter(|key| known.insert(key.clone())).collect()))
    }

    /// The keys, each once.
    pub fn as_slice(&self) -> &[K] {
        match &self.0 {
            KeyList::One(key) => std::slice::from_ref(key),
            KeyList::Many(keys) => keys,
        }
    }
}

/// The key of a stream does not fit the key of a read model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream key {key:?} is no key of the read model: {reason}")]
pub struct KeyError {
    /// The stream's key.
    pub key: String,
    /// Why not.
    pub reason: String,
}

/// The key of a row: one column, or a tuple of columns.
///
/// It is implemented for every [`Column`] that can be read from a stream's key with `FromStr`, and
/// for tuples of up to four columns. A tuple is never a stream's key: a read model with several
/// key columns implements [`Project::keys`].
pub trait RowKey: Clone + Eq + std::hash::Hash + Send + Sync + 'static {
    /// How many columns it has.
    const COLUMNS: usize;
    /// The key as read from a stream's key.
    ///
    /// # Errors
    /// If the stream's key is not such a key.
    fn from_stream_key(key: &str) -> Result<Self, KeyError>;
    /// The values of each key column over many keys, in the order of the key columns.
    fn columns(keys: &[Self]) -> Vec<Box<SqlParam<'_>>>;
}

impl<K> RowKey for K
where
    K: Column + std::str::FromStr + Clone + Eq + std::hash::Hash,
    K::Err: std::fmt::Display,
{
    const COLUMNS: usize = 1;

    fn from_stream_key(key: &str) -> Result<Self, KeyError> {
        key.parse()
            .map_err(|error: K::Err| KeyError { key: key.to_owned(), reason: error.to_string() })
    }

    fn columns(keys: &[Self]) -> Vec<Box<SqlParam<'_>>> {
        vec![K::param(keys.iter().map(Some).collect())]
    }
}

macro_rules! tuple_key {
    ($count:literal: $($name:ident $index:tt),+) => {
        impl<$($name: Column + Clone + Eq + std::hash::Hash),+> RowKey for ($($name,)+) {
            const COLUMNS: usize = $count;

            fn from_stream_key(key: &str) -> Result<Self, KeyError> {
                Err(KeyError {
                    key: key.to_owned(),
                    reason: "the key has several columns; implement Project::keys".to_owned(),
                })
            }

            fn columns(keys: &[Self]) -> Vec<Box<SqlParam<'_>>> {
                vec![$($name::param(keys.iter().map(|key| Some(&key.$index)).collect())),+]
            }
        }
    };
}
tuple_key!(2: A 0, B 1);
tuple_key!(3: A 0, B 1, C 2);
tuple_key!(4: A 0, B 1, C 2, D 3);

/// Where a read model's events come from: one category, and how its events are folded.
pub struct Source<R: ReadModel> {
    category: &'static str,
    step: fn(Recorded) -> Result<Decoded<Step<R>>, StepError>,
}

impl<R: ReadModel> std::fmt::Debug for Source<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("category", &self.category).finish_non_exhaustive()
    }
}

impl<R: ReadModel> Source<R> {
    /// The events of an aggregate, or of another category.
    pub fn of<C: Category>() -> Self
    where
        R: Project<C::Event>,
    {
        Self { category: C::NAME, step: step::<C, R> }
    }

    /// The category.
    pub fn category(&self) -> &'static str {
        self.category
    }

    /// Decodes an event of this category and says which rows it touches: one step as a rule, and
    /// several or none where the type of the event was split or dropped.
    ///
    /// # Errors
    /// If the event does not decode, or its keys cannot be made out.
    pub fn step(&self, event: Recorded) -> Result<Decoded<Step<R>>, StepError> {
        (self.step)(event)
    }
}

/// Why an event cannot be projected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// It does not decode.
    #[error(transparent)]
    Decode(#[from] StoreError),
    /// The rows that it touches cannot be made out.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It led to a row under another key than the one that was asked for.
    #[error(
        "it led to a row with another key; name all keys that an event touches in Project::keys"
    )]
    WrongKey,
    /// The read model is projected in slices, and the event touches another row than its stream's.
    #[error(
        "it touches a row that is not its stream's, which events of other slices may touch too; the read \
         model cannot be projected in `slices`: leave them out"
    )]
    OtherSlice,
}

/// One decoded event, ready to be folded into the rows that it touches.
pub struct Step<R: ReadModel> {
    /// The position at which it has its effect: the event's own, unless it was parked and comes late.
    pub position: Position,
    /// The rows that it touches.
    pub keys: Keys<R::Key>,
    event: Arc<dyn Projects<R>>,
}

/// A decoded event of any type, as far as a read model is concerned.
trait Projects<R: ReadModel>: Send + Sync {
    fn project(&self, key: &R::Key, row: Option<R>) -> Change<R>;
    fn place(&self) -> (&StreamId, Version, Position);
}

impl<R: Project<E>, E: Send + Sync> Projects<R> for Recorded<E> {
    fn project(&self, key: &R::Key, row: Option<R>) -> Change<R> {
        R::project_row(key, row, self)
    }

    fn place(&self) -> (&StreamId, Version, Position) {
        (&self.stream, self.version, self.position)
    }
}

impl<R: ReadModel> Step<R> {
    /// The step of a decoded event.
    pub(crate) fn of<E: Event>(event: Recorded<E>) -> Result<Self, StepError>
    where
        R: Project<E>,
    {
        let keys = R::keys(&event)?;
        if R::SLICES > 1 && !is_own(keys.as_slice(), event.stream.key()) {
            return Err(StepError::OtherSlice);
        }
        Ok(Self { position: event.position, keys, event: Arc::new(event) })
    }

    /// Folds the event into one of its rows, that with this key.
    pub fn project(&self, key: &R::Key, row: Option<R>) -> Change<R> {
        self.event.project(key, row)
    }

    /// Its stream.
    pub(crate) fn stream(&self) -> &StreamId {
        self.event.place().0
    }

    /// The same for some of its rows.
    pub(crate) fn for_keys(&self, keys: Vec<R::Key>) -> Self {
        let keys = Keys(KeyList::Many(keys));
        Self { position: self.position, keys, event: self.event.clone() }
    }

    /// The same, where the code of the read model may do wrong: it may panic, or make a row of another key.
    pub(crate) fn change(
        &self,
        key: &R::Key,
        row: Option<R>,
    ) -> Result<Change<R>, Box<EventFailure>> {
        let change = guarded(|| Ok::<_, StepError>(self.project(key, row)));
        match change.map_err(|cause| self.failed(cause))? {
            Change::Set(row) if row.key() != *key => Err(self.failed(StepError::WrongKey.into())),
            change => Ok(change),
        }
    }

    fn failed(&self, source: Cause) -> Box<EventFailure> {
        let (stream, version, position) = self.event.place();
        let (projection, stream) = (R::TABLE.to_owned(), stream.clone());
        Box::new(EventFailure { projection, stream, version, position, source })
    }
}

impl<R: ReadModel> std::fmt::Debug for Step<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Step").field("position", &self.position).finish_non_exhaustive()
    }
}

/// True if these are no keys, or that of a stream alone.
fn is_own<K: RowKey>(keys: &[K], stream: &str) -> bool {
    match keys {
        [] => true,
        [key] => K::from_stream_key(stream).is_ok_and(|own| own == *key),
        _ => false,
    }
}

fn step<C: Category, R: Project<C::Event>>(event: Recorded) -> Result<Decoded<Step<R>>, StepError> {
    event.decode::<C::Event>()?.try_map(Step::of)
}
