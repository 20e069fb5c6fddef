//! Commands: what the world asks of an aggregate.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    aggregate::Aggregate,
    append::ExpectedVersion,
    error::Error,
    event::Metadata,
    ids::{Position, StreamId, Version},
};

/// A request to one aggregate. Derive it; the field marked `#[command(id)]` names the stream.
///
/// `Clone`, because a command is decided again after a version conflict; `Serialize`, because an
/// idempotency key is bound to the command's content.
///
/// ```
/// # use annals_eventstore::{Aggregate, Apply, Event};
/// # use serde::Deserialize;
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum AccountEvent { Deposited { amount: i64 } }
/// # #[derive(Aggregate, Default)]
/// # #[aggregate(category = "account", event = AccountEvent)]
/// # struct Account { balance: i64 }
/// # impl Apply<AccountEvent> for Account { fn apply(&mut self, _: &AccountEvent) {} }
/// use annals_eventstore::{Command, Handle};
/// use serde::Serialize;
///
/// #[derive(Command, Serialize, Clone)]
/// #[command(aggregate = Account)]
/// struct Deposit {
///     #[command(id)]
///     account: String,
///     amount: i64,
/// }
///
/// impl Handle<Deposit> for Account {
///     fn handle(&self, command: Deposit) -> Result<Vec<AccountEvent>, Self::Error> {
///         Ok(vec![AccountEvent::Deposited { amount: command.amount }])
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a command",
    label = "not a command",
    note = "add `#[derive(Command, Serialize, Clone)]`, `#[command(aggregate = ...)]`, and `#[command(id)]` on a field"
)]
pub trait Command: Serialize + Clone + Send + Sync + 'static {
    /// The aggregate that decides on it.
    type Aggregate: Aggregate;
    /// Its name, in traces and in the fingerprint that binds an idempotency key to it.
    const NAME: &'static str;
    /// The key of the stream that it is for.
    fn stream_key(&self) -> String;
    /// True if its stream does not exist yet, as a rule: `#[command(starts)]`, on the command or on
    /// variants of an enum.
    ///
    /// Then the store decides on it without looking first, which saves a query, and looks if that does not
    /// lead to an append or the stream does exist. What comes of the command is the same either way; only
    /// [`handle`](Handle::handle) may be called once more.
    fn starts_stream(&self) -> bool {
        false
    }
}

/// How an aggregate decides on a command: a pure function of its state.
///
/// It does no I/O, so it can be tried again, batched and tested without a database.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle the command `{C}`",
    label = "`Handle<{C}>` is missing",
    note = "write `impl Handle<{C}> for {Self} {{ fn handle(&self, command: {C}) -> .. }}`"
)]
pub trait Handle<C>: Aggregate {
    /// Decides: the events that happen, none for nothing to do, or the reason why not.
    ///
    /// # Errors
    /// The domain's own refusal.
    fn handle(&self, command: C) -> Result<Vec<Self::Event>, Self::Error>;
}

/// A command with what is said about it. A bare command becomes one by `into()`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Envelope<C> {
    /// The command.
    pub command: C,
    /// Metadata for the events that it leads to.
    pub metadata: Metadata,
    /// The key under which its outcome is recorded.
    pub idempotency_key: Option<String>,
    /// What its stream must be at.
    pub expected_version: Option<ExpectedVersion>,
    /// When it happened.
    pub occurred_at: Option<DateTime<Utc>>,
    /// When it counts as recorded; only for a store with a supplied clock.
    pub recorded_at: Option<DateTime<Utc>>,
}

impl<C> Envelope<C> {
    /// Wraps a command.
    pub fn new(command: C) -> Self {
        Self {
            command,
            metadata: Metadata::new(),
            idempotency_key: None,
            expected_version: None,
            occurred_at: None,
            recorded_at: None,
        }
    }

    /// Sets the metadata of the events.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Makes the command idempotent: the same key and command again return the recorded outcome.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Makes the command conditional: it is decided only if its stream is at this version, and otherwise
    /// fails with [`Error::Conflict`], without another attempt. For callers that decide on what they saw.
    ///
    /// Under an idempotency key whose outcome is recorded, that outcome is returned, whatever the version is now.
    #[must_use]
    pub fn expected_version(mut self, expected: ExpectedVersion) -> Self {
        self.expected_version = Some(expected);
        self
    }

    /// Says when it happened.
    #[must_use]
    pub fn occurred_at(mut self, time: DateTime<Utc>) -> Self {
        self.occurred_at = Some(time);
        self
    }

    /// Says when it counts as recorded; only for a store with a supplied clock.
    #[must_use]
    pub fn recorded_at(mut self, time: DateTime<Utc>) -> Self {
        self.recorded_at = Some(time);
        self
    }
}

impl<C> Envelope<C> {
    /// Fails unless the stream is at the expected version.
    pub(crate) fn check_version(&self, stream: &StreamId, actual: Version) -> Result<(), Error> {
        match self.expected_version {
            Some(expected) if !expected.accepts(actual) => {
                Err(Error::Conflict { stream: stream.clone(), expected, actual })
            }
            _ => Ok(()),
        }
    }
}

impl<C: Command> From<C> for Envelope<C> {
    fn from(command: C) -> Self {
        Self::new(command)
    }
}

/// What a command led to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// The stream.
    pub stream: StreamId,
    /// The stream's version after the command.
    pub version: Version,
    /// The position of the command's last event; [`Position::START`] if it led to none.
    pub position: Position,
    /// How many events it led to.
    pub events: usize,
    /// True if an earlier execution under the same idempotency key led to them.
    pub replayed: bool,
}

pub(crate) type Fingerprint = [u8; 32];

/// Binds an idempotency key to the stream and the content of a command.
pub(crate) fn fingerprint<C: Command>(
    stream: &StreamId,
    command: &C,
) -> Result<Fingerprint, Error> {
    let encode = || serde_json::to_vec(&serde_json::to_value(command)?);
    // By way of `Value`, whose maps are sorted: the order of a HashMap's keys must not matter.
    let json = encode().map_err(|source| Error::Encode { what: C::NAME.to_owned(), source })?;
    let mut hash = Sha256::new();
    for part in [stream.category(), stream.key(), C::NAME] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(json);
    Ok(hash.finalize().into())
}
