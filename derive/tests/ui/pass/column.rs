//! Enums and newtypes as columns, in arrays, in keys and with parameters.
#![deny(missing_docs, clippy::all, unused_qualifications, warnings)]

use std::{num::ParseIntError, str::FromStr};

use annals_eventstore::{Aggregate, Apply, Event, Recorded};
use annals_projections::{Change, Column, ColumnDef, Project, ReadModel};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum LoanEvent {
    Approved,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "loan", event = LoanEvent)]
struct Loan;

impl Apply<LoanEvent> for Loan {
    fn apply(&mut self, _: &LoanEvent) {}
}

#[derive(Column, Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Status {
    Open,
    OnHold,
    #[column(name = "It's over")]
    Closed,
    r#Type,
    Empty {},
}

#[derive(Column, Clone, Debug, PartialEq, Eq, Hash)]
struct LoanId(i64);

impl FromStr for LoanId {
    type Err = ParseIntError;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        id.parse().map(Self)
    }
}

#[derive(Column, Clone, Debug)]
struct Tags {
    all: Vec<String>,
}

#[derive(Column, Clone, Debug)]
struct Note(Option<String>);

#[derive(Column, Clone, Debug)]
struct Outer<T>(T);

#[derive(Column, Clone, Debug)]
struct Secret(Vec<u8>);

#[derive(ReadModel, Clone, Debug)]
#[read_model(table = "loans", from(Loan), index(status, id))]
struct Loans {
    #[read_model(key)]
    id: LoanId,
    status: Status,
    before: Vec<Status>,
    next: Option<Status>,
    tags: Tags,
    more: Option<Tags>,
    ids: Vec<Option<LoanId>>,
    note: Note,
    outer: Outer<LoanId>,
    outers: Option<Vec<Outer<Outer<Status>>>>,
    secret: Secret,
    secrets: Vec<Secret>,
}

impl Project<LoanEvent> for Loans {
    fn project(_: Option<Self>, _: &Recorded<LoanEvent>) -> Change<Self> {
        Change::Keep
    }
}

#[derive(ReadModel, Clone, Debug)]
#[read_model(table = "by_status", from(Loan))]
struct ByStatus {
    #[read_model(key)]
    status: Status,
    #[read_model(key)]
    id: LoanId,
}

impl Project<LoanEvent> for ByStatus {
    fn project(_: Option<Self>, _: &Recorded<LoanEvent>) -> Change<Self> {
        Change::Keep
    }
}

fn main() {
    let columns: Vec<_> = Loans::COLUMNS
        .iter()
        .map(|ColumnDef { sql_type, param_type, nullable, .. }| (*sql_type, *param_type, *nullable))
        .collect();
    let expected = [
        ("bigint", "bigint", false),
        ("text", "text", false),
        ("text[]", "text", false),
        ("text", "text", true),
        ("text[]", "text", false),
        ("text[]", "text", true),
        ("bigint[]", "text", false),
        ("text", "text", true),
        ("bigint", "bigint", false),
        ("text[]", "text", true),
        ("bytea", "bytea", false),
        ("bytea[]", "text", false),
    ];
    assert_eq!(columns, expected);
    let key = ByStatus { status: Status::Open, id: LoanId(1) }.key();
    assert_eq!(key, (Status::Open, LoanId(1)));
    let _ = [Status::OnHold, Status::Closed, Status::r#Type, Status::Empty {}];
}
