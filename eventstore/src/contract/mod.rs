//! Contracts of published events: what consumers find in a topic, and what they may rely on.
//!
//! A contract is declared once, beside the code that publishes, and is made from the same types that the
//! payloads are made from:
//!
//! ```
//! use annals_eventstore::{
//!     Aggregate, Apply, Event, JsonSchema,
//!     contract::{Contract, PublishedCategory, ServiceLevel},
//! };
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event, JsonSchema, Serialize, Deserialize)]
//! # #[schemars(crate = "annals_eventstore::schemars")]
//! enum LoanEvent {
//!     /// Somebody asked for money.
//!     Submitted { amount: i64 },
//!     Approved,
//! }
//! # #[derive(Aggregate, Default)]
//! # #[aggregate(category = "loan", event = LoanEvent)]
//! # struct Loan;
//! # impl Apply<LoanEvent> for Loan { fn apply(&mut self, _: &LoanEvent) {} }
//!
//! let contract = Contract::new("lending").category(
//!     PublishedCategory::of::<Loan>()
//!         .owner("lending-team")
//!         .description("What happens to applications for loans.")
//!         .service_level(ServiceLevel::new("latency", 5).unit("s")),
//! );
//! let schema = &contract.schemas()?["loan.submitted.v1".parse()?];
//! assert_eq!(schema["properties"]["amount"]["type"], "integer");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! From it come, as files or one by one:
//! - a [JSON Schema](Contract::schemas) (draft-07) of each type of event in each version: exactly what the
//!   value of a record is;
//! - an [AsyncAPI 3.0](Contract::asyncapi) document: topics, keys, headers, messages;
//! - an [Open Data Contract](Contract::data_contract) (ODCS 3.1) for each category: owner, description,
//!   service levels, fields.
//!
//! [`Directory`] keeps them as files, and [`Compatibility`] says whether a contract may follow the one that
//! was published last. The command line does both: `contract publish` and `contract check`.
//!
//! # Versions
//! A stored payload is published as it was stored, so the topic holds old versions for as long as the log has
//! them. The code knows the schema of the present version only. The published directory keeps those of older
//! versions: they stay in it, and in what is made from it.

mod asyncapi;
mod compatibility;
mod declared;
mod directory;
mod error;
mod key;
mod odcs;
mod schema;

pub use self::{
    compatibility::{Comparison, Compatibility, Difference, Direction},
    declared::{Contract, PublishedCategory, ServiceLevel},
    directory::Directory,
    error::ContractError,
    key::{EventKey, ParseEventKeyError},
    schema::Schemas,
};
