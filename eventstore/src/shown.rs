//! The state of an aggregate for people to look at, where it can be shown.

use std::fmt::Debug;

use serde::Serialize;

use crate::aggregate::State;

/// A state as people look at it: see [`Aggregate::shown`](crate::Aggregate::shown).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shown {
    /// The state is `Serialize`: its JSON, on one line.
    Json(String),
    /// The state is not `Serialize` but `Debug`: what that prints, on several lines.
    Debug(String),
    /// The state is neither.
    Hidden,
}

/// The JSON of a state that is `Serialize`.
pub trait Written {
    /// Writes it.
    fn written(&self) -> Option<serde_json::Result<Shown>>;
}

impl<A: Serialize> Written for State<'_, A> {
    fn written(&self) -> Option<serde_json::Result<Shown>> {
        Some(serde_json::to_string(self.0).map(Shown::Json))
    }
}

/// A state that is not `Serialize`.
pub trait NotWritten {
    /// There is no JSON.
    fn written(&self) -> Option<serde_json::Result<Shown>>;
}

impl<A> NotWritten for &State<'_, A> {
    fn written(&self) -> Option<serde_json::Result<Shown>> {
        None
    }
}

/// A state that is `Debug`.
pub trait Debugged {
    /// Prints it.
    fn debugged(&self) -> Shown;
}

impl<A: Debug> Debugged for State<'_, A> {
    fn debugged(&self) -> Shown {
        Shown::Debug(format!("{:#?}", self.0))
    }
}

/// A state that is not `Debug`.
pub trait NotDebugged {
    /// There is nothing to print.
    fn debugged(&self) -> Shown;
}

impl<A> NotDebugged for &State<'_, A> {
    fn debugged(&self) -> Shown {
        Shown::Hidden
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    use super::Shown;
    use crate::{Aggregate, Apply, Event};

    #[derive(Event, Serialize, Deserialize)]
    enum Changed {
        Changed { by: i64 },
    }

    macro_rules! aggregate {
        ($name:ident, $($derived:ident),*) => {
            #[derive(Aggregate, Default, $($derived),*)]
            #[aggregate(category = "thing", event = Changed)]
            struct $name {
                #[allow(dead_code, reason = "it may only be printed")]
                sums: BTreeMap<(i64, i64), i64>,
            }

            impl Apply<Changed> for $name {
                fn apply(&mut self, event: &Changed) {
                    let Changed::Changed { by } = event;
                    self.sums.insert((*by, 0), 1);
                }
            }
        };
    }

    aggregate!(Both, Serialize, Debug);
    aggregate!(Printed, Debug);
    aggregate!(Neither,);

    #[test]
    fn a_state_is_shown_as_well_as_it_can_be() {
        assert_eq!(Both::default().shown().unwrap(), Shown::Json(r#"{"sums":{}}"#.into()));
        let printed = Shown::Debug("Printed {\n    sums: {},\n}".into());
        assert_eq!(Printed::default().shown().unwrap(), printed);
        assert_eq!(Neither::default().shown().unwrap(), Shown::Hidden);
    }

    #[test]
    fn a_state_that_cannot_be_written_is_an_error() {
        let mut state = Both::default();
        state.apply(&Changed::Changed { by: 1 });
        assert!(state.shown().unwrap_err().to_string().contains("key must be a string"));
    }
}
