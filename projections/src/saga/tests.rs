//! The steps of a saga, without I/O: single stories, and laws over all of them.

use std::time::Duration;

use annals_eventstore::{Aggregate, Apply, Event, Recorded, testkit::recorded};
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Action, Actions, Direction, Failure, Instance, On, Process, Progress, Retry, SagaEvent,
    SagaStatus, Step, Wish,
    machine::{Input, Moment, Outcome, Sent, step},
    source::Occurrence,
    testkit::{Decision::*, GivenSaga},
};
use crate::Saga;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum TripEvent {
    Requested {
        city: String,
    },
    Noted,
    Cancelled,
    /// For a saga that decides step by step.
    Wanted {
        step: String,
    },
    Closed,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "trip", event = TripEvent)]
struct Trip;

impl Apply<TripEvent> for Trip {
    fn apply(&mut self, _: &TripEvent) {}
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum BookingEvent {
    Begun { city: String },
    Booked { step: String, reference: u32 },
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
enum Call {
    Do(String, String),
    Undo(String, Option<u32>),
}

#[derive(Saga, Default, Debug, PartialEq)]
#[saga(category = "booking", event = BookingEvent, call = Call, reply = u32, from(Trip))]
struct Booking {
    city: String,
    references: Vec<(String, u32)>,
}

impl Booking {
    fn reference(&self, step: &str) -> Option<u32> {
        let mut references = self.references.iter();
        references.find(|(of, _)| of == step).map(|(_, reference)| *reference)
    }
}

impl Apply<BookingEvent> for Booking {
    fn apply(&mut self, event: &BookingEvent) {
        match event {
            BookingEvent::Begun { city } => self.city.clone_from(city),
            BookingEvent::Booked { step, reference } => {
                self.references.push((step.clone(), *reference));
            }
        }
    }
}

impl Process for Booking {
    fn steps() -> Vec<Step<Self>> {
        vec![
            Self::step("flight", |saga| Call::Do("flight".into(), saga.city.clone()))
                .undo(|saga| Call::Undo("flight".into(), saga.reference("flight")))
                .retry(Retry::attempts(2))
                .retry_undo(Retry::attempts(3)),
            // Nothing to undo.
            Self::step("quote", |saga| Call::Do("quote".into(), saga.city.clone())),
            Self::step("hotel", |saga| Call::Do("hotel".into(), saga.city.clone()))
                .undo(|saga| Call::Undo("hotel".into(), saga.reference("hotel")))
                .retry(Retry::attempts(3))
                .retry_undo(Retry::attempts(2)),
            Self::step("ticket", |saga| Call::Do("ticket".into(), saga.city.clone()))
                .retry(Retry::attempts(2))
                .must_succeed(),
        ]
    }

    fn answered(&self, step: &str, reply: &u32) -> Actions<Self> {
        vec![Action::record(BookingEvent::Booked { step: step.to_owned(), reference: *reply })]
    }

    fn failed(&self, step: &str, failure: &Failure) -> Actions<Self> {
        vec![Action::compensate(format_args!("{step}: {failure}"))]
    }
}

const DEADLINE: Duration = Duration::from_secs(600);

impl On<TripEvent> for Booking {
    fn key(event: &Recorded<TripEvent>) -> Option<String> {
        (event.event != TripEvent::Noted).then(|| event.stream.key().to_owned())
    }

    fn on(&self, event: &Recorded<TripEvent>) -> Actions<Self> {
        match &event.event {
            TripEvent::Requested { city } => vec![
                Action::record(BookingEvent::Begun { city: city.clone() }),
                Action::timer("deadline", DEADLINE),
                Action::RunAll,
            ],
            TripEvent::Cancelled => vec![Action::compensate("the traveller cancelled")],
            TripEvent::Wanted { step } => vec![Action::run(step)],
            TripEvent::Closed => vec![Action::Complete],
            TripEvent::Noted => vec![],
        }
    }
}

fn requested() -> TripEvent {
    TripEvent::Requested { city: "Bergen".into() }
}

fn call(step: &str) -> Call {
    Call::Do(step.into(), "Bergen".into())
}

fn booked(step: &str, reference: u32) -> BookingEvent {
    BookingEvent::Booked { step: step.into(), reference }
}

/// One that has begun.
fn begun() -> GivenSaga<Booking> {
    GivenSaga::<Booking>::new("7").when_event::<Trip>("7", requested()).then([
        Recorded(BookingEvent::Begun { city: "Bergen".into() }),
        TimerSet("deadline".into(), DEADLINE),
        Called(call("flight")),
    ])
}

/// One that waits for its hotel.
fn at_hotel() -> GivenSaga<Booking> {
    begun()
        .when_done("flight", 11)
        .then([Recorded(booked("flight", 11)), Called(call("quote"))])
        .when_done("quote", 12)
        .then([Recorded(booked("quote", 12)), Called(call("hotel"))])
}

#[test]
fn all_steps_are_done_in_their_order() {
    at_hotel()
        .when_done("hotel", 13)
        .then([Recorded(booked("hotel", 13)), Called(call("ticket"))])
        .when_done("ticket", 14)
        .then([Recorded(booked("ticket", 14)), Completed])
        // The deadline does not go off any more, and nothing is heard.
        .when_elapsed(2 * DEADLINE)
        .then([])
        .when_event::<Trip>("7", TripEvent::Cancelled)
        .then([])
        .then_status(SagaStatus::Completed);
}

#[test]
fn what_was_done_is_undone_in_reverse() {
    at_hotel()
        .when_refused("hotel", "all rooms are taken")
        // The quote has nothing to be undone.
        .then([Compensating, Undoing(Call::Undo("flight".into(), Some(11)))])
        .when_done("flight", 0)
        .then([Compensated]);
}

#[test]
fn a_step_whose_outcome_nobody_knows_is_undone_too() {
    at_hotel()
        .when_failed("hotel", "no answer")
        .then([])
        .when_failed("hotel", "no answer")
        .then([])
        .when_failed("hotel", "no answer")
        .then([Compensating, Undoing(Call::Undo("hotel".into(), None))])
        .when_done("hotel", 0)
        .then([Undoing(Call::Undo("flight".into(), Some(11)))])
        .when_done("flight", 0)
        .then([Compensated]);
}

#[test]
fn the_deadline_waits_for_the_call_that_is_under_way() {
    // It comes through: what it did is known and undone.
    at_hotel()
        .when_elapsed(DEADLINE)
        .then([Compensating])
        .when_done("hotel", 13)
        .then([Recorded(booked("hotel", 13)), Undoing(Call::Undo("hotel".into(), Some(13)))])
        .when_done("hotel", 0)
        .then([Undoing(Call::Undo("flight".into(), Some(11)))]);
    // It was refused: there is nothing to undo.
    at_hotel()
        .when_elapsed(DEADLINE)
        .when_refused("hotel", "all rooms are taken")
        .then([Undoing(Call::Undo("flight".into(), Some(11)))]);
    // Nobody knows, and it is not tried again.
    at_hotel()
        .when_elapsed(DEADLINE)
        .when_failed("hotel", "no answer")
        .then([Undoing(Call::Undo("hotel".into(), None))]);
}

#[test]
fn a_step_that_must_succeed_gets_stuck() {
    let stuck = || {
        let at_ticket = at_hotel().when_done("hotel", 13);
        at_ticket.when_refused("ticket", "the printer is on fire").then([Stuck])
    };
    stuck()
        .when_asked(Wish::Retry)
        .then([Called(call("ticket"))])
        .when_done("ticket", 14)
        .then([Recorded(booked("ticket", 14)), Completed]);
    stuck().when_asked(Wish::Skip).then([Completed]);
    stuck()
        .when_asked(Wish::Compensate)
        .then([Compensating, Undoing(Call::Undo("hotel".into(), Some(13)))]);
    stuck().when_asked(Wish::Abort).then([Aborted]);
    // There is no way back but by hand.
    stuck().when_elapsed(DEADLINE).then([]).then_status(SagaStatus::Stuck);
    let printing = at_hotel().when_done("hotel", 13).when_event::<Trip>("7", TripEvent::Cancelled);
    printing.then([]).when_done("ticket", 14).then([Recorded(booked("ticket", 14)), Completed]);
}

#[test]
fn a_compensation_that_fails_gets_stuck() {
    let stuck = || {
        at_hotel()
            .when_refused("hotel", "all rooms are taken")
            .when_refused("flight", "no such booking")
            .then([Stuck])
    };
    stuck().when_asked(Wish::Skip).then([Compensated]);
    stuck().when_asked(Wish::Retry).then([Undoing(Call::Undo("flight".into(), Some(11)))]);
    // Nobody compensates a saga that does.
    stuck().when_asked(Wish::Compensate).then([]).then_status(SagaStatus::Stuck);
}

#[test]
fn what_is_tried_again_has_the_same_id_unless_it_was_refused() {
    let id = |saga: &GivenSaga<Booking>| saga.instance().pending.as_ref().map(|one| one.id);
    let saga = at_hotel().when_done("hotel", 13);
    let first = id(&saga);
    let saga = saga.when_failed("ticket", "no answer");
    assert_eq!(id(&saga), first);
    let saga = saga.when_failed("ticket", "no answer").then([Stuck]).when_asked(Wish::Retry);
    assert_eq!(id(&saga), first, "it may have come through under this id");
    let saga = saga.when_refused("ticket", "ink").then([Stuck]).when_asked(Wish::Retry);
    assert_ne!(id(&saga), first, "the refusal may be kept under that id");
}

#[test]
fn a_process_manager_runs_steps_as_it_likes() {
    let wanted = |step: &str| TripEvent::Wanted { step: step.to_owned() };
    let call = |step: &str| Call::Do(step.into(), String::new());
    GivenSaga::<Booking>::new("7")
        .when_event::<Trip>("7", wanted("hotel"))
        .then([Called(call("hotel"))])
        .when_event::<Trip>("7", wanted("hotel"))
        .then([])
        .when_done("hotel", 1)
        // A second time, as another call.
        .then([Recorded(booked("hotel", 1)), Called(call("hotel"))])
        .when_done("hotel", 2)
        .then([Recorded(booked("hotel", 2))])
        .then_status(SagaStatus::Running)
        .when_event::<Trip>("7", TripEvent::Closed)
        .then([Completed]);
}

#[test]
fn a_step_that_is_gone_gets_it_stuck() {
    GivenSaga::<Booking>::new("7")
        .when_event::<Trip>("7", TripEvent::Wanted { step: "ferry".into() })
        .then([Stuck])
        .when_asked(Wish::Skip)
        .then([])
        .then_status(SagaStatus::Running);
}

#[test]
fn events_of_others_pass_by() {
    GivenSaga::<Booking>::new("7")
        .when_event::<Trip>("8", requested())
        .then([])
        .when_event::<Trip>("7", TripEvent::Noted)
        .then([]);
}

#[test]
fn an_event_that_comes_again_is_heard_once() {
    let mut instance = Instance::<Booking>::default();
    let moment = Moment { key: "7", now: DateTime::UNIX_EPOCH, sent: Sent::Maybe };
    let occurrence = Occurrence::of(recorded::<Trip>("7", 1, 1, requested()), 0);
    assert!(!step(&mut instance, moment, Input::Event(&occurrence)).unwrap().is_empty());
    assert!(step(&mut instance, moment, Input::Event(&occurrence)).unwrap().is_empty());
}

#[test]
fn a_call_that_nobody_made_is_taken_back() {
    let mut instance = Instance::<Booking>::default();
    let mut moment = Moment { key: "7", now: DateTime::UNIX_EPOCH, sent: Sent::Maybe };
    let occurrence = Occurrence::of(recorded::<Trip>("7", 1, 1, requested()), 0);
    step(&mut instance, moment, Input::Event(&occurrence)).unwrap();
    moment.sent = Sent::No;
    let cancelled = Occurrence::of(recorded::<Trip>("7", 2, 2, TripEvent::Cancelled), 0);
    step(&mut instance, moment, Input::Event(&cancelled)).unwrap();
    assert_eq!(instance.status, SagaStatus::Compensated);
}

#[test]
fn waits_grow_and_are_random() {
    let retry = Retry::attempts(9).waits(Duration::from_millis(100), Duration::from_millis(800));
    for attempt in 1..9 {
        let most = Duration::from_millis(100 << (attempt - 1).min(3));
        let waits: Vec<_> = (0..50).map(|_| retry.wait(attempt)).collect();
        assert!(waits.iter().all(|wait| (most / 2..=most).contains(wait)), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait != waits[0]), "no jitter");
    }
}

/// The ids stand in the records of those who were called: they must not change.
#[test]
fn the_ids_of_calls_stay_as_they_are() {
    let saga = begun();
    let id = saga.instance().pending.as_ref().unwrap().id.to_string();
    assert_eq!(id, "68269dd0-1724-554c-9545-7915b4e93b9e");
}

#[derive(Clone, Debug)]
enum Happening {
    Event(TripEvent),
    Done,
    Refused,
    Failed,
    Elapsed(u32),
    Wish(Wish),
    /// An outcome of a call that is not pending.
    Late,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => Just(Happening::Event(requested())),
        1 => Just(Happening::Event(TripEvent::Cancelled)),
        1 => Just(Happening::Event(TripEvent::Wanted { step: "hotel".into() })),
        8 => Just(Happening::Done),
        2 => Just(Happening::Refused),
        4 => Just(Happening::Failed),
        1 => (0..900_u32).prop_map(Happening::Elapsed),
        1 => prop_oneof![
            Just(Wish::Retry), Just(Wish::Skip), Just(Wish::Compensate), Just(Wish::Abort)
        ].prop_map(Happening::Wish),
        1 => Just(Happening::Late),
    ]
}

/// A saga and all that it recorded.
struct Story {
    instance: Instance<Booking>,
    events: Vec<SagaEvent<BookingEvent>>,
    now: DateTime<Utc>,
    version: i64,
    attempts: u32,
}

impl Story {
    fn new() -> Self {
        let (instance, events, now) = (Instance::default(), Vec::new(), DateTime::UNIX_EPOCH);
        Self { instance, events, now, version: 0, attempts: 0 }
    }

    fn happens(&mut self, happening: Happening, sent: Sent) {
        let pending = self.instance.pending.as_ref().filter(|pending| pending.due.is_some());
        let id = pending.map(|pending| pending.id);
        let sent = match &happening {
            // What has an answer was sent.
            Happening::Done | Happening::Refused | Happening::Failed => Sent::Maybe,
            _ if self.attempts > 0 => Sent::Maybe,
            _ => sent,
        };
        match happening {
            Happening::Event(event) => {
                self.version += 1;
                let event = recorded::<Trip>("7", self.version, self.version, event);
                self.step(Input::Event(&Occurrence::of(event, 0)), sent);
            }
            Happening::Done => self.outcome(id, Outcome::Done(1)),
            Happening::Refused => self.outcome(id, Outcome::Refused("no".into())),
            Happening::Failed => {
                self.attempts += 1;
                let (attempt, wait) = (self.attempts, Duration::from_secs(1));
                self.outcome(id, Outcome::Failed { attempt, reason: "lost".into(), wait });
            }
            Happening::Elapsed(seconds) => {
                self.now += TimeDelta::seconds(seconds.into());
                self.step(Input::Time, sent);
            }
            Happening::Wish(wish) => self.step(Input::Wish(wish, "why"), sent),
            Happening::Late => self.outcome(Some(uuid::Uuid::nil()), Outcome::Done(9)),
        }
        if self.instance.pending.as_ref().map(|pending| pending.id) != id {
            self.attempts = 0;
        }
    }

    fn outcome(&mut self, id: Option<uuid::Uuid>, outcome: Outcome<u32>) {
        if let Some(id) = id {
            self.step(Input::Outcome(id, &outcome), Sent::Maybe);
        }
    }

    fn step(&mut self, input: Input<'_, Booking>, sent: Sent) {
        let moment = Moment { key: "7", now: self.now, sent };
        self.events.extend(step(&mut self.instance, moment, input).unwrap());
    }

    fn progress(&self) -> impl Iterator<Item = &Progress> {
        self.events.iter().filter_map(|event| match event {
            SagaEvent::Progress(progress) => Some(progress),
            SagaEvent::Own(_) => None,
        })
    }

    /// What must hold of every story, told from its events alone.
    fn check(&self) {
        let mut refolded = Instance::<Booking>::default();
        self.events.iter().for_each(|event| refolded.apply(event));
        assert_eq!(format!("{refolded:?}"), format!("{:?}", self.instance), "fold = decide");
        // Steps that were or may have been done, as they were begun.
        let mut stack: Vec<(&str, u32)> = Vec::new();
        let mut at: Option<(&str, u32, Direction)> = None;
        let (mut calls, mut undone, mut ended) = (Vec::new(), Vec::new(), false);
        for progress in self.progress() {
            assert!(!ended, "nothing happens behind the end: {:?}", self.events);
            match progress {
                Progress::Called { step, run, round, direction, .. } => {
                    assert!(at.is_none() || *round > 0, "one call at a time");
                    assert!(
                        !calls.contains(&(step, *run, *round, *direction)),
                        "no step twice: {step} {run}"
                    );
                    calls.push((step, *run, *round, *direction));
                    match direction {
                        Direction::Do => assert!(undone.is_empty(), "nothing is done any more"),
                        Direction::Undo => {
                            assert_eq!(stack.last(), Some(&(step.as_str(), *run)), "in reverse");
                            undone.push(step);
                        }
                    }
                    at = Some((step, *run, *direction));
                }
                Progress::Answered { .. } | Progress::Skipped { .. } => match at.take() {
                    Some((step, run, Direction::Do)) => stack.push((step, run)),
                    Some((_, _, Direction::Undo)) => drop(stack.pop()),
                    None => {}
                },
                Progress::Left { .. } => {
                    let (step, run, direction) = at.take().unwrap();
                    assert_eq!(direction, Direction::Do, "what is undone is not left");
                    if self.instance_knows_maybe(step, run) {
                        stack.push((step, run));
                    }
                }
                Progress::Withdrawn { .. } => at = None,
                Progress::Compensating { .. } => {
                    // A call that rests is laid aside.
                    if let Some((step, run, Direction::Do)) = at
                        && self.rested_at(progress)
                    {
                        at = None;
                        if self.instance_knows_maybe(step, run) {
                            stack.push((step, run));
                        }
                    }
                }
                Progress::Passed { step } => {
                    let (last, _) = stack.pop().unwrap();
                    assert_eq!(last, step);
                }
                Progress::Completed => {
                    assert!(undone.is_empty());
                    ended = true;
                }
                Progress::Compensated => {
                    assert!(stack.is_empty(), "all is undone: {stack:?}");
                    ended = true;
                }
                Progress::Aborted { .. } => ended = true,
                _ => {}
            }
        }
    }

    /// Whether the last answer to the call of a step was no refusal.
    fn instance_knows_maybe(&self, step: &str, run: u32) -> bool {
        let mut id = None;
        let mut refused = false;
        for progress in self.progress() {
            match progress {
                Progress::Called {
                    step: of,
                    run: in_run,
                    direction: Direction::Do,
                    id: new,
                    ..
                } if of == step && *in_run == run => {
                    (id, refused) = (Some(*new), false);
                }
                Progress::Refused { id: of, .. } if Some(*of) == id => refused = true,
                _ => {}
            }
        }
        !refused
    }

    /// Whether the call was at rest when this happened: the saga was stuck.
    fn rested_at(&self, progress: &Progress) -> bool {
        let mut stuck = false;
        for one in self.progress() {
            if std::ptr::eq(one, progress) {
                return stuck;
            }
            match one {
                Progress::Stuck { .. } => stuck = true,
                Progress::Retried { .. } | Progress::Skipped { .. } => stuck = false,
                _ => {}
            }
        }
        stuck
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens(happenings in prop::collection::vec((happening(), any::<bool>()), 0..60)) {
        let mut story = Story::new();
        for (happening, unsent) in happenings {
            story.happens(happening, if unsent { Sent::No } else { Sent::Maybe });
            story.check();
        }
        // From wherever it is, it comes to an end once all is answered, or waits for something to do.
        for _ in 0..50 {
            match story.instance.status {
                SagaStatus::Stuck => story.happens(Happening::Wish(Wish::Retry), Sent::Maybe),
                _ => story.happens(Happening::Done, Sent::Maybe),
            }
        }
        story.check();
        let Instance { status, pending, queue, finishing, .. } = &story.instance;
        let waits = *status == SagaStatus::Running && pending.is_none() && queue.is_empty();
        prop_assert!(status.is_ended() || waits && !finishing, "{:?}", story.instance);
    }
}
