//! What is recorded in the stream of a saga: its own events, and its progress.

use annals_eventstore::{
    DecodeError, Decoded, Event, EventType, Payload, Position, RetiredType, ShapeText, Version,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

/// An event of a saga's stream: one that the saga recorded itself, or a step of its progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, bound(serialize = "E: Serialize", deserialize = "E: DeserializeOwned"))]
pub enum SagaEvent<E> {
    /// What the saga recorded. It is stored as any event of its type is.
    Own(E),
    /// How the saga went on.
    Progress(Progress),
}

/// Which way a call of a step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// It does the step.
    Do,
    /// It undoes the step: the compensation.
    Undo,
}

/// How a saga goes on. The stored names begin with `saga.`.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(prefix = "saga.")]
#[non_exhaustive]
pub enum Progress {
    /// An event of another stream moved it. The first one began it.
    Received {
        /// The category of that stream.
        category: String,
        /// Its key.
        key: String,
        /// The event's version. One at or below it has been dealt with.
        version: Version,
        /// Which part of the event, where its type was split: from 0 on.
        part: u32,
        /// The event's position.
        position: Position,
        /// What all messages of the business transaction share.
        correlation_id: Option<String>,
        /// The trace that the event belongs to.
        traceparent: Option<String>,
    },
    /// A step is to be done once those before it are.
    Queued {
        /// Its name.
        step: String,
    },
    /// Once all that is queued is done, the saga is complete.
    Finishing,
    /// A step is being done or undone.
    Called {
        /// The name of the step.
        step: String,
        /// Whether it is done or undone.
        direction: Direction,
        /// The how manieth time that this saga does the step.
        run: u32,
        /// How often a call was refused and then made anew.
        round: u32,
        /// The id under which whoever is called can tell a repetition.
        id: Uuid,
        /// The call, as it stays however often it is tried.
        call: Value,
    },
    /// The call came through.
    Answered {
        /// The call.
        id: Uuid,
        /// The reply.
        reply: Value,
    },
    /// The call had no effect and will have none.
    Refused {
        /// The call.
        id: Uuid,
        /// Why.
        reason: String,
    },
    /// An attempt failed, and may have had its effect.
    Failed {
        /// The call.
        id: Uuid,
        /// Which attempt it was: 1, 2, 3.
        attempt: u32,
        /// Why.
        reason: String,
        /// When it is tried again; `None` if it is not.
        again_at: Option<DateTime<Utc>>,
    },
    /// The saga goes on without the call. Unless it was refused, it counts as maybe done.
    Left {
        /// The call.
        id: Uuid,
    },
    /// The call was taken back before anybody made it.
    Withdrawn {
        /// The call.
        id: Uuid,
    },
    /// A timer runs. One of the same name that ran before does not any more.
    TimerSet {
        /// Its name.
        timer: String,
        /// When it goes off.
        at: DateTime<Utc>,
    },
    /// A timer does not go off.
    TimerCancelled {
        /// Its name.
        timer: String,
    },
    /// A timer went off.
    TimerFired {
        /// Its name.
        timer: String,
    },
    /// What was done is undone from now on.
    Compensating {
        /// Why.
        reason: String,
    },
    /// A step has nothing to be undone.
    Passed {
        /// The name of the step.
        step: String,
    },
    /// The saga cannot go on by itself.
    Stuck {
        /// Why.
        reason: String,
    },
    /// Somebody had it try again what it was stuck at.
    Retried {
        /// Why.
        why: String,
    },
    /// Somebody had it go on as if what it was stuck at were done.
    Skipped {
        /// Why.
        why: String,
    },
    /// All is done.
    Completed,
    /// All that was done is undone.
    Compensated,
    /// Somebody ended it where it stood.
    Aborted {
        /// Why.
        why: String,
    },
}

/// Room for the types of a saga's own events and of its progress.
const MOST_TYPES: usize = 512;

const NO_TYPE: EventType = EventType { name: "", version: 0, aliases: &[] };

/// The types of both, one after the other.
const fn joined(own: &[EventType]) -> ([EventType; MOST_TYPES], usize) {
    let (mut types, progress) = ([NO_TYPE; MOST_TYPES], <Progress as Event>::TYPES);
    let mut index = 0;
    while index < progress.len() {
        types[index] = progress[index];
        index += 1;
    }
    while index < progress.len() + own.len() {
        let event = own[index - progress.len()];
        assert!(!is_progress(event.name), "stored names that begin with `saga.` are for progress");
        types[index] = event;
        index += 1;
    }
    (types, index)
}

const fn is_progress(name: &str) -> bool {
    matches!(name.as_bytes(), [b's', b'a', b'g', b'a', b'.', ..])
}

impl<E: Event> SagaEvent<E> {
    const JOINED: ([EventType; MOST_TYPES], usize) = joined(E::TYPES);
}

impl<E: Event> Event for SagaEvent<E> {
    const TYPES: &'static [EventType] = Self::JOINED.0.split_at(Self::JOINED.1).0;
    const RETIRED: &'static [RetiredType] = E::RETIRED;

    fn type_index(&self) -> usize {
        match self {
            Self::Progress(progress) => progress.type_index(),
            Self::Own(event) => Progress::TYPES.len() + event.type_index(),
        }
    }

    fn describe(index: usize, text: &mut ShapeText) {
        match index.checked_sub(Progress::TYPES.len()) {
            None => Progress::describe(index, text),
            Some(index) => E::describe(index, text),
        }
    }

    fn encode(&self) -> Result<Payload, serde_json::Error> {
        match self {
            Self::Progress(progress) => progress.encode(),
            Self::Own(event) => event.encode(),
        }
    }

    fn decode(name: &str, version: u32, payload: &Payload) -> Result<Decoded<Self>, DecodeError> {
        if Progress::TYPES.iter().any(|kind| kind.is_named(name)) {
            let progress = Progress::decode(name, version, payload)?;
            return progress.try_map(|progress| Ok(Self::Progress(progress)));
        }
        E::decode(name, version, payload)?.try_map(|event| Ok(Self::Own(event)))
    }
}

impl<E> From<Progress> for SagaEvent<E> {
    fn from(progress: Progress) -> Self {
        Self::Progress(progress)
    }
}
