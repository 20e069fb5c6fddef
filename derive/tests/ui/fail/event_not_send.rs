use std::rc::Rc;

use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event)]
enum LoanEvent {
    Submitted { note: Rc<str> },
}

impl Serialize for LoanEvent {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        unimplemented!()
    }
}

impl<'de> Deserialize<'de> for LoanEvent {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        unimplemented!()
    }
}

fn main() {}
