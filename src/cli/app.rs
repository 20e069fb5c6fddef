//! What the command line knows of the program that it is mounted in.

use crate::{Aggregate, EventShapes, Options, verify::Verify};

/// The program that a command line is for: its aggregates, and how it opens its store.
#[derive(Clone, Debug, Default)]
#[must_use = "it does nothing until it is run"]
pub struct App {
    pub(super) shapes: EventShapes,
    /// Each adds an aggregate to a verification.
    pub(super) aggregates: Vec<fn(Verify) -> Verify>,
    pub(super) options: Options,
}

impl App {
    /// A program without aggregates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an aggregate: its events are decoded, its snapshots compared, its events' shapes locked.
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        self.shapes = self.shapes.aggregate::<A>();
        self.aggregates.push(Verify::aggregate::<A>);
        self
    }

    /// How the store is opened: behind a pooler, say. What the command line says comes first.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }
}
