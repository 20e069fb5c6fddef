//! Serde's attributes that keep the default representation are the user's own business.
#![deny(missing_docs, clippy::all, unused_qualifications, warnings)]

use annals_eventstore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE", rename_all_fields = "camelCase", deny_unknown_fields)]
enum LoanEvent {
    #[serde(rename = "made", alias = "done")]
    Submitted {
        #[serde(rename = "sum", default, skip_serializing_if = "Option::is_none")]
        amount: Option<i64>,
    },
    #[deprecated]
    #[serde(bound = "")]
    Approved,
    #[cfg(any())]
    Absent(NoSuchType),
}

fn main() {
    let names: Vec<_> = LoanEvent::TYPES.iter().map(|kind| kind.name).collect();
    assert_eq!(names, ["submitted", "approved"]);
    assert_eq!(LoanEvent::Submitted { amount: None }.type_index(), 0);
}
