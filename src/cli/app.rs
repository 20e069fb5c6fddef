//! What the command line knows of the program that it is mounted in.

use super::{aggregate::Known, projection::Projection};
#[cfg(feature = "contracts")]
use crate::contract::Contract;
#[cfg(feature = "kafka")]
use crate::kafka::Builder;
use crate::{Aggregate, EventShapes, Options, ReadModel};

/// The program that a command line is for: its aggregates, its read models, and how it opens its store.
#[derive(Clone, Debug, Default)]
#[must_use = "it does nothing until it is run"]
pub struct App {
    pub(super) shapes: EventShapes,
    /// Each once.
    pub(super) aggregates: Vec<Known>,
    /// Each once.
    pub(super) projections: Vec<Projection>,
    pub(super) options: Options,
    #[cfg(feature = "contracts")]
    pub(super) contract: Option<Contract>,
    #[cfg(feature = "kafka")]
    pub(super) publisher: Option<Builder>,
}

impl App {
    /// A program without aggregates and read models.
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

    /// Adds a read model: it can be rebuilt and reset, and asked for its past. It goes by the name of its
    /// table.
    pub fn projection<R: ReadModel>(mut self) -> Self {
        let projection = Projection::of::<R>();
        if !self.projections.iter().any(|other| other.is_same(&projection)) {
            self.projections.push(projection);
        }
        self
    }

    /// How the store is opened: behind a pooler, say. What the command line says comes first.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// What the program publishes: `contract` prints it, writes it, and checks it.
    #[cfg(feature = "contracts")]
    pub fn contract(mut self, contract: Contract) -> Self {
        self.contract = Some(contract);
        self
    }

    /// What the program publishes, and where: as its publisher is built.
    #[cfg(feature = "kafka")]
    pub fn publisher(mut self, publisher: Builder) -> Self {
        self.publisher = Some(publisher);
        self
    }
}
