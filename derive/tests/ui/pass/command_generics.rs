//! Parameters of a command reach its id and its aggregate.
#![deny(missing_docs, clippy::all, unused_qualifications, warnings)]
#![allow(dead_code)]

use std::{fmt::Display, marker::PhantomData};

use annals_eventstore::{Aggregate, Apply, Command, Event};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

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

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Cell<T>)]
struct Set<I, T, const N: usize>
where
    T: Clone,
{
    #[command(id)]
    id: I,
    value: T,
    marker: PhantomData<&'static str>,
}

#[derive(Command, Serialize, Clone)]
#[command(aggregate = Cell<T>)]
enum Change<I, T> {
    Set(#[command(id)] I, T),
    Clear { #[command(id)] id: String },
}

fn key<I, T>(id: I, value: T) -> String
where
    I: Display + Serialize + Clone + Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    Set::<I, T, 3> { id, value, marker: PhantomData }.stream_key()
}

fn main() {
    assert_eq!(key(12_u8, 'x'), "12");
    assert_eq!(Change::Set(12_u8, 1_u8).stream_key(), "12");
    assert_eq!(Change::<u8, u8>::Clear { id: "a".into() }.stream_key(), "a");
}
