//! Parameters of the aggregate reach its events and its error.
#![deny(missing_docs, clippy::all, unused_qualifications, warnings)]

use std::{fmt::Debug, marker::PhantomData};

use annals_eventstore::{Aggregate, Apply, Event};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Event, Serialize, Deserialize)]
enum Changed<T> {
    Set(T),
}

#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused<T>(PhantomData<T>);

#[derive(Aggregate)]
#[aggregate(category = "cell", event = Changed<T>, error = Refused<T>)]
struct Cell<T, const N: usize>
where
    T: Clone,
{
    values: Vec<T>,
}

impl<T: Clone, const N: usize> Default for Cell<T, N> {
    fn default() -> Self {
        Self { values: Vec::with_capacity(N) }
    }
}

impl<T: Clone, const N: usize> Apply<Changed<T>> for Cell<T, N> {
    fn apply(&mut self, event: &Changed<T>) {
        let Changed::Set(value) = event;
        self.values.push(value.clone());
    }
}

fn category<T>() -> &'static str
where
    T: Serialize + DeserializeOwned + Debug + Clone + Send + Sync + 'static,
{
    Cell::<T, 2>::CATEGORY
}

fn main() {
    assert_eq!(category::<String>(), "cell");
    let mut cell = Cell::<u8, 2>::default();
    cell.apply(&Changed::Set(1));
    assert_eq!(cell.values, [1]);
}
