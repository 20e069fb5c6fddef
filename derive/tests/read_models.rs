//! How the rows of a derived read model become the parameters of a statement.
#![deny(missing_docs, clippy::all, unused_qualifications)]
#![allow(clippy::unwrap_used)]

use annals_eventstore::{Aggregate, Apply, Event, Recorded};
use annals_projections::{Change, Project, ReadModel};
use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::{IsNull, Json, ToSql, Type};

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

#[derive(ReadModel, Clone)]
#[read_model(table = "loans", from(Loan))]
struct Loans {
    total: i64,
    #[read_model(key)]
    bank: String,
    #[read_model(json)]
    terms: Option<Vec<u8>>,
    #[read_model(key)]
    number: i64,
    note: Option<String>,
}

impl Project<LoanEvent> for Loans {
    fn project(row: Option<Self>, event: &Recorded<LoanEvent>) -> Change<Self> {
        match event.event {
            LoanEvent::Approved => row.map_or(Change::Keep, Change::Set),
        }
    }
}

fn rows() -> [Loans; 2] {
    [
        Loans { total: 1, bank: "north".into(), terms: Some(vec![3]), number: 10, note: None },
        Loans {
            total: 2,
            bank: "south".into(),
            terms: None,
            number: 20,
            note: Some("late".into()),
        },
    ]
}

/// What PostgreSQL is sent for an array of this type.
fn sent(value: &dyn ToSql, element: &Type) -> Vec<u8> {
    let array = match *element {
        Type::INT8 => Type::INT8_ARRAY,
        Type::TEXT => Type::TEXT_ARRAY,
        Type::JSONB => Type::JSONB_ARRAY,
        _ => unreachable!("no column has this type"),
    };
    let mut bytes = BytesMut::new();
    value.to_sql_checked(&array, &mut bytes).unwrap();
    bytes.to_vec()
}

#[test]
fn columns_are_arrays_in_the_order_of_the_fields() {
    let [first, second] = rows();
    let expected: [(Box<dyn ToSql>, Type); 5] = [
        (Box::new(vec![1_i64, 2]), Type::INT8),
        (Box::new(vec!["north", "south"]), Type::TEXT),
        (Box::new(vec![Json(Some(vec![3])), Json(None)]), Type::JSONB),
        (Box::new(vec![10_i64, 20]), Type::INT8),
        (Box::new(vec![None, Some("late")]), Type::TEXT),
    ];
    let columns = Loans::columns(&[&first, &second]);
    assert_eq!(columns.len(), expected.len());
    for (column, (values, element)) in columns.iter().zip(&expected) {
        assert_eq!(sent(&**column, element), sent(&**values, element), "{element}");
    }
}

#[test]
fn values_are_those_of_one_row_in_the_order_of_the_fields() {
    let [first, second] = rows();
    let expected: [(Box<dyn ToSql>, Type); 10] = [
        (Box::new(1_i64), Type::INT8),
        (Box::new("north"), Type::TEXT),
        (Box::new(Json(Some(vec![3]))), Type::JSONB),
        (Box::new(10_i64), Type::INT8),
        (Box::new(None::<&str>), Type::TEXT),
        (Box::new(2_i64), Type::INT8),
        (Box::new("south"), Type::TEXT),
        (Box::new(Json(None::<Vec<u8>>)), Type::JSONB),
        (Box::new(20_i64), Type::INT8),
        (Box::new("late"), Type::TEXT),
    ];
    let mut values = Vec::new();
    first.values(&mut values);
    second.values(&mut values);
    assert_eq!(values.len(), expected.len());
    for (value, (wanted, ty)) in values.iter().zip(&expected) {
        assert_eq!(field(value, ty), field(&**wanted, ty), "{ty}");
        assert!(value.to_sql_checked(&Type::CIDR, &mut BytesMut::new()).is_err(), "{ty}");
    }
}

/// What PostgreSQL is sent for a field of this type; nothing for a null.
fn field(value: &dyn ToSql, ty: &Type) -> Option<Vec<u8>> {
    let mut bytes = BytesMut::new();
    match value.to_sql_checked(ty, &mut bytes).unwrap() {
        IsNull::Yes => None,
        IsNull::No => Some(bytes.to_vec()),
    }
}

#[test]
fn a_key_of_several_columns_is_a_tuple_in_the_order_of_the_fields() {
    let [first, second] = rows();
    assert_eq!(first.key(), ("north".to_owned(), 10));
    assert_eq!(second.key(), ("south".to_owned(), 20));
}
