//! What the command line knows of the program that it is mounted in.

use super::aggregate::Known;
use crate::{Aggregate, EventShapes, Options};

/// The program that a command line is for: its aggregates, and how it opens its store.
#[derive(Clone, Debug, Default)]
#[must_use = "it does nothing until it is run"]
pub struct App {
    pub(super) shapes: EventShapes,
    /// Each once.
    pub(super) aggregates: Vec<Known>,
    pub(super) options: Options,
}

impl App {
    /// A program without aggregates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an aggregate: its events are decoded, its snapshots compared, its events' shapes locked. Its
    /// state is printed as JSON if it is `Serialize`, else as its `Debug` has it.
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        let known = Known::of::<A>();
        if !self.aggregates.iter().any(|other| other.is_same(&known)) {
            self.shapes = self.shapes.aggregate::<A>();
            self.aggregates.push(known);
        }
        self
    }

    /// How the store is opened: behind a pooler, say. What the command line says comes first.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }
}
