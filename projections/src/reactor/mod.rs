//! Reactors: side effects of events, such as mails, calls and commands. The vocabulary; pure, without I/O.

mod effect;
mod source;
#[cfg(test)]
mod tests;

use std::time::Duration;

use annals_eventstore::{Recorded, breaker::CircuitBreaker};

#[cfg(feature = "faults")]
pub(crate) use self::source::Call;
pub use self::{
    effect::Effect,
    source::{ReactorSource, Trigger},
};
pub use crate::guard::Cause;
use crate::{
    breaking::{Passed, through},
    start::Start,
};

/// Something that acts on events outside of the database: it sends mails, calls services, executes commands.
///
/// It names itself and the aggregates whose events it reacts to; [`React`] says how. Each event is reacted to
/// at least once, and the events of a stream in their order. A crash between an effect and its checkpoint repeats
/// the effect, with the same [`Effect::id`]: give it to whatever you call, so that it is done once.
///
/// ```
/// # use annals_eventstore::{Aggregate, Apply, Command, Envelope, Event, EventStore, Handle, Recorded};
/// # use annals_projections::{Cause, Effect, React, Reaction, Reactor, ReactorSource};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum LoanEvent { Approved { account: String, amount: i64 }, Declined }
/// # #[derive(Aggregate, Default)]
/// # #[aggregate(category = "loan", event = LoanEvent)]
/// # struct Loan;
/// # impl Apply<LoanEvent> for Loan { fn apply(&mut self, _: &LoanEvent) {} }
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
/// /// Pays approved loans out.
/// struct Payout {
///     store: EventStore,
/// }
///
/// impl Reactor for Payout {
///     fn name(&self) -> &str {
///         "payout"
///     }
///
///     fn sources() -> Vec<ReactorSource<Self>> {
///         vec![ReactorSource::of::<Loan>()]
///     }
/// }
///
/// impl React<LoanEvent> for Payout {
///     async fn react(&self, event: &Recorded<LoanEvent>, effect: &Effect) -> Result<Reaction, Cause> {
///         let LoanEvent::Approved { account, amount } = &event.event else {
///             return Ok(Reaction::Done);
///         };
///         let deposit = Deposit { account: account.clone(), amount: *amount };
///         // Under the effect's id a second attempt finds the first one's deposit.
///         let deposit = Envelope::new(deposit).idempotency_key(effect.id.to_string());
///         self.store.execute(deposit).await?;
///         Ok(Reaction::Done)
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Cause> {
/// # let payout = Payout { store: EventStore::in_memory() };
/// # let approved = LoanEvent::Approved { account: "ada".into(), amount: 900 };
/// # let event = annals_eventstore::testkit::recorded::<Loan>("7", 1, 1, approved);
/// # for attempt in 1..=2 {
/// #     payout.react(&event, &Effect::of("payout", &event).attempt(attempt)).await?;
/// # }
/// # let events = payout.store.read(annals_eventstore::EventQuery::log());
/// # assert_eq!(futures::StreamExt::count(events).await, 1);
/// # Ok(()) }
/// ```
///
/// Two of one type may run side by side, for two recipients say, if their names differ.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a reactor",
    label = "not a reactor",
    note = "write `impl Reactor for {Self}`: its name, and the aggregates whose events it reacts to"
)]
pub trait Reactor: Send + Sync + Sized + 'static {
    /// Its name: that of its checkpoint, and a part of the id of each effect. It must not change: under another
    /// name it is another reactor, whose effects are others.
    fn name(&self) -> &str;

    /// Where its events come from.
    fn sources() -> Vec<ReactorSource<Self>>;

    /// In how many slices workers share it: 1 unless implemented. The streams of a slice are those whose keys hash
    /// to it. With another number it goes on from where the last slice was, once no worker of the earlier number is
    /// left; some effects may be repeated then.
    fn slices(&self) -> u16 {
        1
    }

    /// How many streams a slice of it reacts to at the same time: 16 unless implemented.
    fn concurrency(&self) -> usize {
        16
    }

    /// Where its first checkpoint stands: at the end of the log unless implemented, so that a new reactor does not
    /// send the mails of years past. Once there is a checkpoint, this counts no more.
    fn start(&self) -> Start {
        Start::End
    }
}

/// How a reactor reacts to one kind of events.
#[diagnostic::on_unimplemented(
    message = "the reactor `{Self}` does not say how it reacts to `{E}`",
    label = "`React<{E}>` is missing",
    note = "it lists an aggregate with these events in `sources`: write `impl React<{E}> for {Self}`"
)]
pub trait React<E>: Reactor {
    /// Reacts to an event. It is called again, with the same [`Effect::id`], until it says
    /// [`Done`](Reaction::Done) or [`Park`](Reaction::Park).
    ///
    /// A worker that is told to stop lets it end, for a while. If that takes too long, or the worker loses its
    /// lease, it is dropped at any `await`, and called again by the next worker. The reactions of a slice run in
    /// one task, so leave what takes the processor to [`spawn_blocking`](tokio::task::spawn_blocking).
    ///
    /// # Errors
    /// Any. It is tried again after a while, and the event is parked if that does not help. A panic is such an
    /// error.
    fn react(
        &self,
        event: &Recorded<E>,
        effect: &Effect,
    ) -> impl Future<Output = Result<Reaction, Cause>> + Send;
}

/// What came of a reaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reaction {
    /// The event is dealt with, also if there was nothing to do.
    Done,
    /// Not now: it is called again once this time is over. Waiting is no failure and leads to no parking. The later
    /// events of its stream wait too. Others go on, as far as a batch reaches; the checkpoint stays behind.
    RetryAfter(Duration),
    /// Not at all, for this reason: the event is put aside, with the later ones of its stream, for somebody to
    /// look at. Others go on.
    Park(String),
}

impl Reaction {
    /// [`Park`](Self::Park) for this reason.
    pub fn park(reason: impl std::fmt::Display) -> Self {
        Self::Park(reason.to_string())
    }

    /// Does something through a [circuit breaker](annals_eventstore::breaker) of your own: for a reactor that calls
    /// several services, of which one may be down while the others are not. While the breaker is open, nothing is
    /// done, and this is [`RetryAfter`](Self::RetryAfter): no failure, and no reason to park. So it is where the one
    /// attempt fails by which an open breaker finds out. Errors of `effect` count as failures; give it a time
    /// limit, so that a service that hangs fails.
    ///
    /// For a reactor that does one thing, the breaker that its worker has around it is enough.
    ///
    /// ```
    /// # use annals_eventstore::breaker::{BreakerOptions, CircuitBreaker};
    /// # use annals_projections::{Cause, Reaction};
    /// # async fn send_mail() -> Result<(), std::io::Error> { Ok(()) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Cause> {
    /// let mails = CircuitBreaker::new("mails", BreakerOptions::default());
    /// let reaction = Reaction::through(&mails, async {
    ///     tokio::time::timeout(std::time::Duration::from_secs(5), send_mail()).await??;
    ///     Ok(Reaction::Done)
    /// });
    /// assert_eq!(reaction.await?, Reaction::Done);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of `effect`, as long as the breaker is closed.
    pub async fn through(
        circuit: &CircuitBreaker,
        effect: impl Future<Output = Result<Self, Cause>>,
    ) -> Result<Self, Cause> {
        Ok(match through(circuit, effect).await? {
            Passed::Made(reaction) => reaction,
            Passed::Refused(wait) | Passed::TrialFailed(wait, _) => Self::RetryAfter(wait),
        })
    }
}
