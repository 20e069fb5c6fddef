//! A read model's parameters carry their bounds; sources may be generic too.
#![deny(missing_docs, clippy::all, unused_qualifications, warnings)]

use std::{fmt::Display, hash::Hash, str::FromStr};

use annals_eventstore::{Aggregate, Apply, Event, Recorded};
use annals_projections::{Change, Column, Project, ReadModel};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum Changed<T> {
    Set(T),
}

#[derive(Aggregate)]
#[aggregate(category = "cell", event = Changed<T>)]
struct Cell<T>(Option<T>);

impl<T> Default for Cell<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Apply<Changed<T>> for Cell<T> {
    fn apply(&mut self, event: &Changed<T>) {
        let Changed::Set(value) = event;
        self.0 = Some(value.clone());
    }
}

#[derive(ReadModel, Clone)]
#[read_model(table = "cells", from(Cell<i64>))]
struct Cells<K, const N: usize>
where
    K: Column + FromStr<Err: Display> + Clone + Eq + Hash,
{
    #[read_model(key)]
    key: K,
    value: i64,
}

impl<K, const N: usize> Project<Changed<i64>> for Cells<K, N>
where
    K: Column + FromStr<Err: Display> + Clone + Eq + Hash,
{
    fn project(row: Option<Self>, event: &Recorded<Changed<i64>>) -> Change<Self> {
        let Changed::Set(value) = event.event;
        row.map_or(Change::Keep, |row| Change::Set(Self { value, ..row }))
    }
}

fn main() {
    assert_eq!(Cells::<String, 1> { key: "a".to_owned(), value: 1 }.key(), "a");
    assert_eq!(Cells::<i64, 1>::COLUMNS[0].sql_type, "bigint");
    assert_eq!(Cells::<String, 1>::sources()[0].category(), "cell");
}
