//! The aggregate of the tests: a counter that can be changed several times by one command.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use annals_eventstore::{Aggregate, Apply, Command, Event, EventStore, Handle, Loaded, StreamId};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum CounterEvent {
    Changed { by: i64 },
    Cleared,
    Noted { text: String },
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq)]
#[aggregate(category = "counter", event = CounterEvent, error = BelowZero)]
pub struct Counter {
    pub total: i64,
    pub changes: i64,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{total} and {by} is below zero")]
pub struct BelowZero {
    pub total: i64,
    pub by: i64,
}

impl Apply<CounterEvent> for Counter {
    fn apply(&mut self, event: &CounterEvent) {
        self.changes += 1;
        match event {
            CounterEvent::Changed { by } => self.total += by,
            CounterEvent::Cleared => self.total = 0,
            CounterEvent::Noted { .. } => {}
        }
    }
}

/// Changes a counter by each of the numbers, unless that takes it below zero.
#[derive(Command, Serialize, Clone, Debug)]
#[command(aggregate = Counter)]
pub struct Change {
    #[command(id)]
    pub counter: String,
    pub by: Vec<i64>,
    /// How often it was decided on.
    #[serde(skip)]
    pub decisions: Arc<AtomicUsize>,
}

impl Change {
    pub fn new(counter: impl std::fmt::Display, by: impl Into<Vec<i64>>) -> Self {
        Self { counter: counter.to_string(), by: by.into(), decisions: Arc::default() }
    }
}

impl Handle<Change> for Counter {
    fn handle(&self, command: Change) -> Result<Vec<CounterEvent>, BelowZero> {
        command.decisions.fetch_add(1, Ordering::Relaxed);
        let mut total = self.total;
        for by in &command.by {
            if total + by < 0 {
                return Err(BelowZero { total, by: *by });
            }
            total += by;
        }
        Ok(command.by.iter().map(|by| CounterEvent::Changed { by: *by }).collect())
    }
}

/// Notes texts of so many bytes.
#[derive(Command, Serialize, Clone, Debug)]
#[command(aggregate = Counter)]
pub struct Write {
    #[command(id)]
    counter: String,
    bytes: Vec<usize>,
}

impl Write {
    pub fn new(counter: &str, bytes: impl Into<Vec<usize>>) -> Self {
        Self { counter: counter.to_owned(), bytes: bytes.into() }
    }
}

impl Handle<Write> for Counter {
    fn handle(&self, command: Write) -> Result<Vec<CounterEvent>, BelowZero> {
        let note = |bytes| CounterEvent::Noted { text: "x".repeat(bytes) };
        Ok(command.bytes.into_iter().map(note).collect())
    }
}

pub fn counter(key: impl std::fmt::Display) -> StreamId {
    StreamId::new(Counter::CATEGORY, key).unwrap()
}

/// The counter as it is; it must exist.
pub async fn load(store: &EventStore, key: &str) -> Loaded<Counter> {
    store.load::<Counter>(key).await.unwrap().expect("the counter exists")
}

/// Starts a counter, which can be done once. Counts in `decisions` how often it is decided.
#[derive(Command, Serialize, Clone, Debug)]
#[command(aggregate = Counter, starts)]
pub struct Start {
    #[command(id)]
    pub counter: String,
    pub at: i64,
    #[serde(skip)]
    pub decisions: Arc<AtomicUsize>,
}

impl Start {
    pub fn new(counter: &str, at: i64) -> Self {
        Self { counter: counter.to_owned(), at, decisions: Arc::default() }
    }
}

impl Handle<Start> for Counter {
    fn handle(&self, command: Start) -> Result<Vec<CounterEvent>, BelowZero> {
        command.decisions.fetch_add(1, Ordering::Relaxed);
        match self.changes {
            0 if command.at == 0 => Ok(vec![]),
            0 => Ok(vec![CounterEvent::Changed { by: command.at }]),
            _ => Err(BelowZero { total: self.total, by: command.at }),
        }
    }
}
