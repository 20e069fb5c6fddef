//! A context that publishes, and validators.

use annals_eventstore::{
    Aggregate, Apply, Event, JsonSchema, Payload,
    contract::{Contract, PublishedCategory, ServiceLevel},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(crate = "annals_eventstore::schemars")]
pub(crate) struct Money {
    pub(crate) in_cents: i64,
    /// As in ISO 4217.
    pub(crate) currency: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(crate = "annals_eventstore::schemars")]
pub(crate) enum Security {
    House { address: String },
    Person { name: String, age: u8 },
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(crate = "annals_eventstore::schemars")]
pub(crate) enum Channel {
    /// At the counter.
    Branch,
    Web,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "annals_eventstore::schemars")]
pub(crate) struct Note {
    pub(crate) text: String,
    pub(crate) replies: Vec<Note>,
}

/// All that serde can make of a variant.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all_fields = "camelCase")]
#[schemars(crate = "annals_eventstore::schemars")]
pub(crate) enum LoanEvent {
    /// Somebody asked for money.
    #[event(version = 2)]
    Submitted {
        /// How much.
        amount: Money,
        channel: Channel,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
        #[serde(default)]
        asked_before: bool,
        security: Option<Security>,
        request_id: Uuid,
        at: DateTime<Utc>,
    },
    Approved,
    #[serde(rename = "refused")]
    Declined(Reasons),
    Moved(i64, u32, Option<String>),
    Noted(Note),
    #[event(name = "tagged.with")]
    Tagged(std::collections::BTreeMap<String, i32>),
    /// Nothing more happens.
    Closed,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "annals_eventstore::schemars")]
pub(crate) struct Reasons {
    #[serde(rename = "why")]
    pub(crate) reasons: Vec<String>,
    #[serde(flatten)]
    pub(crate) extra: Money,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "loan", event = LoanEvent)]
pub(crate) struct Loan;

impl Apply<LoanEvent> for Loan {
    fn apply(&mut self, _: &LoanEvent) {}
}

pub(crate) fn money() -> Money {
    Money { in_cents: 12_345, currency: "EUR".into() }
}

/// Events of each kind, with what may be missing there and missing.
pub(crate) fn events() -> Vec<LoanEvent> {
    let submitted = |channel, resource: Option<&str>, security| LoanEvent::Submitted {
        amount: money(),
        channel,
        resource: resource.map(Into::into),
        asked_before: false,
        security,
        request_id: Uuid::nil(),
        at: DateTime::UNIX_EPOCH,
    };
    let house = Security::House { address: "a".into() };
    let person = Security::Person { name: "n".into(), age: 40 };
    let note = Note { text: "t".into(), replies: vec![Note { text: "u".into(), replies: vec![] }] };
    vec![
        submitted(Channel::Branch, Some("r"), Some(house)),
        submitted(Channel::Web, None, Some(person)),
        submitted(Channel::Web, None, Some(Security::Nothing)),
        submitted(Channel::Web, None, None),
        LoanEvent::Approved,
        LoanEvent::Declined(Reasons { reasons: vec!["late".into()], extra: money() }),
        LoanEvent::Moved(-1, 2, None),
        LoanEvent::Moved(i64::MAX, u32::MAX, Some("x".into())),
        LoanEvent::Noted(note),
        LoanEvent::Tagged([("a".to_owned(), 1)].into()),
        LoanEvent::Closed,
    ]
}

pub(crate) fn contract() -> Contract {
    Contract::new("lending")
        .version("1.2.0")
        .description("Loans, from the application to the end.")
        .schemas_at("https://schemas.example.org/lending")
        .server("production", "kafka.example.org:9092")
        .category(
            PublishedCategory::of::<Loan>()
                .owner("lending-team")
                .description("What happens to applications for loans.")
                .partitions(8)
                .service_level(
                    ServiceLevel::new("latency", 5).unit("s").description("95 % of them"),
                )
                .service_level(ServiceLevel::new("retention", "P7D")),
        )
}

pub(crate) fn value(payload: &Payload) -> Value {
    serde_json::from_slice(payload.as_bytes()).unwrap()
}

/// What a validator has against an instance, formats included.
pub(crate) fn errors(schema: &Value, instance: &Value) -> Vec<String> {
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    let errors = validator.iter_errors(instance);
    errors.map(|error| format!("{}: {error}", error.instance_path())).collect()
}
