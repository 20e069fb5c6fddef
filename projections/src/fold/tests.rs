//! Folding a log batch by batch is folding it event by event, wherever the batches end.

use std::collections::BTreeMap;

use annals_derive::ReadModel;
use annals_eventstore::{Aggregate, Apply, Event, Recorded, testkit::recorded};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::read_model::{KeyError, Keys, Project};

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum Touched {
    Set {
        rows: Vec<i16>,
    },
    Deleted {
        rows: Vec<i16>,
    },
    Kept {
        rows: Vec<i16>,
    },
    /// Deletes the rows that there are, makes the others.
    Toggled {
        rows: Vec<i16>,
    },
}

#[derive(Aggregate, Default)]
#[aggregate(category = "thing", event = Touched)]
struct Thing;

impl Apply<Touched> for Thing {
    fn apply(&mut self, _: &Touched) {}
}

/// A row that knows every position that it was folded at.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "trails", from(Thing), history)]
struct Trail {
    #[read_model(key)]
    id: i16,
    #[read_model(json)]
    positions: Vec<i64>,
}

/// The same rows without history.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "bare_trails", from(Thing))]
struct Bare {
    #[read_model(key)]
    id: i16,
    #[read_model(json)]
    positions: Vec<i64>,
}

macro_rules! projects {
    ($row:ident) => {
        impl Project<Touched> for $row {
            fn keys(event: &Recorded<Touched>) -> Result<Keys<i16>, KeyError> {
                let (Touched::Set { rows }
                | Touched::Deleted { rows }
                | Touched::Kept { rows }
                | Touched::Toggled { rows }) = &event.event;
                Ok(Keys::many(rows.iter().copied()))
            }

            fn project(_: Option<Self>, _: &Recorded<Touched>) -> Change<Self> {
                unreachable!("the rows have keys")
            }

            fn project_row(id: &i16, row: Option<Self>, event: &Recorded<Touched>) -> Change<Self> {
                let set = |row: Option<Self>| {
                    let mut row = row.unwrap_or($row { id: *id, positions: Vec::new() });
                    row.positions.push(event.position.get());
                    Change::Set(row)
                };
                match (&event.event, row) {
                    (Touched::Set { .. }, row) | (Touched::Toggled { .. }, row @ None) => set(row),
                    (Touched::Deleted { .. }, _) | (Touched::Toggled { .. }, Some(_)) => {
                        Change::Delete
                    }
                    (Touched::Kept { .. }, _) => Change::Keep,
                }
            }
        }
    };
}
projects!(Trail);
projects!(Bare);

/// The rows and their versions, as the tables would hold them.
#[derive(Debug, PartialEq)]
struct Tables<R: ReadModel<Key = i16>> {
    rows: BTreeMap<i16, R>,
    /// By key and beginning.
    versions: BTreeMap<(i16, i64), (R, i64)>,
}

impl<R: ReadModel<Key = i16>> Default for Tables<R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), versions: BTreeMap::new() }
    }
}

impl<R: ReadModel<Key = i16> + PartialEq + std::fmt::Debug> Tables<R> {
    /// What the database does with the changes of a batch; it has constraints.
    fn write(&mut self, changes: Changes<R>) {
        for (key, at) in changes.closed {
            let open: Vec<_> = self
                .versions
                .iter_mut()
                .filter(|((id, _), (_, to))| *id == key && *to == FOREVER)
                .collect();
            assert_eq!(open.len(), 1, "row {key} has one version to close");
            for (_, (_, to)) in open {
                *to = at;
            }
        }
        for (row, from, to) in changes.versions {
            assert!(from < to, "an empty version of {row:?}");
            let twice = self.versions.insert((row.key(), from), (row, to));
            assert_eq!(twice, None, "two versions from {from}");
        }
        for row in changes.set {
            self.rows.insert(row.key(), row);
        }
        for key in changes.deleted {
            assert!(self.rows.remove(&key).is_some(), "row {key} is there to be deleted");
        }
    }

    fn batch(&mut self, steps: &[Step<R>]) {
        let touched = steps.iter().flat_map(|step| step.keys.as_slice());
        let rows = touched.filter_map(|key| Some((*key, self.rows.get(key)?.clone()))).collect();
        self.write(fold(steps, rows).unwrap());
    }
}

/// The same in the plainest way: one event after the other, one row after the other.
fn plainly(steps: &[Step<Trail>]) -> Tables<Trail> {
    let mut tables = Tables::default();
    for step in steps {
        let at = step.position.get();
        for key in step.keys.as_slice() {
            let next = match step.project(key, tables.rows.get(key).cloned()) {
                Change::Keep => continue,
                Change::Set(row) => Some(row),
                Change::Delete => None,
            };
            for ((id, _), (_, to)) in &mut tables.versions {
                if id == key && *to == FOREVER {
                    *to = at;
                }
            }
            match next {
                Some(row) => {
                    tables.versions.insert((*key, at), (row.clone(), FOREVER));
                    tables.rows.insert(*key, row);
                }
                None => drop(tables.rows.remove(key)),
            }
        }
    }
    tables
}

/// Events, decoded, with positions that have holes.
fn steps<R: Project<Touched>>(events: &[Touched]) -> Vec<Step<R>> {
    let source = crate::read_model::Source::<R>::of::<Thing>();
    std::iter::zip(1.., events)
        .flat_map(|(number, event)| {
            let payload = event.encode().unwrap();
            let event = recorded::<Thing>("one", number, number * 3, event.clone());
            source.step(event.with_event(payload)).unwrap()
        })
        .collect()
}

fn events() -> impl Strategy<Value = Vec<Touched>> {
    let rows = || prop::collection::vec(0_i16..4, 0..4);
    let event = prop_oneof![
        4 => rows().prop_map(|rows| Touched::Set { rows }),
        2 => rows().prop_map(|rows| Touched::Deleted { rows }),
        1 => rows().prop_map(|rows| Touched::Kept { rows }),
        2 => rows().prop_map(|rows| Touched::Toggled { rows }),
    ];
    prop::collection::vec(event, 0..40)
}

/// Splits into batches whose sizes are taken in turn.
fn batches<'a, T>(mut all: &'a [T], sizes: &'a [usize]) -> impl Iterator<Item = &'a [T]> {
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let size = (*sizes.next()?).min(all.len());
        let (batch, rest) = all.split_at(size);
        all = rest;
        (!batch.is_empty()).then_some(batch)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_split_into_batches_gives_the_same_rows_and_versions(
        events in events(),
        sizes in prop::collection::vec(1_usize..9, 1..6),
    ) {
        let expected = plainly(&steps(&events));
        let steps = steps::<Trail>(&events);
        let mut tables = Tables::default();
        for batch in batches(&steps, &sizes) {
            tables.batch(batch);
        }
        prop_assert_eq!(&tables, &expected);
        let mut at_once = Tables::default();
        at_once.batch(&steps);
        prop_assert_eq!(&at_once, &expected);
    }

    #[test]
    fn without_history_the_rows_are_the_same(
        events in events(),
        sizes in prop::collection::vec(1_usize..9, 1..6),
    ) {
        let steps_with: Vec<Step<Trail>> = steps(&events);
        let expected = plainly(&steps_with).rows;
        let expected: Vec<_> = expected.into_values().map(|row| (row.id, row.positions)).collect();
        let steps = steps::<Bare>(&events);
        let mut rows = BTreeMap::new();
        for batch in batches(&steps, &sizes) {
            let before = rows.iter().map(|(id, row): (&i16, &Bare)| (*id, row.clone())).collect();
            let changes = fold(batch, before).unwrap();
            prop_assert!(changes.versions.is_empty(), "nobody looks at versions");
            rows.extend(changes.set.into_iter().map(|row| (row.id, row)));
            rows.retain(|id, _| !changes.deleted.contains(id));
        }
        let rows: Vec<_> = rows.into_values().map(|row| (row.id, row.positions)).collect();
        prop_assert_eq!(rows, expected);
    }
}

#[test]
fn a_key_that_stands_twice_counts_once() {
    let steps = steps::<Trail>(&[Touched::Set { rows: vec![1, 2, 1, 1] }]);
    let mut tables = Tables::default();
    tables.batch(&steps);
    let rows: Vec<_> = tables.rows.into_values().collect();
    let once = |id| Trail { id, positions: vec![3] };
    assert_eq!(rows, [once(1), once(2)]);
}

#[test]
fn a_row_that_comes_and_goes_within_a_batch_leaves_its_versions_only() {
    let one = || vec![1];
    let steps = steps::<Trail>(&[
        Touched::Set { rows: one() },
        Touched::Set { rows: one() },
        Touched::Deleted { rows: one() },
    ]);
    let changes = fold(&steps, HashMap::new()).unwrap();
    assert!(changes.set.is_empty() && changes.deleted.is_empty() && changes.closed.is_empty());
    let version =
        |positions: &[i64], from, to| (Trail { id: 1, positions: positions.into() }, from, to);
    assert_eq!(changes.versions, [version(&[3], 3, 6), version(&[3, 6], 6, 9)]);
}
