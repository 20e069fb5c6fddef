//! Where recording times come from.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, SubsecRound, Utc};

use crate::{append::NewEvent, error::Error};

/// The clock that stamps `recorded_at`.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Clock {
    /// The database's clock, read inside the append; in memory, the system's.
    #[default]
    Database,
    /// A clock of the caller's: for tests, simulations and imports of history. Appends may bring a
    /// time of their own; one that brings none takes this clock's. A time before the last recorded
    /// one is refused.
    Supplied(Arc<dyn TimeSource>),
}

impl Clock {
    /// A clock of the caller's.
    pub fn supplied(source: impl TimeSource) -> Self {
        Self::Supplied(Arc::new(source))
    }

    pub(crate) fn is_supplied(&self) -> bool {
        matches!(self, Self::Supplied(_))
    }

    /// The recording times of an append's events: those that they bring, else this clock's, which
    /// is asked only now. `None` each where the database's clock decides.
    pub(crate) fn times<'a>(
        &self,
        events: impl Iterator<Item = &'a NewEvent>,
    ) -> Result<Vec<Option<DateTime<Utc>>>, WentBack> {
        let Some(now) = self.supplied_now() else { return Ok(events.map(|_| None).collect()) };
        let mut last = None;
        events
            .map(|event| match (event.recorded_at, last) {
                (Some(given), Some(last)) if given < last => Err(WentBack { given, last }),
                (Some(given), _) => {
                    last = Some(given);
                    Ok(last)
                }
                (None, _) => {
                    last = last.max(Some(now));
                    Ok(last)
                }
            })
            .collect()
    }

    /// This clock's time, if it is supplied.
    pub(crate) fn supplied_now(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Database => None,
            Self::Supplied(source) => Some(to_micros(source.now())),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "Database",
            Self::Supplied(_) => "Supplied",
        })
    }
}

/// A time that an event brings is before one that stands before it in the same append.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WentBack {
    given: DateTime<Utc>,
    last: DateTime<Utc>,
}

impl From<WentBack> for Error {
    fn from(WentBack { given, last }: WentBack) -> Self {
        Self::ClockWentBack { given, last }
    }
}

/// A source of time.
pub trait TimeSource: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> DateTime<Utc>;
}

/// A clock that stands still until it is set.
///
/// ```
/// # use annals_eventstore::{ManualClock, TimeSource};
/// let clock = ManualClock::at("2011-10-01T00:00:00Z".parse().unwrap());
/// clock.set("2011-10-02T00:00:00Z".parse().unwrap());
/// assert_eq!(clock.now().to_rfc3339(), "2011-10-02T00:00:00+00:00");
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<DateTime<Utc>>>);

impl ManualClock {
    /// A clock that shows `time`.
    pub fn at(time: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new(time)))
    }

    /// Sets the time, for all clones of this clock.
    pub fn set(&self, time: DateTime<Utc>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }
}

impl TimeSource for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// PostgreSQL keeps microseconds; what was given and what is read back must be equal.
pub(crate) fn to_micros(time: DateTime<Utc>) -> DateTime<Utc> {
    time.trunc_subsecs(6)
}
