//! The store in memory as the model of the one on PostgreSQL: whatever is asked of both, in sequence,
//! has the same outcomes and leads to the same log.

use std::fmt::Debug;

use annals_eventstore::{
    Append, AsOf, Clock, Envelope, EventQuery, EventStore, ExpectedVersion, ManualClock, Metadata,
    Position, Recorded, StreamId, Version,
};
use chrono::TimeDelta;
use proptest::{collection::vec, option, prelude::*, sample::select};
use uuid::Uuid;

use super::{
    clock::{at, start},
    laws::{Reused, check},
    list::open,
    stores::{InMemory, Stores},
    support::{
        all, assert_sound,
        counter::{Change, Counter},
        event, log, stream,
    },
};

#[derive(Clone, Debug)]
enum Step {
    Append {
        parts: Vec<Part>,
        key: Option<u8>,
        brings_time: Option<i64>,
    },
    Execute(Vec<Request>),
    /// Moves the clock, backwards too.
    Tick(i64),
    AsOf(i64),
    /// Deletes, archives or restores a stream, and asks for it.
    Life(u8, Life),
}

#[derive(Clone, Copy, Debug)]
enum Life {
    Delete(ExpectedVersion),
    Archive(ExpectedVersion),
    Restore,
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    stream: u8,
    expected: ExpectedVersion,
    events: u8,
}

#[derive(Clone, Debug)]
struct Request {
    counter: u8,
    by: Vec<i64>,
    key: Option<u8>,
}

fn expected() -> impl Strategy<Value = ExpectedVersion> {
    let exact = (0..6i64).prop_map(|version| ExpectedVersion::Exact(Version::new(version)));
    prop_oneof![
        3 => Just(ExpectedVersion::Any),
        1 => Just(ExpectedVersion::NoStream),
        1 => Just(ExpectedVersion::Exists),
        2 => exact,
    ]
}

fn life() -> impl Strategy<Value = Life> {
    prop_oneof![
        expected().prop_map(Life::Delete),
        expected().prop_map(Life::Archive),
        Just(Life::Restore),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    // At times no events, at times a stream twice: to be refused by both.
    (0..4u8, expected(), select(vec![1u8, 1, 1, 2, 3, 0]))
        .prop_map(|(stream, expected, events)| Part { stream, expected, events })
}

fn request() -> impl Strategy<Value = Request> {
    (0..3u8, vec(-3..6i64, 0..3), option::weighted(0.5, 0..4u8))
        .prop_map(|(counter, by, key)| Request { counter, by, key })
}

fn step() -> impl Strategy<Value = Step> {
    let append =
        (vec(part(), 1..4), option::weighted(0.3, 0..4u8), option::weighted(0.2, -2..9i64));
    prop_oneof![
        4 => append.prop_map(|(parts, key, brings_time)| Step::Append { parts, key, brings_time }),
        3 => vec(request(), 1..6).prop_map(Step::Execute),
        2 => (-1..4i64).prop_map(Step::Tick),
        2 => (-1..30i64).prop_map(Step::AsOf),
        3 => (0..7u8, life()).prop_map(|(index, life)| Step::Life(index, life)),
    ]
}

impl Request {
    /// The command, for a counter of this case.
    fn envelope(&self, case: &str) -> Envelope<Change> {
        let counter = format!("{case}{}", self.counter);
        let command = Envelope::new(Change::new(counter, self.by.clone()));
        match self.key {
            Some(key) => command.idempotency_key(format!("{case}key {key}")),
            None => command,
        }
    }
}

/// A store and what happens to it.
struct Subject {
    store: EventStore,
    clock: ManualClock,
    seconds: i64,
}

impl Subject {
    async fn new(stores: &dyn Stores) -> Self {
        let clock = start();
        let options = EventStore::options().clock(Clock::supplied(clock.clone()));
        Self { store: open(stores, options).await, clock, seconds: 0 }
    }

    /// Does a step and tells the outcome.
    async fn run(&mut self, number: usize, step: &Step) -> String {
        match step {
            Step::Append { parts, key, brings_time } => {
                let mut id = (number as u128) << 64;
                let mut events = |part: &Part| {
                    let event = |_| {
                        id += 1;
                        let mut event =
                            event(number as i64).metadata(Metadata::new().with("id", id as u64));
                        event.id = Uuid::from_u128(id);
                        event.recorded_at = brings_time.map(at);
                        event
                    };
                    (0..part.events).map(event).collect::<Vec<_>>()
                };
                let mut parts = parts.iter();
                let first = parts.next().expect("an append has a part");
                let append = Append::to(stream(first.stream), first.expected, events(first));
                let append = parts.fold(append, |append, part| {
                    append.and(stream(part.stream), part.expected, events(part))
                });
                let append = match key {
                    Some(key) => append.idempotency_key(format!("key {key}")),
                    None => append,
                };
                told(self.store.append(append).await)
            }
            Step::Execute(requests) => told(
                self.store.execute_all(requests.iter().map(|request| request.envelope(""))).await,
            ),
            Step::Tick(seconds) => {
                self.seconds += seconds;
                self.clock.set(at(self.seconds));
                String::new()
            }
            Step::AsOf(half_seconds) => {
                let time = at(0) + TimeDelta::milliseconds(500 * half_seconds);
                let position = self.store.position_at(time).await;
                let counter = self.store.load_as_of::<Counter>(0, AsOf::Time(time)).await;
                let end = self.store.safe_position().await.expect("the store answers");
                let position_of_end = AsOf::Position(Position::new(end.get() / 2 + 1));
                let half = self.store.load_as_of::<Counter>(1, position_of_end).await;
                told((position, counter, half, end))
            }
            Step::Life(index, life) => {
                let id = match index {
                    0..4 => stream(index),
                    _ => StreamId::new("counter", index - 4).expect("a valid name"),
                };
                let done = match *life {
                    Life::Delete(expected) => self.store.delete_stream(&id, expected).await,
                    Life::Archive(expected) => self.store.archive_stream(&id, expected).await,
                    Life::Restore => self.store.restore_stream(&id).await,
                };
                let query = EventQuery::stream(&id).backward();
                let read = all(self.store.read(query)).await.map(|events| events.len());
                told((done, self.store.stream_info(&id).await, read))
            }
        }
    }

    async fn log(&self) -> Vec<Recorded> {
        let hot = log(&self.store).await;
        let whole = all(self.store.read(EventQuery::log().include_archived())).await.unwrap();
        assert!(hot.iter().all(|event| whole.contains(event)), "{hot:?} is not within {whole:?}");
        without_ids(whole)
    }
}

/// Without the ids that commands' events get at random.
fn without_ids(mut log: Vec<Recorded>) -> Vec<Recorded> {
    for event in &mut log {
        if event.stream.category() == "counter" {
            event.id = Uuid::nil();
        }
    }
    log
}

/// Without ids and without the times of two clocks.
fn without_times(log: Vec<Recorded>) -> Vec<Recorded> {
    let mut log = without_ids(log);
    for event in &mut log {
        event.recorded_at = at(0);
    }
    log
}

fn told(outcome: impl Debug) -> String {
    format!("{outcome:?}")
}

pub(crate) async fn a_store_does_what_the_one_in_memory_does(stores: &dyn Stores) {
    check(40, vec(step(), 1..30), async |steps| {
        let mut model = Subject::new(&InMemory).await;
        let mut real = Subject::new(stores).await;
        for (number, step) in steps.iter().enumerate() {
            let expected = model.run(number, step).await;
            assert_eq!(
                real.run(number, step).await,
                expected,
                "outcome of step {number}, {step:?}"
            );
        }
        let log = real.log().await;
        assert_eq!(log, model.log().await);
        assert_sound(&log);
    });
}

pub(crate) async fn a_lot_is_what_its_commands_are_one_after_the_other(stores: &dyn Stores) {
    let (all_together, all_apart) = (Reused::of(stores), Reused::of(stores));
    check(100, vec(vec(request(), 1..8), 1..4), async |lots| {
        let (together, apart) = (all_together.take().await, all_apart.take().await);
        for lot in lots {
            let commands = || lot.iter().map(|request| request.envelope(&together.case));
            let in_one_go = together.store.execute_all(commands()).await.unwrap();
            let mut one_by_one = Vec::new();
            for command in commands() {
                one_by_one.push(apart.store.execute(command).await);
            }
            assert_eq!(told(in_one_go), told(one_by_one));
        }
        let (together_log, apart_log) = (together.log().await, apart.log().await);
        assert_eq!(without_times(together_log), without_times(apart_log));
        all_together.give_back(together);
        all_apart.give_back(apart);
    });
}

/// The comparison can fail: a model that is told another story has another log.
#[cfg(test)]
#[tokio::test]
#[should_panic(expected = "assertion `left == right` failed")]
async fn different_stories_have_different_logs() {
    let (a, b) = (Subject::new(&InMemory).await, Subject::new(&InMemory).await);
    a.store.append(super::support::one(stream("a"), 1)).await.unwrap();
    b.store.append(super::support::one(stream("b"), 1)).await.unwrap();
    assert_eq!(a.log().await, b.log().await);
}
