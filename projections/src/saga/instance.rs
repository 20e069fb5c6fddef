//! One saga as its stream tells it: a fold, without decisions.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
};

use annals_eventstore::{Aggregate, Apply, Version};
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::{Direction, Progress, Saga, SagaEvent};

/// How a saga is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SagaStatus {
    /// It goes forward, or waits for events and timers.
    Running,
    /// It undoes what was done.
    Compensating,
    /// It cannot go on by itself.
    Stuck,
    /// It has come to its end.
    Completed,
    /// All that was done is undone.
    Compensated,
    /// Somebody ended it where it stood.
    Aborted,
}

impl SagaStatus {
    /// True if nothing moves it any more.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Aborted)
    }

    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Stuck => "stuck",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Aborted => "aborted",
        }
    }

    pub(super) fn of(stored: &str) -> Self {
        match stored {
            "compensating" => Self::Compensating,
            "stuck" => Self::Stuck,
            "completed" => Self::Completed,
            "compensated" => Self::Compensated,
            "aborted" => Self::Aborted,
            _ => Self::Running,
        }
    }
}

/// One saga: the user's state, and how far it is. An aggregate, whose stream can be loaded, projected and shown as
/// any other:
///
/// ```no_run
/// # use annals_eventstore::{Error, EventStore};
/// # use annals_projections::saga::{Instance, Process};
/// # async fn show<S: Process>(store: &EventStore) -> Result<(), Error> {
/// if let Some(saga) = store.load::<Instance<S>>("trip-7").await? {
///     println!("{:?}: {:?}", saga.state.status(), saga.state.reason());
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Instance<S> {
    pub(super) state: S,
    pub(super) status: SagaStatus,
    pub(super) begun: bool,
    pub(super) unwinding: bool,
    /// Up to which event of each stream it has heard: the version, and the part.
    pub(super) heard: BTreeMap<(String, String), (Version, u32)>,
    pub(super) queue: VecDeque<String>,
    pub(super) finishing: bool,
    pub(super) pending: Option<Pending>,
    /// What was done, or may have been, in its order.
    pub(super) done: Vec<Done>,
    pub(super) timers: BTreeMap<String, DateTime<Utc>>,
    /// How often each step was begun.
    pub(super) runs: BTreeMap<String, u32>,
    pub(super) reason: Option<String>,
    pub(super) correlation_id: Option<String>,
    pub(super) traceparent: Option<String>,
}

/// A call that has no answer yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pending {
    pub(super) step: String,
    pub(super) direction: Direction,
    pub(super) run: u32,
    pub(super) round: u32,
    pub(super) id: Uuid,
    pub(super) call: Value,
    /// When it is to be tried; `None` if it rests.
    pub(super) due: Option<DateTime<Utc>>,
    /// How many attempts are known to have failed, and how often somebody had it begin anew.
    pub(super) failures: u32,
    pub(super) retries: u32,
    pub(super) refused: bool,
    /// It is not tried again, whatever comes of it.
    pub(super) last: bool,
}

/// A step that was done, or may have been.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Done {
    pub(super) step: String,
    pub(super) run: u32,
    /// The call that did it.
    pub(super) id: Uuid,
}

impl<S> Instance<S> {
    /// What the saga's own events add up to.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// How it is doing.
    pub fn status(&self) -> SagaStatus {
        self.status
    }

    /// Why it compensates, is stuck, or was aborted.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The step that it is at, if it is at one.
    pub fn step(&self) -> Option<&str> {
        self.pending.as_ref().map(|pending| pending.step.as_str())
    }

    /// The steps that were done and not undone, in their order. The saga may not know for sure that they were.
    pub fn done(&self) -> impl Iterator<Item = &str> {
        self.done.iter().map(|done| done.step.as_str())
    }

    /// The timers that run, and when they go off.
    pub fn timers(&self) -> impl Iterator<Item = (&str, DateTime<Utc>)> {
        self.timers.iter().map(|(name, at)| (name.as_str(), *at))
    }

    /// When something is due that nobody calls for.
    pub(super) fn next_timer(&self) -> Option<DateTime<Utc>> {
        self.timers.values().min().copied()
    }

    /// Forward or back.
    fn goes_on(&mut self) {
        self.status = if self.unwinding { SagaStatus::Compensating } else { SagaStatus::Running };
    }

    fn ends(&mut self, status: SagaStatus) {
        self.status = status;
        self.pending = None;
        self.queue.clear();
        self.timers.clear();
    }

    /// The pending call, if it is the one with this id.
    fn pending(&mut self, id: Uuid) -> Option<&mut Pending> {
        self.pending.as_mut().filter(|pending| pending.id == id)
    }

    /// Lays the pending call aside. A step that was not refused counts as done.
    fn lay_aside(&mut self) {
        if let Some(Pending { step, run, id, refused: false, direction: Direction::Do, .. }) =
            self.pending.take()
        {
            self.done.push(Done { step, run, id });
        }
    }

    fn progress(&mut self, progress: &Progress) {
        match progress {
            Progress::Received {
                category,
                key,
                version,
                part,
                correlation_id,
                traceparent,
                ..
            } => {
                if !std::mem::replace(&mut self.begun, true) {
                    self.correlation_id.clone_from(correlation_id);
                    self.traceparent.clone_from(traceparent);
                }
                self.heard.insert((category.clone(), key.clone()), (*version, *part));
            }
            Progress::Queued { step } => self.queue.push_back(step.clone()),
            Progress::Finishing => self.finishing = true,
            Progress::Called { step, direction, run, round, id, call } => {
                if *direction == Direction::Do && *round == 0 {
                    self.queue.pop_front();
                    self.runs.insert(step.clone(), *run);
                }
                self.pending = Some(Pending {
                    step: step.clone(),
                    direction: *direction,
                    run: *run,
                    round: *round,
                    id: *id,
                    call: call.clone(),
                    due: Some(DateTime::UNIX_EPOCH),
                    failures: 0,
                    retries: 0,
                    refused: false,
                    last: false,
                });
            }
            Progress::Answered { id, .. } => {
                match self.pending(*id).map(|pending| pending.direction) {
                    Some(Direction::Do) => self.lay_aside(),
                    Some(Direction::Undo) => {
                        self.pending = None;
                        self.done.pop();
                    }
                    None => {}
                }
            }
            Progress::Refused { id, .. } => {
                if let Some(pending) = self.pending(*id) {
                    (pending.refused, pending.due) = (true, None);
                }
            }
            Progress::Failed { id, again_at, .. } => {
                if let Some(pending) = self.pending(*id) {
                    pending.failures += 1;
                    pending.due = *again_at;
                }
            }
            Progress::Left { id } => {
                if self.pending(*id).is_some() {
                    self.lay_aside();
                }
            }
            Progress::Withdrawn { id } => {
                if self.pending(*id).is_some() {
                    self.pending = None;
                }
            }
            Progress::TimerSet { timer, at } => {
                self.timers.insert(timer.clone(), *at);
            }
            Progress::TimerCancelled { timer } | Progress::TimerFired { timer } => {
                self.timers.remove(timer);
            }
            Progress::Compensating { reason } => {
                (self.unwinding, self.finishing) = (true, false);
                self.queue.clear();
                self.reason = Some(reason.clone());
                match &mut self.pending {
                    Some(pending) if pending.due.is_some() => {
                        (pending.last, pending.due) = (true, Some(DateTime::UNIX_EPOCH));
                    }
                    _ => self.lay_aside(),
                }
                self.goes_on();
            }
            Progress::Passed { .. } => {
                self.done.pop();
            }
            Progress::Stuck { reason } => {
                self.reason = Some(reason.clone());
                self.status = SagaStatus::Stuck;
            }
            Progress::Retried { .. } => {
                self.goes_on();
                if let Some(pending) = &mut self.pending {
                    pending.failures = 0;
                    pending.retries += 1;
                    pending.due = Some(DateTime::UNIX_EPOCH);
                }
            }
            Progress::Skipped { .. } => {
                self.goes_on();
                match self.pending.take() {
                    Some(Pending { step, run, id, direction: Direction::Do, .. }) => {
                        self.done.push(Done { step, run, id });
                    }
                    None if !self.unwinding => {
                        self.queue.pop_front();
                    }
                    _ => {
                        self.done.pop();
                    }
                }
            }
            Progress::Completed => self.ends(SagaStatus::Completed),
            Progress::Compensated => self.ends(SagaStatus::Compensated),
            Progress::Aborted { why } => {
                self.reason = Some(why.clone());
                self.ends(SagaStatus::Aborted);
            }
        }
    }
}

impl<S: Saga> Default for Instance<S> {
    fn default() -> Self {
        Self {
            state: S::default(),
            status: SagaStatus::Running,
            begun: false,
            unwinding: false,
            heard: BTreeMap::new(),
            queue: VecDeque::new(),
            finishing: false,
            pending: None,
            done: Vec::new(),
            timers: BTreeMap::new(),
            runs: BTreeMap::new(),
            reason: None,
            correlation_id: None,
            traceparent: None,
        }
    }
}

impl<S: Saga> Apply<SagaEvent<S::Event>> for Instance<S> {
    fn apply(&mut self, event: &SagaEvent<S::Event>) {
        match event {
            SagaEvent::Own(event) => self.state.apply(event),
            SagaEvent::Progress(progress) => self.progress(progress),
        }
    }
}

impl<S: Saga> Aggregate for Instance<S> {
    const CATEGORY: &'static str = S::CATEGORY;
    type Event = SagaEvent<S::Event>;
    type Error = Infallible;
}

impl<S> Instance<S> {
    /// Whether it has dealt with this part of this event.
    pub(super) fn has_heard(&self, mark: &Progress) -> bool {
        let Progress::Received { category, key, version, part, .. } = mark else { return false };
        let heard = self.heard.get(&(category.clone(), key.clone()));
        heard.is_some_and(|heard| (*version, *part) <= *heard)
    }
}
