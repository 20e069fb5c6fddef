//! Faults on purpose: does what was built on the store come out exact when everything around it fails?
//!
//! A network loses answers, a server stalls, a process dies between an effect and its checkpoint. This is rare, so
//! what breaks on it breaks in production. Here it happens as often as a test wants:
//!
//! - [`Faults`] stand before a store, a reactor or whoever makes the calls of a saga: conflicts, failures, time-outs, answers that
//!   are lost after the deed, and repetitions, at rates.
//! - A [`Link`] stands between a program and PostgreSQL, a broker or any other server: it delays, stalls, cuts and refuses
//!   connections, and loses answers, on command or by a [`Plan`].
//! - Fail points are steps inside of the framework. With the feature `fail-points`, which is for tests alone, a test
//!   has a process fail, wait or die there: see [`STORE_FAIL_POINTS`].
//!
//! What happens is drawn from a [`Seed`], which is printed; set [`Seed::VARIABLE`] to have the same happen again.
//!
//! ```
//! # use annals_eventstore::{Aggregate, Apply, Command, Envelope, Event, EventStore, Handle};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Event, Serialize, Deserialize)]
//! # enum AccountEvent { Deposited { amount: i64 } }
//! # #[derive(Aggregate, Default)]
//! # #[aggregate(category = "account", event = AccountEvent)]
//! # struct Account { balance: i64 }
//! # impl Apply<AccountEvent> for Account {
//! #     fn apply(&mut self, event: &AccountEvent) {
//! #         let AccountEvent::Deposited { amount } = event;
//! #         self.balance += amount;
//! #     }
//! # }
//! # #[derive(Command, Serialize, Clone)]
//! # #[command(aggregate = Account)]
//! # struct Deposit { #[command(id)] account: String, amount: i64 }
//! # impl Handle<Deposit> for Account {
//! #     fn handle(&self, command: Deposit) -> Result<Vec<AccountEvent>, Self::Error> {
//! #         Ok(vec![AccountEvent::Deposited { amount: command.amount }])
//! #     }
//! # }
//! use annals_eventstore::testkit::faults::{Fault, Faults, Seed};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let faults = Faults::new(Seed::of(7)).rate(Fault::LostAnswer, 0.3).rate(Fault::Conflict, 0.2);
//! let store = faults.store(&EventStore::in_memory());
//! for number in 0..20 {
//!     let deposit = Deposit { account: "ada".into(), amount: 1 };
//!     // With a key, a lost answer leads to the recorded one.
//!     store.execute(Envelope::new(deposit).idempotency_key(number.to_string())).await?;
//! }
//! assert_eq!(store.load::<Account>("ada").await?.expect("it has events").state.balance, 20);
//! assert!(faults.injected(Fault::LostAnswer) > 0);
//! # Ok(()) }
//! ```

mod drawn;
mod link;
#[cfg(feature = "kafka")]
mod records;
mod seed;
mod store;

#[cfg(feature = "kafka")]
pub use self::records::repeat_records;
pub use self::{
    drawn::{Fault, Faults},
    link::{Delay, Link, LinkError, Message, Passage, Plan, Verdict, Way},
    seed::Seed,
    store::Injected,
};

/// The fail points of the store: what it comes by when it executes a command, appends, moves a checkpoint, and holds a lease.
///
/// With the feature `fail-points` each is one of the crate [`fail`](https://docs.rs/fail): what is to happen there is said
/// by the variable `FAILPOINTS`, or by `fail::cfg` and `fail::cfg_callback` in the program, such as a callback that
/// ends the process. Without the feature they are not there. The action `return` is a failure that passes; where the
/// deed is done, it is an answer that is lost.
///
/// | Point | The store | `return` |
/// |---|---|---|
/// | `command-loaded` | has loaded the aggregates of commands | nothing is decided |
/// | `command-decided` | knows the events of commands | nothing is recorded |
/// | `command-recorded` | has recorded them | the answer is lost |
/// | `append-sending` | has a connection, and is about to send a batch of appends | none is sent |
/// | `append-answered` | has the answer to a batch of appends | the answer is lost |
/// | `unit-committing` | is about to commit a unit of work | it is rolled back |
/// | `unit-committed` | has committed a unit of work | the answer is lost |
/// | `checkpoint-moving` | is about to move a checkpoint, in the transaction of what goes with it | that fails |
/// | `checkpoint-moved` | has moved it there, and nothing is committed yet | that fails |
/// | `lease-taken` | has taken a lease | the answer is lost: nobody has it until it is over |
/// | `lease-renewing` | is about to renew a lease | it is not renewed |
/// | `lease-renewed` | has renewed it | the answer is lost |
///
/// The publisher has fail points of its own: `kafka::FAIL_POINTS`.
pub const STORE_FAIL_POINTS: [&str; 12] = [
    "command-loaded",
    "command-decided",
    "command-recorded",
    "append-sending",
    "append-answered",
    "unit-committing",
    "unit-committed",
    "checkpoint-moving",
    "checkpoint-moved",
    "lease-taken",
    "lease-renewing",
    "lease-renewed",
];
