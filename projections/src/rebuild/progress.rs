//! How far a rebuild is.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use annals_eventstore::Position;

/// What a rebuild is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Folding the log.
    #[default]
    Building,
    /// Making what finds rows.
    Indexing,
    /// Following the log to its end.
    Following,
    /// Comparing the tables in use with the new ones.
    Comparing,
    /// Putting the new tables into the place of the old ones.
    Swapping,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Building => "building",
            Self::Indexing => "indexing",
            Self::Following => "following",
            Self::Comparing => "comparing",
            Self::Swapping => "swapping",
        })
    }
}

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Up to where it has come.
    pub position: Position,
    /// Up to where it is to come.
    pub end: Position,
    /// How many events it has folded.
    pub events: u64,
    /// How many per second, since it began.
    pub rate: f64,
    /// How long the phase will take yet, if it goes on as it did.
    pub eta: Option<Duration>,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { phase, position, end, rate, eta, .. } = self;
        write!(f, "{phase}: position {position} of {end}, {rate:.0} events/s")?;
        match eta {
            Some(eta) => write!(f, ", {} s to go", eta.as_secs()),
            None => Ok(()),
        }
    }
}

type Tell = dyn Fn(Progress) + Send + Sync;

#[derive(Default)]
pub(crate) struct Reporter {
    tell: Option<Box<Tell>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// When and where the phase began.
    begun: Option<(Instant, Position)>,
    position: Position,
    end: Position,
    events: u64,
    started: Option<Instant>,
    told: Option<Instant>,
}

impl Reporter {
    pub(super) fn new(tell: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self { tell: Some(Box::new(tell)), state: Mutex::default() }
    }

    /// Something else is begun with these tables.
    pub(super) fn begin(&self, position: Position) {
        let mut state = self.state();
        *state = State { position, started: Some(Instant::now()), ..State::default() };
    }

    pub(super) fn phase(&self, phase: Phase) {
        let mut state = self.state();
        state.phase = phase;
        state.begun = Some((Instant::now(), state.position));
        self.say(&mut state);
    }

    /// So many more events are folded, and this is where it is.
    pub(super) fn moved(&self, events: usize, position: Position, end: Position) {
        let mut state = self.state();
        let now = Instant::now();
        state.events += events as u64;
        // Where events are folded again without one that failed, it has been further.
        state.position = state.position.max(position);
        state.end = state.end.max(end);
        let is_end = state.position == state.end;
        if is_end || state.told.is_none_or(|told| now - told > Duration::from_millis(200)) {
            self.say(&mut state);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, state: &mut State) {
        let Some(tell) = &self.tell else { return };
        let now = Instant::now();
        state.told = Some(now);
        let seconds = state.started.map_or(0.0, |started| (now - started).as_secs_f64());
        let eta = state.begun.and_then(|(begun, from)| {
            let done = (state.position.get() - from.get()) as f64;
            let left = (state.end.get() - state.position.get()) as f64;
            (done > 0.0).then(|| (now - begun).mul_f64(left.max(0.0) / done))
        });
        tell(Progress {
            phase: state.phase,
            position: state.position,
            end: state.end,
            events: state.events,
            rate: if seconds > 0.0 { state.events as f64 / seconds } else { 0.0 },
            eta,
        });
    }
}
