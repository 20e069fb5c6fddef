//! What is noticed when events change, and what is not.

use serde::{Deserialize, Serialize};

use super::*;
use crate::{Apply, Shape};

/// An aggregate of the category `loan` with these events, in a module of its own.
macro_rules! loan {
    ($module:ident: $(#[$meta:meta])* { $($variants:tt)* } $($more:item)*) => {
        mod $module {
            use super::*;
            use crate::{Aggregate, Event};

            #[derive(Event, Serialize, Deserialize)]
            $(#[$meta])*
            pub(super) enum LoanEvent { $($variants)* }

            #[derive(Aggregate, Default)]
            #[aggregate(category = "loan", event = LoanEvent)]
            pub(super) struct Loan;

            impl Apply<LoanEvent> for Loan {
                fn apply(&mut self, _: &LoanEvent) {}
            }

            $($more)*
        }
    };
}

#[derive(Serialize, Deserialize)]
struct Opaque;

#[derive(Serialize, Deserialize, Shape)]
struct Terms {
    months: u32,
}

loan!(first: {
    Submitted { amount: i64, terms: Terms },
    Noted(Opaque),
});
loan!(changed: {
    Submitted { amount: i64, purpose: String },
    Noted(Opaque),
});
loan!(next: {
    #[event(version = 2)]
    Submitted { amount: i64, purpose: String },
    Noted(Opaque),
    Approved,
});
loan!(without: {
    Submitted { amount: i64, terms: Terms },
});
loan!(aliased: {
    Submitted { amount: i64, terms: Terms },
    #[event(alias = "noted")]
    Remarked(Opaque),
});
loan!(aliased_and_changed: {
    Submitted { amount: i64, terms: Terms },
    #[event(alias = "noted")]
    Remarked(i64),
});
loan!(dropped: #[event(dropped("noted"))] {
    Submitted { amount: i64, terms: Terms },
});
loan!(split: #[event(split("noted", Opaque))] {
    Submitted { amount: i64, terms: Terms },
}
impl From<Opaque> for Vec<LoanEvent> {
    fn from(_: Opaque) -> Self {
        Vec::new()
    }
});
loan!(aliased_back: {
    #[event(alias = "submitted")]
    Applied { amount: i64, purpose: String },
    Noted(Opaque),
    Approved,
});
loan!(split_back: #[event(split("submitted", Opaque))] {
    Noted(Opaque),
    Approved,
}
impl From<Opaque> for Vec<LoanEvent> {
    fn from(_: Opaque) -> Self {
        Vec::new()
    }
});
loan!(renamed: {
    #[event(name = "submitted")]
    Applied {
        #[serde(rename = "amount", alias = "sum")]
        cents: i64,
        terms: RenamedTerms,
    },
    Noted(Opaque),
}
#[derive(Serialize, Deserialize, Shape)]
pub(super) struct RenamedTerms {
    months: u32,
});

fn shapes<A: Aggregate>() -> EventShapes {
    EventShapes::new().aggregate::<A>()
}

/// The differences to what was locked before, as text, one for each.
fn changes(before: &EventShapes, now: &EventShapes) -> Vec<String> {
    let lock = Lock::parse(&before.to_lock()).unwrap();
    now.changes(&lock).iter().map(ToString::to_string).collect()
}

#[test]
fn a_lock_file_is_plain_text() {
    let text = shapes::<first::Loan>().to_lock();
    let body = text.split_once("lock file; ").map_or(text.as_str(), |(_, rest)| rest);
    assert!(body.contains("# Not looked into, in [loan noted 1]: Opaque\n"), "{body}");
    assert!(
        text.ends_with(
            "
format 1

[loan noted 1]
  opaque Opaque

[loan submitted 1]
  struct {
    amount: i64
    terms: struct {
      months: u32
    }
  }
"
        ),
        "{text}"
    );
}

#[test]
fn the_same_shapes_under_other_names_in_rust_are_no_change() {
    let first = shapes::<first::Loan>();
    assert_eq!(changes(&first, &first), [""; 0]);
    assert_eq!(changes(&first, &shapes::<renamed::Loan>()), [""; 0]);
}

#[test]
fn a_shape_that_changed_without_a_new_version_is_shown_with_its_difference() {
    let changes = changes(&shapes::<first::Loan>(), &shapes::<changed::Loan>());
    assert_eq!(
        changes,
        ["[loan submitted 1] the stored shape changed, and the version did not:
      struct {
        amount: i64
    -   terms: struct {
    -     months: u32
    -   }
    +   purpose: string
      }
  Events are stored in the old shape. Undo the change, or make it `#[event(version = 2)]`, with \
          `upcast_from` if the old payloads do not fit the new shape. If none was ever stored, delete \
          the block from the lock file and update it."]
    );
}

#[test]
fn new_types_and_versions_make_the_lock_outdated() {
    let changes = changes(&shapes::<first::Loan>(), &shapes::<next::Loan>());
    assert_eq!(
        changes,
        [
            "[loan submitted 2] is new and not in the lock file yet",
            "[loan approved 1] is new and not in the lock file yet",
        ]
    );
}

#[test]
fn a_version_does_not_go_back() {
    let changes = changes(&shapes::<next::Loan>(), &shapes::<first::Loan>());
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert!(changes[0].starts_with("[loan approved 1] nothing in the code reads"), "{changes:?}");
    let refused = "[loan submitted 2] the code reads this type up to version 1 only";
    assert!(changes[1].starts_with(refused), "{changes:?}");
    assert!(changes[2].starts_with("[loan submitted 1] is new"), "{changes:?}");
    // Under another name, or split, a version can be lost as well.
    for now in [shapes::<aliased_back::Loan>(), shapes::<split_back::Loan>()] {
        let changes = self::changes(&shapes::<next::Loan>(), &now);
        assert!(changes[0].starts_with(refused), "{changes:?}");
    }
}

#[test]
fn a_type_that_is_gone_is_accounted_for() {
    let first = shapes::<first::Loan>();
    let removed = changes(&first, &shapes::<without::Loan>());
    assert_eq!(removed.len(), 1);
    assert!(removed[0].contains("alias = \"noted\""), "{removed:?}");
    assert!(removed[0].contains("dropped(\"noted\")"), "{removed:?}");
    assert_eq!(changes(&first, &shapes::<dropped::Loan>()), [""; 0]);
    assert_eq!(changes(&first, &shapes::<split::Loan>()), [""; 0]);
    let new = "[loan remarked 1] is new and not in the lock file yet";
    assert_eq!(changes(&first, &shapes::<aliased::Loan>()), [new]);
    let changed = changes(&first, &shapes::<aliased_and_changed::Loan>());
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(changed[0].starts_with("[loan noted 1] the stored shape changed"), "{changed:?}");
    let gone = changes(&first, &EventShapes::new());
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert!(gone[0].starts_with("[loan ..] no aggregate"), "{gone:?}");
}

#[test]
fn a_file_keeps_the_history_of_shapes_and_refuses_to_forget() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.lock");
    let content = || std::fs::read_to_string(&path).unwrap();
    // It is not there yet.
    let error = shapes::<first::Loan>().check(&path).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("[loan noted 1] is new"), "{message}");
    assert!(message.contains("ANNALS_UPDATE_LOCK=1"), "{message}");

    shapes::<first::Loan>().write(&path).unwrap();
    shapes::<first::Loan>().check(&path).unwrap();
    let first = content();
    assert_eq!(first, shapes::<first::Loan>().to_lock());

    for now in [shapes::<changed::Loan>(), shapes::<without::Loan>(), EventShapes::new()] {
        for held in [now.check(&path), now.write(&path)] {
            let Err(LockError::Differs { changes, .. }) = held else { panic!("{held:?}") };
            assert!(changes.iter().any(|change| !change.is_addition()));
        }
        assert_eq!(content(), first);
    }

    assert!(shapes::<next::Loan>().check(&path).is_err());
    shapes::<next::Loan>().write(&path).unwrap();
    shapes::<next::Loan>().check(&path).unwrap();
    let second = content();
    for block in ["[loan submitted 1]\n", "[loan submitted 2]\n", "  terms: struct {\n"] {
        assert!(second.contains(block), "{second}");
    }
    shapes::<next::Loan>().write(&path).unwrap();
    assert_eq!(content(), second);

    std::fs::write(&path, "format 1\n=======\n").unwrap();
    let error = shapes::<first::Loan>().write(&path).unwrap_err();
    assert!(matches!(error, LockError::Malformed { line: 2, .. }), "{error}");
    assert_eq!(content(), "format 1\n=======\n");
    let error = shapes::<first::Loan>().check(directory.path()).unwrap_err();
    assert!(matches!(error, LockError::File { action: "read", .. }), "{error}");
}

#[test]
fn what_is_not_looked_into_is_named() {
    let opaque = shapes::<first::Loan>().opaque();
    let opaque: Vec<_> = opaque.iter().map(|(key, types)| (key.to_string(), types)).collect();
    assert_eq!(opaque, [("loan noted 1".to_owned(), &vec!["Opaque".to_owned()])]);
}

#[test]
#[should_panic(expected = "[loan noted 1] is new")]
fn a_test_that_holds_the_shapes_fails_with_the_difference() {
    let directory = tempfile::tempdir().unwrap();
    shapes::<first::Loan>().assert_locked(directory.path().join("events.lock"));
}

/// The variable cannot be set in this process, so the test runs itself in another one.
#[test]
fn a_test_that_holds_the_shapes_updates_the_file_where_the_environment_says_so() {
    const CHILD: &str = "ANNALS_TEST_LOCK_FILE";
    if let Some(path) = std::env::var_os(CHILD) {
        return shapes::<next::Loan>().assert_locked(path);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.lock");
    shapes::<first::Loan>().write(&path).unwrap();
    let before = std::fs::read_to_string(&path).unwrap();
    for (value, updates) in [("0", false), ("1", true)] {
        let name = "a_test_that_holds_the_shapes_updates_the_file_where_the_environment_says_so";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("shape::registry::tests::{name}")])
            .envs([(CHILD, path.as_os_str()), ("ANNALS_UPDATE_LOCK", value.as_ref())])
            .output()
            .unwrap()
            .status;
        assert_eq!(status.success(), updates, "with {value}");
        assert_eq!(std::fs::read_to_string(&path).unwrap() != before, updates, "with {value}");
    }
    shapes::<next::Loan>().check(&path).unwrap();
}
