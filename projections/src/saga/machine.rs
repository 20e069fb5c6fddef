//! What a saga does next: pure, from what it is and what happened to events.

use std::time::Duration;

use annals_eventstore::Apply;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    Action, Actions, Direction, Failure, Instance, Process, Progress, SagaEvent, SagaStatus, Wish,
    call::CallOf,
    instance::Pending,
    source::Occurrence,
    step::{Step, WhenFailed},
};
use crate::guard::Cause;

/// Something that happens to a saga.
pub(super) enum Input<'a, S: Process> {
    /// An event of another stream.
    Event(&'a Occurrence<S>),
    /// What came of a call.
    Outcome(Uuid, &'a Outcome<S::Reply>),
    /// Somebody wants something of it.
    Wish(Wish, &'a str),
    /// Time went on.
    Time,
}

/// What came of a call.
#[derive(Debug)]
pub(super) enum Outcome<R> {
    Done(R),
    Refused(String),
    /// Nobody knows. If it is tried again, then after this time.
    Failed {
        attempt: u32,
        reason: String,
        wait: Duration,
    },
}

/// Where a saga stands when something happens to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    /// The saga's key.
    pub(super) key: &'a str,
    pub(super) now: DateTime<Utc>,
    /// Whether anybody has begun to make the pending call.
    pub(super) sent: Sent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Maybe,
    No,
}

/// Has a saga take in what happens. What it decides is applied to it already. If a call cannot be written as JSON, or its
/// code panics, it is half done, and to be thrown away.
pub(super) fn step<S: Process>(
    instance: &mut Instance<S>,
    moment: Moment<'_>,
    input: Input<'_, S>,
) -> Result<Vec<SagaEvent<S::Event>>, Cause> {
    if instance.status.is_ended() {
        return Ok(Vec::new());
    }
    let mut machine = Machine { instance, moment, decided: Vec::new() };
    machine.take(input)?;
    machine.go_on()?;
    Ok(machine.decided)
}

struct Machine<'a, S: Process> {
    instance: &'a mut Instance<S>,
    moment: Moment<'a>,
    decided: Vec<SagaEvent<S::Event>>,
}

fn step_named<S: Process>(name: &str) -> Option<Step<S>> {
    S::steps().into_iter().find(|step| step.name == name)
}

impl<S: Process> Machine<'_, S> {
    fn take(&mut self, input: Input<'_, S>) -> Result<(), Cause> {
        match input {
            Input::Event(event) => self.event(event),
            Input::Outcome(id, outcome) => self.outcome(id, outcome)?,
            Input::Wish(wish, why) => self.wish(wish, why)?,
            Input::Time => self.time(),
        }
        Ok(())
    }

    fn decide(&mut self, event: SagaEvent<S::Event>) {
        self.instance.apply(&event);
        self.decided.push(event);
    }

    fn tell(&mut self, progress: Progress) {
        self.decide(progress.into());
    }

    fn stuck(&mut self, reason: impl Into<String>) {
        self.tell(Progress::Stuck { reason: reason.into() });
    }

    fn event(&mut self, event: &Occurrence<S>) {
        if self.instance.has_heard(&event.mark) {
            return;
        }
        let actions = (event.decide)(&self.instance.state);
        if !actions.is_empty() {
            self.tell(event.mark.clone());
            self.act(actions);
        }
    }

    fn outcome(&mut self, id: Uuid, outcome: &Outcome<S::Reply>) -> Result<(), Cause> {
        let pending = self.instance.pending.as_ref();
        // It was answered before, by another worker say, or the saga goes on without it.
        let Some(pending) = pending.filter(|pending| pending.id == id && pending.due.is_some())
        else {
            return Ok(());
        };
        let (pending, step) = (pending.clone(), step_named::<S>(&pending.step));
        match outcome {
            Outcome::Done(reply) => {
                self.tell(Progress::Answered { id, reply: serde_json::to_value(reply)? });
                if pending.direction == Direction::Do {
                    self.act(self.instance.state.answered(&pending.step, reply));
                }
            }
            Outcome::Refused(reason) => {
                self.tell(Progress::Refused { id, reason: reason.clone() });
                self.failed(&pending, step, Failure::Refused(reason.clone()));
            }
            Outcome::Failed { attempt, reason, wait } => {
                let attempts = match (&step, pending.direction) {
                    (Some(step), Direction::Do) => step.retry.attempts,
                    (Some(step), Direction::Undo) => step.retry_undo.attempts,
                    (None, _) => 0,
                };
                let spent = pending.last || *attempt >= attempts;
                let again_at = (!spent).then(|| super::Due::After(*wait).at(self.moment.now));
                let (attempt, reason) = (*attempt, reason.clone());
                self.tell(Progress::Failed { id, attempt, reason: reason.clone(), again_at });
                if spent {
                    self.failed(&pending, step, Failure::Unknown(reason));
                }
            }
        }
        Ok(())
    }

    /// A call failed for good.
    fn failed(&mut self, pending: &Pending, step: Option<Step<S>>, failure: Failure) {
        let must_succeed = step.is_some_and(|step| step.when_failed == WhenFailed::GetStuck);
        let name = &pending.step;
        if pending.direction == Direction::Undo {
            self.stuck(format!("step {name} could not be undone: {failure}"));
        } else if self.instance.unwinding {
            self.tell(Progress::Left { id: pending.id });
        } else if must_succeed {
            self.stuck(format!("step {name} could not be done: {failure}"));
        } else {
            self.tell(Progress::Left { id: pending.id });
            self.act(self.instance.state.failed(name, &failure));
        }
    }

    fn wish(&mut self, wish: Wish, why: &str) -> Result<(), Cause> {
        let (why, is_stuck) = (why.to_owned(), self.instance.status == SagaStatus::Stuck);
        match wish {
            Wish::Retry if is_stuck => {
                self.tell(Progress::Retried { why });
                // What was refused under this id may be refused for ever.
                if let Some(pending) = self.instance.pending.clone().filter(|one| one.refused) {
                    let Pending { step, direction, run, round, .. } = pending;
                    match step_named::<S>(&step) {
                        Some(step) => self.call(&step, direction, run, round + 1)?,
                        None => self.unknown(&step),
                    }
                }
            }
            Wish::Skip if is_stuck => self.tell(Progress::Skipped { why }),
            Wish::Compensate if !self.instance.unwinding => self.compensate(why),
            Wish::Abort => self.tell(Progress::Aborted { why }),
            _ => {}
        }
        Ok(())
    }

    /// Lets the timers go off whose time has come, in the order of their times. One that is set anew meanwhile goes off
    /// another time, so this ends.
    fn time(&mut self) {
        let timers = self.instance.timers.iter().filter(|(_, at)| **at <= self.moment.now);
        let mut due: Vec<_> = timers.map(|(timer, at)| (*at, timer.clone())).collect();
        due.sort();
        for (at, timer) in due {
            if self.instance.timers.get(&timer) == Some(&at) {
                self.tell(Progress::TimerFired { timer: timer.clone() });
                self.act(self.instance.state.elapsed(&timer));
            }
        }
    }

    fn act(&mut self, actions: Actions<S>) {
        for action in actions {
            let forward = !self.instance.unwinding;
            match action {
                Action::Record(event) => self.decide(SagaEvent::Own(event)),
                Action::Run(step) if forward => self.tell(Progress::Queued { step }),
                Action::RunAll if forward => {
                    for step in S::steps() {
                        self.tell(Progress::Queued { step: step.name.to_owned() });
                    }
                    self.tell(Progress::Finishing);
                }
                Action::Complete if forward => self.tell(Progress::Finishing),
                Action::Compensate(reason) if forward && !self.is_past_return() => {
                    self.compensate(reason);
                }
                Action::Timer { name, due } => {
                    let at = due.at(self.moment.now);
                    self.tell(Progress::TimerSet { timer: name, at });
                }
                Action::CancelTimer(timer) if self.instance.timers.contains_key(&timer) => {
                    self.tell(Progress::TimerCancelled { timer });
                }
                _ => {}
            }
        }
    }

    /// Whether a step has begun that must succeed.
    fn is_past_return(&self) -> bool {
        let mut steps = S::steps().into_iter();
        steps.any(|step| {
            step.when_failed == WhenFailed::GetStuck && self.instance.runs.contains_key(step.name)
        })
    }

    fn compensate(&mut self, reason: String) {
        let pending = self.instance.pending.as_ref().filter(|pending| pending.due.is_some());
        if let (Some(pending), Sent::No) = (pending, self.moment.sent) {
            let id = pending.id;
            self.tell(Progress::Withdrawn { id });
        }
        self.tell(Progress::Compensating { reason });
    }

    /// Makes the calls that come next, until there is one to wait for, or nothing to do.
    fn go_on(&mut self) -> Result<(), Cause> {
        loop {
            let instance = &*self.instance;
            let works = matches!(instance.status, SagaStatus::Running | SagaStatus::Compensating);
            if !works || instance.pending.is_some() {
                return Ok(());
            }
            if instance.unwinding {
                match instance.done.last().map(|done| (done.step.clone(), done.run)) {
                    None => self.tell(Progress::Compensated),
                    Some((name, run)) => match step_named::<S>(&name) {
                        None => self.unknown(&name),
                        Some(step) if step.undo.is_none() => {
                            self.tell(Progress::Passed { step: name });
                        }
                        Some(step) => self.call(&step, Direction::Undo, run, 0)?,
                    },
                }
            } else if let Some(name) = instance.queue.front().cloned() {
                match step_named::<S>(&name) {
                    None => self.unknown(&name),
                    Some(step) => {
                        let run = instance.runs.get(&name).map_or(0, |run| run + 1);
                        self.call(&step, Direction::Do, run, 0)?;
                    }
                }
            } else if instance.finishing {
                self.tell(Progress::Completed);
            } else {
                return Ok(());
            }
        }
    }

    fn unknown(&mut self, step: &str) {
        self.stuck(format!("the saga has no step {step:?} any more"));
    }

    fn call(
        &mut self,
        step: &Step<S>,
        direction: Direction,
        run: u32,
        round: u32,
    ) -> Result<(), Cause> {
        let name = step.name.to_owned();
        let make = match (direction, step.undo) {
            (Direction::Do, _) => step.call,
            (Direction::Undo, Some(undo)) => undo,
            (Direction::Undo, None) => {
                self.tell(Progress::Passed { step: name });
                return Ok(());
            }
        };
        let call = serde_json::to_value(make(&self.instance.state))?;
        let (category, key) = (S::CATEGORY, self.moment.key);
        let id = CallOf { category, key, step: step.name, direction, run, round }.id();
        self.tell(Progress::Called { step: name, direction, run, round, id, call });
        // What is decided next comes before anybody can have sent it.
        self.moment.sent = Sent::No;
        Ok(())
    }
}
