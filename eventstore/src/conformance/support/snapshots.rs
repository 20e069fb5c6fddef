//! The counter of the tests again, as aggregates with snapshots.

use annals_eventstore::{Aggregate, Apply, Command, Handle};
use serde::{Deserialize, Serialize};

use super::counter::CounterEvent;

/// An aggregate that is a counter, with the snapshots that it says.
macro_rules! counters {
    ($($(#[$attribute:meta])* $name:ident)*) => {
        $(
            #[derive(Aggregate, Serialize, Deserialize, Default, Clone, Debug, PartialEq)]
            #[aggregate(category = "counter", event = CounterEvent)]
            $(#[$attribute])*
            pub struct $name {
                pub total: i64,
                /// What the order of events changes.
                pub last: Vec<i64>,
            }

            impl Apply<CounterEvent> for $name {
                fn apply(&mut self, event: &CounterEvent) {
                    if let CounterEvent::Changed { by } = event {
                        self.total += by;
                        self.last.push(*by);
                    }
                }
            }
        )*
    };
}

counters! {
    Plain
    #[snapshot(every = 1)] EveryOne
    #[snapshot(every = 3)] EveryThree
    #[snapshot(every = 2, keep = 2)] KeepTwo
    #[snapshot(after_ms = 1)] AfterATime
    #[snapshot(by_hand)] ByHand
}

/// The same name as [`EveryOne`] above, from an earlier version of the program.
pub mod earlier {
    use super::*;

    #[derive(Aggregate, Serialize, Deserialize, Default, Clone, Debug, PartialEq)]
    #[aggregate(category = "counter", event = CounterEvent)]
    #[snapshot(every = 1)]
    pub struct EveryOne {
        pub total: i64,
        // An older state reads as one of today, and is not.
        #[serde(default)]
        pub counted_twice: i64,
    }

    impl Apply<CounterEvent> for EveryOne {
        fn apply(&mut self, event: &CounterEvent) {
            if let CounterEvent::Changed { by } = event {
                self.total += 2 * by;
            }
        }
    }
}

/// An aggregate of the shape of [`Refolded`] that folds otherwise than it.
macro_rules! refolded {
    ($event:ty, $(#[$attribute:meta])* $name:ident, $fold:expr) => {
        #[derive(Aggregate, Serialize, Deserialize, Default, Clone, Debug, PartialEq)]
        #[aggregate(category = "counter", event = $event)]
        $(#[$attribute])*
        pub struct $name {
            pub total: i64,
        }

        impl Apply<$event> for $name {
            fn apply(&mut self, event: &$event) {
                let fold: fn(&$event) -> i64 = $fold;
                self.total += fold(event);
            }
        }
    };
}

/// The same name and shape as below, with another fold or other events.
pub mod first {
    use super::*;

    refolded!(
        CounterEvent,
        #[snapshot(by_hand)]
        Refolded,
        |event| if let CounterEvent::Changed { by } = event { 2 * by } else { 0 }
    );
}

pub mod raised {
    use super::*;

    refolded!(
        CounterEvent,
        #[snapshot(by_hand, version = 2)]
        Refolded,
        |event| if let CounterEvent::Changed { by } = event { 3 * by } else { 0 }
    );
}

pub mod upcast {
    use annals_eventstore::Event;

    use super::*;

    /// [`CounterEvent`], a version later.
    #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
    pub enum LaterEvent {
        #[event(version = 2, upcast_from = ChangedV1)]
        Changed { tenths: i64 },
    }

    #[derive(Deserialize, Debug)]
    pub struct ChangedV1 {
        by: i64,
    }

    impl From<ChangedV1> for LaterEvent {
        fn from(old: ChangedV1) -> Self {
            Self::Changed { tenths: 10 * old.by }
        }
    }

    refolded!(
        LaterEvent,
        #[snapshot(by_hand)]
        Refolded,
        |LaterEvent::Changed { tenths }| *tenths
    );
}

pub mod dropped {
    use annals_eventstore::Event;

    use super::*;

    /// [`CounterEvent`], of which nothing is left.
    #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
    #[event(dropped("changed"))]
    pub enum NoEvent {
        Other,
    }

    refolded!(
        NoEvent,
        #[snapshot(by_hand)]
        Refolded,
        |_| 1
    );
}

#[derive(Command, Serialize, Clone, Debug)]
#[command(aggregate = KeepTwo)]
pub struct Count(#[command(id)] pub String, pub i64);

impl Handle<Count> for KeepTwo {
    fn handle(&self, command: Count) -> Result<Vec<CounterEvent>, Self::Error> {
        Ok(vec![CounterEvent::Changed { by: command.1 }])
    }
}
