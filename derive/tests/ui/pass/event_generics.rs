//! Type and const parameters, bounds, defaults and where clauses are carried over.
#![deny(missing_docs, clippy::all, unused_qualifications, warnings)]

use std::{fmt::Debug, marker::PhantomData};

use annals_eventstore::Event;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Event, Serialize, Deserialize)]
enum Changed<T, M: Debug = ()>
where
    T: Clone,
{
    Set(T),
    Cleared { #[serde(skip)] marker: PhantomData<M> },
}

#[derive(Event, Serialize, Deserialize)]
enum Sized<const N: usize> {
    Counted(u32),
}

#[derive(Event, Serialize, Deserialize)]
enum Lifeless {
    Happened(PhantomData<&'static str>),
}

/// The parameters' own bounds suffice.
fn name_of<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static>(value: T) -> &'static str {
    Changed::<T>::Set(value).event_type().name
}

fn main() {
    assert_eq!(name_of(1_u8), "set");
    assert_eq!(Changed::<u8, u8>::Cleared { marker: PhantomData }.event_type().name, "cleared");
    assert_eq!(Sized::<4>::Counted(1).event_type().name, "counted");
    assert_eq!(Lifeless::Happened(PhantomData).event_type().name, "happened");
}
