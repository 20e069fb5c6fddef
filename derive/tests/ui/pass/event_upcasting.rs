//! Upcasters of generic events, in modules, with generic types of old payloads.
#![deny(missing_docs, clippy::all, unused_qualifications, warnings)]

use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

mod old {
    use super::*;

    #[derive(Deserialize)]
    pub(super) struct Set<T>(pub(super) Vec<T>);

    #[derive(Deserialize)]
    pub(super) struct Cleared {}
}

/// Only dropped types.
#[derive(Event, Serialize, Deserialize)]
#[event(dropped("changed"))]
pub enum Dropped {
    /// An event.
    Happened,
}

#[derive(Event, Serialize, Deserialize)]
#[event(prefix = "cell_", dropped("touched",), split("cleared", old::Cleared,))]
enum Changed<T: Default> {
    #[event(version = 2, split_from = old::Set<u8>)]
    Set(T),
    #[event(upcast_from = [[u8; 2], (u8, u8)], version = 3)]
    Pair { sum: u8 },
}

impl<T: Default> From<old::Set<u8>> for Vec<Changed<T>> {
    fn from(old: old::Set<u8>) -> Self {
        old.0.iter().map(|_| Changed::Set(T::default())).collect()
    }
}

impl<T: Default> From<old::Cleared> for Vec<Changed<T>> {
    fn from(_: old::Cleared) -> Self {
        vec![Changed::Set(T::default())]
    }
}

impl<T: Default> From<(u8, u8)> for Changed<T> {
    fn from((left, right): (u8, u8)) -> Self {
        Changed::Pair { sum: left + right }
    }
}

fn main() {
    let read = annals_eventstore::testkit::stored::<Changed<u8>>;
    assert!(matches!(read("cell_set", 1, "[1,2]")[..], [Changed::Set(0), Changed::Set(0)]));
    assert!(matches!(read("cell_set", 2, "7")[..], [Changed::Set(7)]));
    assert!(matches!(read("cleared", 1, "{}")[..], [Changed::Set(0)]));
    assert!(matches!(read("cell_pair", 1, "[1,2]")[..], [Changed::Pair { sum: 3 }]));
    assert!(matches!(read("touched", 1, "{}")[..], []));
    assert_eq!(Dropped::RETIRED[0].name, "changed");
}
