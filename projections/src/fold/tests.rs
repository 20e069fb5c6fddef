//! Folding a log batch by batch is folding it event by event, wherever the batches end.

use std::collections::BTreeMap;

use annals_derive::ReadModel;
use annals_eventstore::{Aggregate, Apply, Event, Payload, Recorded, testkit::recorded};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::read_model::{KeyError, Keys, Project};

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
#[event(split("several", Several))]
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

/// A stored event that is read as several, or none.
#[derive(Serialize, Deserialize)]
struct Several(Vec<Touched>);

impl From<Several> for Vec<Touched> {
    fn from(Several(parts): Several) -> Self {
        parts
    }
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

/// The rows and their past versions, as the tables would hold them.
#[derive(Debug, PartialEq)]
struct Tables<R: ReadModel<Key = i16>> {
    rows: BTreeMap<i16, (R, i64)>,
    /// By key and beginning.
    past: BTreeMap<(i16, i64), (R, i64)>,
}

impl<R: ReadModel<Key = i16>> Default for Tables<R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), past: BTreeMap::new() }
    }
}

impl<R: ReadModel<Key = i16> + PartialEq + std::fmt::Debug> Tables<R> {
    /// What the database does with the changes of a batch; it has constraints.
    fn write(&mut self, folding: &mut Folding<R>) {
        for Past { row, from, to } in &folding.past {
            assert!(from < to, "an empty version of {row:?}");
            let twice = self.past.insert((row.key(), from.get()), (row.clone(), to.get()));
            assert_eq!(twice, None, "two versions from {from}");
        }
        let Changes { new, changed, gone } = folding.changes();
        for Held { row, since } in new {
            let twice = self.rows.insert(row.key(), (row.clone(), since.get()));
            assert_eq!(twice, None, "a new row is new");
        }
        for Held { row, since } in changed {
            let before = self.rows.insert(row.key(), (row.clone(), since.get()));
            assert!(before.is_some(), "a changed row is there");
        }
        for key in gone {
            assert!(self.rows.remove(&key).is_some(), "row {key} is there to be deleted");
        }
        folding.written();
    }

    /// Folds a batch into rows that are loaded for it.
    fn batch(&mut self, steps: &[Step<R>]) {
        let mut folding = Folding::default();
        for key in steps.iter().flat_map(|step| step.keys.as_slice()) {
            let held = self.rows.get(key).cloned();
            let held = held.map(|(row, since)| Held { row, since: Position::new(since) });
            folding.stored(*key, held);
        }
        folding.fold(steps).unwrap();
        self.write(&mut folding);
    }
}

/// The same in the plainest way: one event after the other, one row after the other.
fn plainly(steps: &[Step<Trail>]) -> Tables<Trail> {
    let mut tables: Tables<Trail> = Tables::default();
    for step in steps {
        let at = step.position.get();
        for key in step.keys.as_slice() {
            let next = match step.project(key, tables.rows.get(key).map(|(row, _)| row.clone())) {
                Change::Keep => continue,
                Change::Set(row) => Some(row),
                Change::Delete => None,
            };
            // What a part of an event makes and another part of it changes was never there.
            if let Some((row, since)) = tables.rows.remove(key)
                && since < at
            {
                tables.past.insert((*key, since), (row, at));
            }
            tables.rows.extend(next.map(|row| (*key, (row, at))));
        }
    }
    tables
}

/// Stored events, each of so many parts, decoded, with positions that have holes.
fn steps<R: Project<Touched>>(events: &[Vec<Touched>]) -> Vec<Step<R>> {
    let source = crate::read_model::Source::<R>::of::<Thing>();
    std::iter::zip(1.., events)
        .flat_map(|(number, parts)| {
            let (kind, payload) = match &parts[..] {
                [event] => (event.event_type().name, event.encode().unwrap()),
                parts => {
                    let several = serde_json::to_vec(&Several(parts.to_vec())).unwrap();
                    ("several", Payload::from_json(several).unwrap())
                }
            };
            let any = Touched::Kept { rows: Vec::new() };
            let mut event = recorded::<Thing>("one", number, number * 3, any).with_event(payload);
            event.event_type = kind.into();
            source.step(event).unwrap()
        })
        .collect()
}

/// Stored events, of one part each.
fn single<const N: usize>(events: [Touched; N]) -> [Vec<Touched>; N] {
    events.map(|event| vec![event])
}

fn events() -> impl Strategy<Value = Vec<Vec<Touched>>> {
    let rows = || prop::collection::vec(0_i16..4, 0..4);
    let event = prop_oneof![
        4 => rows().prop_map(|rows| Touched::Set { rows }),
        2 => rows().prop_map(|rows| Touched::Deleted { rows }),
        1 => rows().prop_map(|rows| Touched::Kept { rows }),
        2 => rows().prop_map(|rows| Touched::Toggled { rows }),
    ];
    let parts = prop_oneof![3 => Just(1..2), 1 => Just(0..5)]
        .prop_flat_map(move |count| prop::collection::vec(event.clone(), count));
    prop::collection::vec(parts, 0..40)
}

/// Splits into batches whose sizes are taken in turn. The parts of an event stay together.
fn batches<'a, R: ReadModel>(
    mut all: &'a [Step<R>],
    sizes: &'a [usize],
) -> impl Iterator<Item = &'a [Step<R>]> {
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let mut size = (*sizes.next()?).min(all.len());
        while size > 0 && size < all.len() && all[size].position == all[size - 1].position {
            size += 1;
        }
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
        // The same with rows that stay known from one batch to the next.
        let (mut known, mut folding) = (Tables::default(), Folding::default());
        for batch in batches(&steps, &sizes) {
            folding.fold(batch).unwrap();
            known.write(&mut folding);
        }
        prop_assert_eq!(&known, &expected);
    }

    #[test]
    fn without_history_the_rows_are_the_same(
        events in events(),
        sizes in prop::collection::vec(1_usize..9, 1..6),
    ) {
        let steps_with: Vec<Step<Trail>> = steps(&events);
        let expected = plainly(&steps_with).rows;
        let expected: Vec<_> =
            expected.into_values().map(|(row, _)| (row.id, row.positions)).collect();
        let steps = steps::<Bare>(&events);
        let mut tables = Tables::default();
        for batch in batches(&steps, &sizes) {
            tables.batch(batch);
        }
        prop_assert!(tables.past.is_empty(), "nobody looks at versions");
        let rows: Vec<_> =
            tables.rows.into_values().map(|(row, _)| (row.id, row.positions)).collect();
        prop_assert_eq!(rows, expected);
    }
}

#[test]
fn a_key_that_stands_twice_counts_once() {
    let steps = steps::<Trail>(&single([Touched::Set { rows: vec![1, 2, 1, 1] }]));
    let mut tables = Tables::default();
    tables.batch(&steps);
    let rows: Vec<_> = tables.rows.into_values().map(|(row, _)| row).collect();
    let once = |id| Trail { id, positions: vec![3] };
    assert_eq!(rows, [once(1), once(2)]);
}

fn past(positions: &[i64], from: i64, to: i64) -> Past<Trail> {
    let row = Trail { id: 1, positions: positions.into() };
    Past { row, from: Position::new(from), to: Position::new(to) }
}

fn is_empty(folding: &Folding<Trail>) -> bool {
    let Changes { new, changed, gone } = folding.changes();
    new.is_empty() && changed.is_empty() && gone.is_empty()
}

#[test]
fn a_row_that_comes_and_goes_within_a_batch_leaves_its_versions_only() {
    let one = || vec![1];
    let steps = steps::<Trail>(&single([
        Touched::Set { rows: one() },
        Touched::Set { rows: one() },
        Touched::Deleted { rows: one() },
    ]));
    let mut folding = Folding::default();
    folding.fold(&steps).unwrap();
    assert!(is_empty(&folding));
    assert_eq!(folding.past, [past(&[3], 3, 6), past(&[3, 6], 6, 9)]);
}

#[test]
fn between_the_parts_of_one_event_there_is_no_version() {
    let one = || vec![1];
    let steps = steps::<Trail>(&[
        vec![Touched::Set { rows: one() }],
        vec![Touched::Toggled { rows: one() }, Touched::Set { rows: one() }],
        vec![Touched::Set { rows: one() }, Touched::Deleted { rows: one() }],
        vec![],
    ]);
    let mut folding = Folding::default();
    folding.fold(&steps).unwrap();
    assert!(is_empty(&folding));
    assert_eq!(folding.past, [past(&[3], 3, 6), past(&[6], 6, 9)]);
}
