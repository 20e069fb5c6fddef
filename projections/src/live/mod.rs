//! Live read models: in memory, without tables, for tests and dashboards.

mod changes;
mod follow;
mod options;
mod state;

use std::{sync::Arc, time::Duration};

use annals_eventstore::{EventStore, Position};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::state::Shared;
pub use self::{
    changes::{Changes, RowChange},
    options::LiveOptions,
    state::Cut,
};
use crate::{error::Error, read_model::ReadModel};

/// A read model whose rows are in this process's memory and follow the log.
///
/// It folds the same [`Project`](crate::Project) code as the tables of a worker do, over any store, also one
/// [in memory](EventStore::in_memory). It needs no table, no checkpoint and no lease, writes nothing, and
/// starts from the log each time.
///
/// ```
/// # use annals_eventstore::{Aggregate, Apply, Command, Event, EventStore, Handle, Recorded};
/// # use annals_projections::{Change, Live, Project, ReadModel};
/// # use futures::TryStreamExt;
/// # use serde::{Deserialize, Serialize};
/// # use std::time::Duration;
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum AccountEvent { Deposited { amount: i64 } }
/// # #[derive(Aggregate, Default)]
/// # #[aggregate(category = "account", event = AccountEvent)]
/// # struct Account;
/// # impl Apply<AccountEvent> for Account { fn apply(&mut self, _: &AccountEvent) {} }
/// # #[derive(Command, Serialize, Clone)]
/// # #[command(aggregate = Account)]
/// # struct Deposit { #[command(id)] account: String, amount: i64 }
/// # impl Handle<Deposit> for Account {
/// #     fn handle(&self, command: Deposit) -> Result<Vec<AccountEvent>, Self::Error> {
/// #         Ok(vec![AccountEvent::Deposited { amount: command.amount }])
/// #     }
/// # }
/// # #[derive(ReadModel, Clone)]
/// # #[read_model(table = "account_overview", from(Account))]
/// # struct AccountOverview { #[read_model(key)] account: String, balance: i64 }
/// # impl Project<AccountEvent> for AccountOverview {
/// #     fn project(row: Option<Self>, event: &Recorded<AccountEvent>) -> Change<Self> {
/// #         let AccountEvent::Deposited { amount } = event.event;
/// #         let balance = row.map_or(0, |row| row.balance) + amount;
/// #         Change::Set(AccountOverview { account: event.stream.key().to_owned(), balance })
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = EventStore::in_memory();
/// let live = Live::<AccountOverview>::start(&store).await?;
/// let (rows, mut changes) = live.subscribe()?;
/// assert!(rows.rows.is_empty());
///
/// let done = store.execute(Deposit { account: "ada".into(), amount: 100 }).await?;
/// live.wait_for(done.position, Duration::from_secs(5)).await?;
/// let ada = live.get(&"ada".to_owned())?.expect("she has an account");
/// assert_eq!(ada.balance, 100);
///
/// let change = changes.try_next().await?.expect("it goes on");
/// assert_eq!((change.key.as_str(), change.position), ("ada", done.position));
/// # Ok(()) }
/// ```
///
/// # When to use it, and when not
/// Use it in tests, on dashboards, in caches that must not be wrong, and for what is pushed to clients as it
/// changes: a read takes no round trip, and [`subscribe`](Self::subscribe) yields the changes.
///
/// Use a [`Worker`](crate::Worker) and its table where
/// - the rows do not fit in memory: all of them are held, once in each process that follows them;
/// - the log is long and programs must be up quickly: every start folds it again, unless it starts
///   [`since`](LiveOptions::since) a recent moment or [with rows](LiveOptions::with_rows) that are there already;
/// - others read it too, with SQL, or it is asked as of a moment: this one knows the present only.
///
/// # What it guarantees
/// - Rows are a fold of the log up to [`position`](Self::position), whole batches at a time: a reader never sees
///   a part of an event. Events of archived streams count, whenever they were archived.
/// - Nothing is skipped. Before an event that cannot be projected it stops, and from then on all that asks for
///   rows gets [`Error::Stopped`] with the reason; [`last`](Self::last) still tells the rows up to there.
///   Failures of the store that may pass are logged and tried again.
/// - It reads a page of events at a time and keeps a bounded number of changes for slow subscribers.
/// - Every time that its connection to the database was lost, it looks whether the log still has the last event
///   that it has folded, and stops if not ([`Error::EventLost`]): the rows would not be what the log says.
///
/// It is cheap to clone. When the last clone is dropped, it stops.
#[derive(Clone)]
#[must_use = "it stops when it is dropped"]
pub struct Live<R: ReadModel> {
    shared: Arc<Shared<R>>,
    stop: CancellationToken,
    _stop_when_dropped: Arc<DropGuard>,
}

impl<R: ReadModel> std::fmt::Debug for Live<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let position = self.position();
        f.debug_struct("Live").field("projection", &R::TABLE).field("position", &position).finish()
    }
}

impl<R: ReadModel> Live<R> {
    /// Follows the log from its beginning. Returns once everything is folded that is
    /// [safe to read](EventStore::safe_position) now, however long that takes.
    ///
    /// Cancellation safe: nothing stays behind.
    ///
    /// # Errors
    /// [`Error::Event`] if an event cannot be projected, or a failure of the store that
    /// does not pass. One that may pass is logged and tried again.
    pub async fn start(store: &EventStore) -> Result<Self, Error> {
        Self::options().start(store).await
    }

    /// The same without waiting: rows come in as the log is read. [`wait_for`](Self::wait_for) a position.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn start_in_background(store: &EventStore) -> Self {
        Self::options().start_in_background(store)
    }

    /// Options to change before it starts.
    pub fn options() -> LiveOptions<R> {
        LiveOptions::default()
    }

    /// The row with this key, if there is one.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn get(&self, key: &R::Key) -> Result<Option<R>, Error> {
        self.shared.read(|state| state.rows.get(key).cloned())
    }

    /// All rows as of one position, in no order.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn all(&self) -> Result<Cut<R>, Error> {
        self.filter(|_| true)
    }

    /// The rows that are `wanted`, as of one position, in no order.
    ///
    /// New events wait until all rows are looked at, so look quickly, and ask it nothing meanwhile.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn filter(&self, wanted: impl FnMut(&R) -> bool) -> Result<Cut<R>, Error> {
        self.shared.read(|state| state.cut(wanted))
    }

    /// All rows as they are, in no order, also after it has stopped.
    pub fn last(&self) -> Cut<R> {
        self.shared.look(|state| state.cut(|_| true))
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.shared.look(|state| state.rows.len())
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How far it has come: everything at or below this position is in the rows.
    pub fn position(&self) -> Position {
        self.shared.look(|state| state.position)
    }

    /// Waits until everything up to this position is in the rows, for example a command of the caller's own
    /// ([`Committed::position`](annals_eventstore::Committed)). Cancellation safe.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if it does not come there within `timeout`, [`Error::Stopped`] if it never will.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), Error> {
        self.shared.wait_for(position, timeout).await
    }

    /// All rows as of one position, and every change after it: what a client needs that shows them.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn subscribe(&self) -> Result<(Cut<R>, Changes<R>), Error> {
        self.shared.read(|state| {
            // No batch comes in between.
            (state.cut(|_| true), Changes::of(self.shared.subscribe()))
        })
    }

    /// The changes from now on.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn changes(&self) -> Result<Changes<R>, Error> {
        self.shared.read(|_| Changes::of(self.shared.subscribe()))
    }

    /// Stops it, with all its clones, and waits until it has. The rows stay, for [`last`](Self::last).
    ///
    /// Cancellation safe: it stops all the same.
    ///
    /// # Errors
    /// [`Error::Stopped`] with the reason, if it had failed before.
    pub async fn stop(&self) -> Result<(), Error> {
        self.stop.cancel();
        self.shared.ended().await
    }
}
