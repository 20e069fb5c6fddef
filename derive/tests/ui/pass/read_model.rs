//! Keys of one and of several columns, renamed and json columns, history, indexes, several sources.
#![deny(missing_docs, clippy::all, unused_qualifications, warnings)]
#![allow(dead_code, non_snake_case)]

use std::collections::BTreeMap;

use annals_eventstore::{Aggregate, Apply, Event, Recorded};
use annals_projections::{Change, ColumnDef, History, IndexDef, Keys, KeyError, Project, ReadModel};
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    Approved,
}

#[derive(Event, Serialize, Deserialize)]
enum PaymentEvent {
    Paid,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "loan", event = LoanEvent)]
struct Loan;

impl Apply<LoanEvent> for Loan {
    fn apply(&mut self, _: &LoanEvent) {}
}

mod payments {
    #[derive(annals_eventstore::Aggregate, Default)]
    #[aggregate(category = "payment", event = super::PaymentEvent)]
    pub(crate) struct Payment;
}

impl Apply<PaymentEvent> for payments::Payment {
    fn apply(&mut self, _: &PaymentEvent) {}
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Address {
    street: String,
}

/// Loans.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "loan_overview", from(Loan, payments::Payment), history, version = 2, slices = 256)]
#[read_model(index(r#type, amount), index(order), index(amount, r#type,))]
pub struct LoanOverview {
    #[read_model(key)]
    r#type: String,
    #[read_model(index)]
    amount: i64,
    note: Option<String>,
    id: uuid::Uuid,
    due: NaiveDate,
    changed: Option<DateTime<Utc>>,
    #[read_model(json)]
    address: Address,
    #[read_model(json, column = "terms")]
    all_terms: BTreeMap<String, Option<Vec<i64>>>,
    #[read_model(column = "order")]
    CamelCase: bool,
}

impl Project<LoanEvent> for LoanOverview {
    fn project(row: Option<Self>, _: &Recorded<LoanEvent>) -> Change<Self> {
        row.map_or(Change::Keep, Change::Set)
    }
}

impl Project<PaymentEvent> for LoanOverview {
    fn project(_: Option<Self>, _: &Recorded<PaymentEvent>) -> Change<Self> {
        Change::Delete
    }
}

#[derive(ReadModel, Clone)]
#[read_model(table = "by_day")]
#[read_model(from(Loan,))]
struct ByDay {
    total: i64,
    #[read_model(key)]
    day: NaiveDate,
    #[read_model(key, column = "region_code")]
    region: String,
}

impl Project<LoanEvent> for ByDay {
    fn keys(_: &Recorded<LoanEvent>) -> Result<Keys<Self::Key>, KeyError> {
        Ok(Keys::one((NaiveDate::default(), "north".to_owned())))
    }

    fn project(_: Option<Self>, _: &Recorded<LoanEvent>) -> Change<Self> {
        Change::Keep
    }
}

#[derive(ReadModel, Clone)]
#[read_model(table = "four", from(Loan))]
struct Four {
    #[read_model(key)]
    a: i16,
    #[read_model(key)]
    b: i32,
    #[read_model(key)]
    c: i64,
    #[read_model(key)]
    d: bool,
}

impl Project<LoanEvent> for Four {
    fn project(_: Option<Self>, _: &Recorded<LoanEvent>) -> Change<Self> {
        Change::Keep
    }
}

fn main() {
    assert_eq!(LoanOverview::TABLE, "loan_overview");
    assert_eq!((LoanOverview::HISTORY, ByDay::HISTORY), (History::Kept, History::None));
    let expected = [
        ColumnDef::of::<String>("type").in_key(),
        ColumnDef::of::<i64>("amount"),
        ColumnDef::of::<Option<String>>("note"),
        ColumnDef::of::<uuid::Uuid>("id"),
        ColumnDef::of::<NaiveDate>("due"),
        ColumnDef::of::<Option<DateTime<Utc>>>("changed"),
        ColumnDef::json("address"),
        ColumnDef::json("terms"),
        ColumnDef::of::<bool>("order"),
    ];
    assert_eq!(LoanOverview::COLUMNS, expected);
    let types: Vec<_> = LoanOverview::COLUMNS.iter().map(|column| (column.sql_type, column.nullable)).collect();
    assert_eq!(types[..4], [("text", false), ("bigint", false), ("text", true), ("uuid", false)]);
    assert_eq!(types[4..], [("date", false), ("timestamptz", true), ("jsonb", false), ("jsonb", false), ("boolean", false)]);
    assert_eq!(
        LoanOverview::INDEXES,
        [
            IndexDef::new(&["type", "amount"]),
            IndexDef::new(&["order"]),
            IndexDef::new(&["amount", "type"]),
            IndexDef::new(&["amount"]),
        ],
    );
    assert!(ByDay::INDEXES.is_empty());
    assert_eq!((LoanOverview::VERSION, ByDay::VERSION), (2, 1));
    assert_eq!((LoanOverview::SLICES, ByDay::SLICES), (256, 1));
    let categories = LoanOverview::sources().iter().map(|source| source.category()).collect::<Vec<_>>();
    assert_eq!(categories, ["loan", "payment"]);

    let row = LoanOverview {
        r#type: "a".into(),
        amount: 1,
        note: None,
        id: uuid::Uuid::nil(),
        due: NaiveDate::default(),
        changed: None,
        address: Address::default(),
        all_terms: BTreeMap::new(),
        CamelCase: true,
    };
    assert_eq!(row.key(), "a");
    assert_eq!(LoanOverview::columns(&[&row, &row]).len(), expected.len());
    let mut values = Vec::new();
    row.values(&mut values);
    assert_eq!(values.len(), expected.len());

    let day = ByDay { total: 1, day: NaiveDate::default(), region: "north".into() };
    let key: (NaiveDate, String) = day.key();
    assert_eq!(key, (NaiveDate::default(), "north".to_owned()));
    let keys: Vec<_> = ByDay::COLUMNS.iter().map(|column| (column.name, column.key)).collect();
    assert_eq!(keys, [("total", false), ("day", true), ("region_code", true)]);
    assert_eq!(Four { a: 1, b: 2, c: 3, d: true }.key(), (1, 2, 3, true));
}
