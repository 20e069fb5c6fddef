//! What the command line knows of the program that it is mounted in.

use super::{aggregate::Known, other::Other, projection::Projection};
#[cfg(feature = "contracts")]
use crate::contract::Contract;
#[cfg(feature = "kafka")]
use crate::kafka::Builder;
use crate::{Aggregate, EventShapes, Options, ReadModel, Saga, SqlProjection};

/// The program that a command line is for: its aggregates, what its workers run, and how it opens its store.
#[derive(Clone, Debug, Default)]
#[must_use = "it does nothing until it is run"]
pub struct App {
    pub(super) shapes: EventShapes,
    /// Each once.
    pub(super) aggregates: Vec<Known>,
    /// Each once.
    pub(super) projections: Vec<Projection>,
    /// Projections of other kinds, each once.
    pub(super) others: Vec<Other>,
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

    /// Adds a projection in SQL, as [`Worker::sql`](crate::Worker::sql) does: it can be reset.
    pub fn sql(self, projection: impl SqlProjection) -> Self {
        self.with(Other::sql(projection))
    }

    /// Adds a reactor by its [name](crate::Reactor::name). The reactor itself, and all that it needs, is the worker's:
    /// nothing here reacts.
    ///
    /// ```
    /// # use annals::{Event, Apply, saga::{Process, Step}, Saga};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # enum TripEvent { Requested }
    /// # #[derive(annals::Aggregate, Default)]
    /// # #[aggregate(category = "trip", event = TripEvent)]
    /// # struct Trip;
    /// # impl Apply<TripEvent> for Trip { fn apply(&mut self, _: &TripEvent) {} }
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # enum BookingEvent { Begun }
    /// # #[derive(Serialize, Deserialize)]
    /// # enum Call { BookHotel }
    /// # #[derive(Saga, Default)]
    /// # #[saga(category = "booking", event = BookingEvent, call = Call, from(Trip))]
    /// # struct Booking;
    /// # impl Apply<BookingEvent> for Booking { fn apply(&mut self, _: &BookingEvent) {} }
    /// # impl Process for Booking { fn steps() -> Vec<Step<Self>> { Vec::new() } }
    /// # impl annals::saga::On<TripEvent> for Booking {
    /// #     fn on(&self, _: &annals::Recorded<TripEvent>) -> annals::saga::Actions<Self> { Vec::new() }
    /// # }
    /// use annals::cli::App;
    ///
    /// // `status` says of both that they are to run, also before any worker has begun with them.
    /// let app = App::new().reactor("mailer").saga::<Booking>();
    /// # let _ = app;
    /// ```
    pub fn reactor(self, name: impl Into<String>) -> Self {
        self.with(Other::reactor(name.into()))
    }

    /// Adds a saga. It goes by its category.
    pub fn saga<S: Saga>(self) -> Self {
        self.with(Other::saga::<S>())
    }

    fn with(mut self, other: Other) -> Self {
        if self.other(&other.name).is_none() {
            self.others.push(other);
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
