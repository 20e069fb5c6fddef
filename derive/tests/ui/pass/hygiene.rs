//! The generated code names everything absolutely, whatever the user's own names mean.
#![deny(missing_docs, clippy::all, unused_qualifications, warnings)]
#![no_implicit_prelude]
#![allow(non_camel_case_types, dead_code)]

use ::annals_eventstore::{Aggregate, Apply, Command, Event, Shape};
use ::annals_projections::{Change, Project, ReadModel};
use ::serde::{Deserialize, Serialize};
use ::std::{clone::Clone, default::Default, fmt::Debug, prelude::rust_2024::derive};

struct Option;
struct Vec;
struct Box;
struct Result;
struct Json;
struct Column;
struct Row;
struct ToSql;
struct FromSql;
struct Type;
struct Some;
struct None;
struct Ok;
struct Self_;
mod std {}
mod annals_eventstore {}
mod annals_projections {}
mod serde_ {}

#[derive(Event, Serialize, Deserialize)]
#[event(dropped("clicked"), split("gone", Old))]
enum LoanEvent {
    #[event(version = 3, upcast_from = [Old, Old])]
    Submitted { id: ::std::primitive::i64 },
    #[event(version = 2, split_from = Old)]
    Moved,
}

#[derive(Deserialize)]
struct Old {}

impl ::std::convert::From<Old> for LoanEvent {
    fn from(_: Old) -> Self {
        LoanEvent::Moved
    }
}

impl ::std::convert::From<Old> for ::std::vec::Vec<LoanEvent> {
    fn from(_: Old) -> Self {
        ::std::vec::Vec::new()
    }
}

#[derive(Aggregate, Default)]
#[aggregate(category = "loan", event = LoanEvent)]
struct Loan {
    terms: ::std::option::Option<Terms<()>>,
}

#[derive(Shape)]
struct Terms<T> {
    months: T,
    unknown: Option,
}

#[derive(Shape)]
enum Purpose {
    House,
    Car { terms: Terms<()>, unknown: Vec },
}

/// A method that every type has.
trait Everywhere {
    fn describe(&self, _: &::std::primitive::str) {}
    fn name(&self) {}
    fn inner(&self) {}
    fn to_sql(&self) {}
    fn extend(&self) {}
    fn map(&self) {}
}

impl<T: ?::std::marker::Sized> Everywhere for T {}

impl Apply<LoanEvent> for Loan {
    fn apply(&mut self, _: &LoanEvent) {}
}

#[derive(Command, Clone, Serialize)]
#[command(aggregate = Loan)]
struct Submit {
    #[command(id)]
    id: ::std::primitive::i64,
}

#[derive(Command, Clone, Serialize)]
#[command(aggregate = Loan)]
enum Change_ {
    Submit {
        #[command(id)]
        rows: ::std::primitive::i64,
        id: ::std::primitive::i64,
    },
}

// Serde's derive does not bear these, so nothing that needs it is in here.
mod primitives {
    use super::*;

    struct str;
    struct usize;
    struct bool;
    struct i64;

    #[derive(::annals_projections::Column, Clone, Debug)]
    enum Status {
        Open,
        #[column(name = "over")]
        Closed,
    }

    #[derive(::annals_projections::Column, Clone, Debug)]
    struct Amount(::std::primitive::i64);

    #[derive(::annals_projections::Column, Clone, Debug)]
    struct Holder<T> {
        value: ::std::vec::Vec<T>,
    }

    #[derive(ReadModel, Clone)]
    #[read_model(table = "loans", from(Loan), index(status, row), version = 2, slices = 2)]
    struct Loans {
        #[read_model(key)]
        row: ::std::string::String,
        #[read_model(key)]
        rows: ::std::primitive::i64,
        #[read_model(json)]
        index: ::std::vec::Vec<::std::primitive::i64>,
        status: Status,
        #[read_model(index)]
        into: ::std::option::Option<Amount>,
        values: ::std::vec::Vec<Amount>,
    }

    impl Project<LoanEvent> for Loans {
        fn project(
            _: ::std::option::Option<Self>,
            _: &::annals_eventstore::Recorded<LoanEvent>,
        ) -> Change<Self> {
            Change::Keep
        }
    }
}

fn main() {}
