//! The derive macros of [Annals](https://docs.rs/annals): `Event`, `Aggregate`, `Command`,
//! `ReadModel`, `Saga`, `Column` and `Shape`.
//!
//! `annals`, `annals-eventstore` and `annals-projections` re-export them beside the traits of the
//! same names; depend on one of those instead of this crate. The generated code finds the traits
//! by whichever of them is in your Cargo.toml, renamed or not.
//!
//! The macros check what can be known from the item alone: the shape, the attributes, and every
//! name that ends up in the database. All mistakes of an item are reported at once, each where it
//! stands and with what to write instead.

mod aggregate;
mod attributes;
mod column;
mod command;
mod errors;
mod event;
mod names;
mod paths;
mod read_model;
mod saga;
mod serde;
mod shape;
mod upcast;

use proc_macro::TokenStream;
use syn::{DeriveInput, Error, parse_macro_input};

/// Implements `Event` for an enum: one variant for each kind of event.
///
/// ```
/// use annals_eventstore::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(prefix = "loan_")]
/// enum LoanEvent {
///     Submitted { amount: i64 },
///     // Renamed in Rust: what is stored keeps its name, and older names still decode.
///     #[event(name = "loan_approved", alias = "accepted", version = 2)]
///     Granted,
/// }
///
/// let submitted = LoanEvent::Submitted { amount: 100 };
/// assert_eq!(submitted.event_type().name, "loan_submitted");
/// assert_eq!(submitted.encode()?.as_bytes(), br#"{"amount":100}"#);
/// assert_eq!(LoanEvent::Granted.event_type().version, 2);
/// # Ok::<_, serde_json::Error>(())
/// ```
///
/// # On the enum
///
/// - `#[event(prefix = "loan_")]` is put before the names that are made from variants. It leaves
///   explicit names and aliases alone.
/// - `#[event(dropped("clicked"))]` lists stored names that are read as no event at all.
/// - `#[event(split("moved", MovedV1, MovedV2))]` names a stored type that is no variant any more and is
///   read as several events: version n of it into the n-th type, and by `From` from one to the next, and
///   from the last one into `Vec` of the enum.
///
/// # On a variant
///
/// - `#[event(name = "...")]` is the stored name. Without it, the name is the variant's in snake
///   case: `KYCPassed` is stored as `kyc_passed`, `Step2Done` as `step2_done`.
/// - `#[event(version = 2)]` is the schema version that it is written with, from 1, which is the
///   default. Events of a newer version are refused when they are read.
/// - `#[event(alias = "...")]` is an earlier name under which it may be stored. It may be repeated.
/// - `#[event(upcast_from = [SubmittedV1, SubmittedV2])]`, on version 3, says how earlier versions are
///   read: payloads of version n into the n-th type, which implements `Deserialize`, and from there by
///   `From` into the next one, and from the last one into the enum. `upcast_from = SubmittedV1` is for
///   one. Without it, payloads of all versions are read like those of this one.
/// - `#[event(split_from = ...)]` is the same for events that became several, or at times none: the
///   last step is `From` into `Vec` of the enum.
///
/// ```
/// use annals_eventstore::{Event, testkit};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// #[event(dropped("clicked"), split("moved", Moved))]
/// enum AccountEvent {
///     #[event(version = 2, upcast_from = DepositedV1)]
///     Deposited { cents: i64 },
///     Withdrawn { cents: i64 },
/// }
///
/// #[derive(Deserialize)]
/// struct DepositedV1 { euros: i64 }
///
/// impl From<DepositedV1> for AccountEvent {
///     fn from(old: DepositedV1) -> Self {
///         AccountEvent::Deposited { cents: old.euros * 100 }
///     }
/// }
///
/// #[derive(Deserialize)]
/// struct Moved { out: i64, back: i64 }
///
/// impl From<Moved> for Vec<AccountEvent> {
///     fn from(Moved { out, back }: Moved) -> Self {
///         vec![AccountEvent::Withdrawn { cents: out }, AccountEvent::Deposited { cents: back }]
///     }
/// }
///
/// let old = testkit::stored::<AccountEvent>("deposited", 1, r#"{"euros":2}"#);
/// assert_eq!(old, [AccountEvent::Deposited { cents: 200 }]);
/// let moved = testkit::stored::<AccountEvent>("moved", 1, r#"{"out":2,"back":1}"#);
/// assert_eq!(moved.len(), 2);
/// assert_eq!(testkit::stored::<AccountEvent>("clicked", 1, "{}"), []);
/// ```
///
/// Names and aliases are 1 to 128 bytes of `A-Z a-z 0-9 _ . -`, and belong to one variant each.
///
/// # Serde
///
/// The enum implements `Serialize` and `DeserializeOwned`, usually derived. Attributes on fields
/// keep their meaning, `rename_all_fields` and `deny_unknown_fields` too. Renames of variants have
/// none here: the stored name is the one above. What would take the variants apart is refused:
/// `tag`, `content`, `untagged`, `from`, `try_from`, `into` on the enum, and `skip`,
/// `skip_serializing`, `skip_deserializing`, `other`, `untagged` on a variant.
///
/// # Generics
///
/// Type and const parameters are carried over; the enum is an event for those parameters for which
/// it implements `Serialize`, `DeserializeOwned`, `Send` and `Sync`. Lifetimes are refused.
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    tokens(event::expand(&input))
}

/// Implements `Aggregate` for a struct or an enum: the state of a stream.
///
/// ```
/// use annals_eventstore::{Aggregate, Apply, Event};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// enum LoanEvent {
///     Submitted { amount: i64 },
/// }
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("the loan is too high")]
/// struct TooHigh;
///
/// #[derive(Aggregate, Default)]
/// #[aggregate(category = "loan", event = LoanEvent, error = TooHigh)]
/// struct Loan {
///     amount: i64,
/// }
///
/// impl Apply<LoanEvent> for Loan {
///     fn apply(&mut self, event: &LoanEvent) {
///         match event {
///             LoanEvent::Submitted { amount } => self.amount = *amount,
///         }
///     }
/// }
///
/// assert_eq!(Loan::CATEGORY, "loan");
/// ```
///
/// # Attributes
///
/// - `#[aggregate(category = "loan")]`, required, is the category of its streams: lower-case
///   letters, digits and `_`, after a first letter, at most 64 bytes.
/// - `#[aggregate(event = LoanEvent)]`, required, is the type of its events.
/// - `#[aggregate(error = LoanError)]` is why it refuses commands. Without it, it never does: the
///   error is `Infallible`.
///
/// The type also implements `Default`, the state before the first event, and `Apply` for its
/// events. Type and const parameters are carried over: it is an aggregate for those parameters for
/// which all of this holds. Lifetimes are refused.
#[proc_macro_derive(Aggregate, attributes(aggregate, snapshot))]
pub fn derive_aggregate(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    tokens(aggregate::expand(&input))
}

/// Implements `Command` for a struct, or for an enum of related commands.
///
/// ```
/// # use annals_eventstore::{Aggregate, Apply, Event};
/// # use serde::Deserialize;
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum LoanEvent { Submitted }
/// # #[derive(Aggregate, Default)]
/// # #[aggregate(category = "loan", event = LoanEvent)]
/// # struct Loan;
/// # impl Apply<LoanEvent> for Loan { fn apply(&mut self, _: &LoanEvent) {} }
/// use annals_eventstore::Command;
/// use serde::Serialize;
///
/// #[derive(Command, Serialize, Clone)]
/// #[command(aggregate = Loan, starts)]
/// struct Submit {
///     #[command(id)]
///     loan: u64,
///     amount: i64,
/// }
///
/// #[derive(Command, Serialize, Clone)]
/// #[command(aggregate = Loan, name = "review")]
/// enum Review {
///     Approve(#[command(id)] u64),
///     Decline {
///         #[command(id)]
///         loan: u64,
///         reason: String,
///     },
/// }
///
/// assert_eq!((Submit::NAME, Review::NAME), ("Submit", "review"));
/// assert_eq!(Submit { loan: 7, amount: 100 }.stream_key(), "7");
/// assert_eq!(Review::Approve(8).stream_key(), "8");
/// assert!(Submit { loan: 7, amount: 100 }.starts_stream());
/// assert!(!Review::Approve(8).starts_stream());
/// ```
///
/// # On the struct or enum
///
/// - `#[command(aggregate = Loan)]`, required, is the aggregate that decides on it.
/// - `#[command(name = "...")]` is its name in traces and in the fingerprints that bind idempotency
///   keys to commands; without it, the name of the Rust type. Set it to the old name when you
///   rename the type, or keys from before the rename no longer match.
/// - `#[command(starts)]` says that the stream does not exist yet, as a rule, so that the store decides
///   without a query first. On an enum it holds for all variants.
///
/// # On a variant
///
/// - `#[command(starts)]`, for that variant.
///
/// # On a field
///
/// - `#[command(id)]`, on exactly one field of the struct or of each variant, marks the key of the
///   stream that the command is for. The field's type implements `Display`. Where several fields
///   make the key, give them a type of their own.
///
/// Type and const parameters are carried over: it is a command for those parameters for which it
/// implements `Serialize` and `Clone`, and its id `Display`. Lifetimes are refused.
#[proc_macro_derive(Command, attributes(command))]
pub fn derive_command(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    tokens(command::expand(&input))
}

/// Implements `ReadModel` for a struct: a row of a table, built from events.
///
/// ```
/// # use annals_eventstore::{Aggregate, Apply, Event};
/// # use serde::Deserialize;
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum LoanEvent { Submitted }
/// # #[derive(Aggregate, Default)]
/// # #[aggregate(category = "loan", event = LoanEvent)]
/// # struct Loan;
/// # impl Apply<LoanEvent> for Loan { fn apply(&mut self, _: &LoanEvent) {} }
/// use annals_eventstore::Recorded;
/// use annals_projections::{Change, Project, ReadModel};
/// use serde::Serialize;
///
/// #[derive(Clone, Debug, Serialize, Deserialize)]
/// struct Terms {
///     months: u32,
/// }
///
/// #[derive(ReadModel, Clone)]
/// #[read_model(table = "loan_overview", from(Loan), history)]
/// struct LoanOverview {
///     #[read_model(key)]
///     loan: String,
///     amount: i64,
///     approved_by: Option<String>,
///     #[read_model(json)]
///     terms: Vec<Terms>,
///     #[read_model(column = "loan_status")]
///     status: String,
/// }
///
/// impl Project<LoanEvent> for LoanOverview {
///     fn project(row: Option<Self>, event: &Recorded<LoanEvent>) -> Change<Self> {
///         # let _ = (row, event);
///         // ...
///         # Change::Keep
///     }
/// }
///
/// let columns: Vec<_> = LoanOverview::COLUMNS.iter().map(|c| (c.name, c.sql_type)).collect();
/// assert_eq!(
///     columns,
///     [
///         ("loan", "text"),
///         ("amount", "bigint"),
///         ("approved_by", "text"),
///         ("terms", "jsonb"),
///         ("loan_status", "text"),
///     ],
/// );
/// ```
///
/// # On the struct
///
/// - `#[read_model(table = "loan_overview")]`, required, is the table: lower-case letters, digits
///   and `_`, not starting with a digit, at most 40 bytes.
/// - `#[read_model(from(Loan, Payment))]`, required, lists the aggregates whose events it is built
///   from. It implements `Project` for the events of each.
/// - `#[read_model(history)]` keeps every version of every row, for queries as of any moment.
/// - `#[read_model(index(loan_status, amount))]` is an index on these columns, in this order. Columns go
///   by their own names, not by those of fields. It may be repeated. The key has its index anyway. There
///   are no unique indexes: rows of a batch may pass through states in which they are equal.
/// - `#[read_model(version = 2)]` is the version of the fold, from 1, which is the default. Raise it when
///   `Project` makes other rows of the same events, so that the read model is built anew. A change of the
///   columns is noticed without it.
/// - `#[read_model(slices = 4)]` says into how many parts the projection is split, so that as many workers
///   can share it: 1 to 256, by default 1. Its events then touch no row but that whose key is their stream's.
///
/// # On a field
///
/// - `#[read_model(key)]` makes it the key, or a part of it: one to four fields. The key's type is
///   that of the field, or a tuple of the fields' types in their order. A key is never null.
/// - `#[read_model(json)]` stores it as `jsonb`, not null: any type with `Serialize`,
///   `DeserializeOwned` and `Debug`. All other fields have types that implement `Column`.
/// - `#[read_model(index)]` is an index on its column alone. JSON and arrays have none.
/// - `#[read_model(column = "...")]` names its column; without it, the column is called like the
///   field. The rules are the table's, with at most 63 bytes. `valid_from` and `valid_to`, which
///   a history adds, and the columns that PostgreSQL gives every table are refused.
///
/// # Generics
///
/// Type and const parameters are carried over. Write the bounds that make it a read model on the
/// struct itself (`K: Column + FromStr + ...`) and repeat them on `Project`. Lifetimes are refused.
#[proc_macro_derive(ReadModel, attributes(read_model))]
pub fn derive_read_model(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    tokens(read_model::expand(&input))
}

/// Implements `Saga` for a struct or an enum: what a saga is called, what it records and asks for, and whose events it
/// hears. What it does is for `Process` and `On` to say.
///
/// ```
/// use annals_eventstore::{Aggregate, Apply, Event, Recorded};
/// use annals_projections::Saga;
/// use annals_projections::saga::{Action, Actions, On, Process, Step};
/// use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize, Clone)]
/// # enum TripEvent { Requested }
/// # #[derive(Aggregate, Default)]
/// # #[aggregate(category = "trip", event = TripEvent)]
/// # struct Trip;
/// # impl Apply<TripEvent> for Trip { fn apply(&mut self, _: &TripEvent) {} }
///
/// #[derive(Event, Serialize, Deserialize)]
/// enum BookingEvent {
///     FlightBooked { reference: String },
/// }
///
/// #[derive(Serialize, Deserialize)]
/// enum Call {
///     BookFlight,
///     CancelFlight,
/// }
///
/// #[derive(Saga, Default)]
/// #[saga(category = "booking", event = BookingEvent, call = Call, reply = String, from(Trip))]
/// struct Booking {
///     flight: Option<String>,
/// }
/// # impl Apply<BookingEvent> for Booking {
/// #     fn apply(&mut self, event: &BookingEvent) {
/// #         let BookingEvent::FlightBooked { reference } = event;
/// #         self.flight = Some(reference.clone());
/// #     }
/// # }
/// # impl Process for Booking {
/// #     fn steps() -> Vec<Step<Self>> {
/// #         vec![Self::step("flight", |_| Call::BookFlight).undo(|_| Call::CancelFlight)]
/// #     }
/// # }
/// # impl On<TripEvent> for Booking {
/// #     fn on(&self, _: &Recorded<TripEvent>) -> Actions<Self> { vec![Action::RunAll] }
/// # }
/// ```
///
/// - `category = "booking"`: the category of its streams, and its name. It must not change.
/// - `event = BookingEvent`: the enum of the events that it records itself.
/// - `call = Call`: what it asks of others, as JSON by serde.
/// - `reply = String`: what they reply; `()` unless given.
/// - `from(Trip, Payment)`: the aggregates whose events it hears. It needs an `On` for the events of each.
#[proc_macro_derive(Saga, attributes(saga))]
pub fn derive_saga(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    saga::expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// Implements `Column` for an enum or a newtype: a field of a read model may have this type.
///
/// ```
/// use annals_projections::Column;
///
/// #[derive(Column, Clone, Copy, Debug, PartialEq)]
/// enum Status {
///     Submitted,
///     // Stored as "on_hold" before it was renamed.
///     #[column(name = "on_hold")]
///     Waiting,
/// }
///
/// #[derive(Column, Clone, Debug, PartialEq, Eq, Hash)]
/// struct LoanId(i64);
///
/// assert_eq!((Status::SQL_TYPE, LoanId::SQL_TYPE), ("text", "bigint"));
/// ```
///
/// # On an enum
///
/// Its variants have no fields, and are stored as text: by their names in snake case, or those that
/// `#[column(name = "...")]` on a variant gives them. A text that is no name of a variant is an error when
/// it is read. Rows keep the names that they were written with, so a name that changes makes another
/// `version` of the read model.
///
/// # On a struct
///
/// It has one field, whose type implements `Column`, and is stored as that.
///
/// # Both
///
/// The type implements `Debug`. The macro also implements `ToSql` and `FromSql`, so these are not
/// derived beside it, and `ArrayElement`, so that there may be a `Vec` of it. For the key of a read
/// model it needs `Clone`, `Eq`, `Hash` and, where the key is one field, `FromStr`. Type and const
/// parameters are carried over: it is a column for those for which all of this holds. Lifetimes are
/// refused.
#[proc_macro_derive(Column, attributes(column))]
pub fn derive_column(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    tokens(column::expand(&input))
}

/// Implements `Shape` for a struct or an enum that is a part of events or of an aggregate's state.
///
/// ```
/// use annals_eventstore::{Shape, ShapeText};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Shape)]
/// #[serde(rename_all = "snake_case")]
/// enum Purpose {
///     House { #[serde(rename = "address")] at: String },
///     OwnCar,
/// }
///
/// let shape = "enum {\n  house: struct {\n    address: string\n  }\n  own_car: unit\n}";
/// assert_eq!(ShapeText::of::<Purpose>(), shape);
/// ```
///
/// It has no attributes of its own and follows serde's: names are those that serde writes; `default`,
/// `flatten`, `tag` and whatever else changes the form is part of the text; what only helps reading,
/// such as `alias`, is not. Fields written by functions of your own (`with`) are opaque, and so are
/// fields whose types do not implement `Shape`. Type parameters implement `Shape`.
#[proc_macro_derive(Shape)]
pub fn derive_shape(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    tokens(shape::expand(&input))
}

fn tokens(expanded: Result<proc_macro2::TokenStream, Error>) -> TokenStream {
    expanded.unwrap_or_else(Error::into_compile_error).into()
}
