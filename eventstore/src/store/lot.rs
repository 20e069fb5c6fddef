//! Deciding many commands on many streams: pure, between one load and one append.

use std::collections::{HashMap, HashSet};

use super::{
    Options,
    check::{Check, idempotency_key},
    state::State,
};
use crate::{
    aggregate::Aggregate,
    append::{ExpectedVersion, NewEvent},
    backend::{KeyRecord, KnownKey, Request},
    command::{Command, Committed, Envelope, Fingerprint, Handle, fingerprint},
    error::{Error, ExecuteError},
    ids::{Position, StreamId, Version},
    life::StreamState,
};

/// Commands that are executed in one go.
pub(super) struct Lot<C>(Vec<Prepared<C>>);

struct Prepared<C> {
    envelope: Envelope<C>,
    /// `None` if the command has no valid one.
    target: Option<Target>,
}

/// The stream that a command is for, and its fingerprint if it has an idempotency key.
type Target = (StreamId, Option<Fingerprint>);

fn target<C: Command>(envelope: &Envelope<C>) -> Result<Target, Error> {
    let command = &envelope.command;
    let stream = StreamId::new(C::Aggregate::CATEGORY, command.stream_key())?;
    let fingerprint = match &envelope.idempotency_key {
        Some(key) => {
            idempotency_key(key)?;
            Some(fingerprint(&stream, command)?)
        }
        None => None,
    };
    Ok((stream, fingerprint))
}

impl<C: Command> Lot<C> {
    pub(super) fn new(commands: Vec<Envelope<C>>) -> Self {
        let prepare = |envelope| Prepared { target: target(&envelope).ok(), envelope };
        Self(commands.into_iter().map(prepare).collect())
    }

    pub(super) fn is_single(&self) -> bool {
        self.0.len() == 1
    }

    pub(super) fn all_have_keys(&self) -> bool {
        self.0.iter().all(|command| command.envelope.idempotency_key.is_some())
    }

    pub(super) fn has_keys(&self) -> bool {
        self.0.iter().any(|command| command.envelope.idempotency_key.is_some())
    }

    pub(super) fn keys(&self) -> Vec<String> {
        let valid = self.0.iter().filter(|command| command.target.is_some());
        valid.filter_map(|command| command.envelope.idempotency_key.clone()).collect()
    }

    /// The streams of the commands whose keys are not known, each once.
    pub(super) fn streams_without(&self, known: &[KnownKey]) -> Vec<StreamId> {
        let known: HashSet<_> = known.iter().map(|known| known.key.as_str()).collect();
        let is_new = |command: &&Prepared<C>| {
            let key = command.envelope.idempotency_key.as_deref();
            !key.is_some_and(|key| known.contains(key))
        };
        let mut seen = HashSet::new();
        let streams = self.0.iter().filter(is_new).filter_map(|command| command.target.as_ref());
        streams
            .filter(|(stream, _)| seen.insert(stream))
            .map(|(stream, _)| stream.clone())
            .collect()
    }

    /// The streams that the lot starts, as far as its commands know.
    pub(super) fn starts(&self) -> HashSet<&StreamId> {
        let mut seen = HashSet::new();
        let targets = self.0.iter().filter_map(|prepared| {
            let (stream, _) = prepared.target.as_ref()?;
            // The first command for it decides.
            seen.insert(stream).then_some((prepared, stream))
        });
        let starting = targets.filter(|(prepared, _)| prepared.envelope.command.starts_stream());
        starting.map(|(_, stream)| stream).collect()
    }

    /// Lets the aggregates decide on all commands, in order. Their states hold what is decided until
    /// it is [recorded](State::recorded) or [forgotten](State::forget_decided). Of `dead` streams, which take
    /// no events, the archived ones have no state.
    pub(super) fn decide<'a>(
        &'a self,
        known: &'a [KnownKey],
        dead: &'a HashMap<StreamId, StreamState>,
        states: Vec<(&'a StreamId, &'a mut State<C::Aggregate>)>,
        options: &'a Options,
    ) -> Decided<<C::Aggregate as Aggregate>::Error>
    where
        C::Aggregate: Handle<C>,
    {
        let mut deciding = Deciding {
            known: known.iter().map(|known| (known.key.as_str(), known)).collect(),
            index: states.iter().map(|(stream, _)| *stream).zip(0..).collect(),
            dead,
            keys: HashMap::new(),
            check: Check::new(options),
            request: Request::default(),
            last: vec![0; states.len()],
            states,
        };
        let slots = self.0.iter().enumerate().map(|(i, command)| deciding.decide(i, command));
        let slots = slots.collect();
        let Deciding { mut request, states, last, .. } = deciding;
        for (stream, state) in states {
            // The version before the lot: what each decision, the first or a later one, rests on.
            let before = state.loaded.version;
            request.streams.push((stream.clone(), ExpectedVersion::Exact(before)));
        }
        let mut decided = Decided { request, slots, last };
        decided.drop_idle_streams();
        decided
    }
}

struct Deciding<'a, A: Aggregate> {
    known: HashMap<&'a str, &'a KnownKey>,
    index: HashMap<&'a StreamId, usize>,
    dead: &'a HashMap<StreamId, StreamState>,
    states: Vec<(&'a StreamId, &'a mut State<A>)>,
    /// For each stream, how many of the request's events come up to and with its last one.
    last: Vec<usize>,
    /// The keys of this lot: which command brought each, and its fingerprint.
    keys: HashMap<&'a str, (usize, Fingerprint)>,
    check: Check<'a>,
    request: Request,
}

impl<'a, A: Aggregate> Deciding<'a, A> {
    fn decide<C>(&mut self, number: usize, command: &'a Prepared<C>) -> Slot<A::Error>
    where
        A: Handle<C>,
        C: Command<Aggregate = A>,
    {
        let (stream, fingerprint) = match &command.target {
            Some(target) => target.clone(),
            None => match target(&command.envelope) {
                Ok(target) => target,
                Err(error) => return Slot::Failed(error),
            },
        };
        let key = command.envelope.idempotency_key.as_deref().zip(fingerprint);
        if let Some((key, fingerprint)) = key {
            if let Some(known) = self.known.get(key) {
                return recorded_before(known, stream, fingerprint);
            }
            match self.keys.get(key) {
                Some((first, same)) if *same == fingerprint => return Slot::Repeats(*first),
                Some(_) => {
                    return Slot::Failed(Error::KeyReused { key: key.to_owned() });
                }
                None => {}
            }
        }
        if self.dead.get(&stream) == Some(&StreamState::Archived) {
            return Slot::Failed(StreamState::Archived.refusal(stream));
        }
        let index = self.index[&stream];
        let slot = match self.record(&command.envelope, index) {
            Ok(events) => Slot::Recorded {
                stream,
                version: self.states[index].1.version(),
                last: self.request.events.len(),
                events,
            },
            Err(ExecuteError::Rejected(error)) => return Slot::Rejected(error),
            Err(ExecuteError::Failed(error)) => return Slot::Failed(error),
        };
        if let (Some((key, fingerprint)), Slot::Recorded { last, events, .. }) = (key, &slot) {
            self.keys.insert(key, (number, fingerprint));
            self.request.keys.push(KeyRecord {
                key: key.to_owned(),
                fingerprint,
                stream: index,
                number: self.states[index].1.decided(),
                last: *last,
                events: *events,
            });
        }
        slot
    }

    /// Decides on one command and adds its events, all or none. Returns how many there are.
    fn record<C>(
        &mut self,
        envelope: &Envelope<C>,
        index: usize,
    ) -> Result<usize, ExecuteError<A::Error>>
    where
        A: Handle<C>,
        C: Command<Aggregate = A>,
    {
        let (stream, state) = &mut self.states[index];
        envelope.check_version(stream, state.version())?;
        let events =
            (state.bring_up()).handle(envelope.command.clone()).map_err(ExecuteError::Rejected)?;
        if let (false, Some(dead)) = (events.is_empty(), self.dead.get(stream)) {
            return Err(ExecuteError::Failed(dead.refusal(stream.clone())));
        }
        let mut encoded = Vec::with_capacity(events.len());
        let mut bytes = 0;
        // A command that fails leaves nothing behind, also not here.
        let mut check = self.check;
        for event in &events {
            let mut new = NewEvent::of(event)?.metadata(envelope.metadata.clone());
            new.occurred_at = envelope.occurred_at;
            new.recorded_at = envelope.recorded_at;
            check.event(&mut new)?;
            bytes += new.payload.as_bytes().len();
            encoded.push((index, new));
        }
        self.check = check;
        let count = events.len();
        state.decide(events, bytes);
        if count > 0 {
            self.request.events.extend(encoded);
            self.last[index] = self.request.events.len();
        }
        Ok(count)
    }
}

fn recorded_before<E>(known: &KnownKey, stream: StreamId, fingerprint: Fingerprint) -> Slot<E> {
    if known.fingerprint != fingerprint {
        return Slot::Failed(Error::KeyReused { key: known.key.clone() });
    }
    Slot::Known(Committed {
        stream,
        version: known.version,
        position: known.position,
        events: known.events,
        replayed: true,
    })
}

/// What is to be appended for a lot, and what each command then led to.
pub(super) struct Decided<E> {
    pub(super) request: Request,
    /// For each stream that was decided on, how many of the request's events come up to and with its
    /// last one; 0 if it has none.
    pub(super) last: Vec<usize>,
    slots: Vec<Slot<E>>,
}

enum Slot<E> {
    /// Its key is known: it was executed before.
    Known(Committed),
    Rejected(E),
    Failed(Error),
    /// It is the same as an earlier command of this lot, under the same key.
    Repeats(usize),
    /// Its events are in the request: how many of it come up to its last one, how many are its own.
    Recorded {
        stream: StreamId,
        version: Version,
        last: usize,
        events: usize,
    },
}

impl<E> Decided<E> {
    /// Leaves out the streams that nothing is recorded for; a conflict there would be of no account.
    fn drop_idle_streams(&mut self) {
        let mut used = vec![false; self.request.streams.len()];
        self.request.events.iter().for_each(|(stream, _)| used[*stream] = true);
        self.request.keys.iter().for_each(|key| used[key.stream] = true);
        if used.iter().all(|used| *used) {
            return;
        }
        let mut next = 0;
        let moved: Vec<_> = used
            .iter()
            .map(|used| {
                let index = next;
                next += usize::from(*used);
                index
            })
            .collect();
        let mut keep = used.iter();
        self.request.streams.retain(|_| keep.next().is_some_and(|used| *used));
        self.request.events.iter_mut().for_each(|(stream, _)| *stream = moved[*stream]);
        self.request.keys.iter_mut().for_each(|key| key.stream = moved[key.stream]);
    }

    /// True if a command was refused: a decision that no append will be there to check.
    pub(super) fn refuses(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Rejected(_) | Slot::Failed(_)))
    }

    /// The outcomes, now that the request is recorded from position `first` on.
    pub(super) fn outcomes(self, first: Position) -> Vec<Result<Committed, ExecuteError<E>>> {
        let mut outcomes: Vec<Result<Committed, ExecuteError<E>>> =
            Vec::with_capacity(self.slots.len());
        for slot in self.slots {
            let outcome = match slot {
                Slot::Known(committed) => Ok(committed),
                Slot::Rejected(error) => Err(ExecuteError::Rejected(error)),
                Slot::Failed(error) => Err(ExecuteError::Failed(error)),
                Slot::Repeats(earlier) => match &outcomes[earlier] {
                    Ok(committed) => Ok(Committed { replayed: true, ..committed.clone() }),
                    Err(_) => Err(ExecuteError::Failed(Error::KeyInFlight)),
                },
                Slot::Recorded { stream, version, last, events } => Ok(Committed {
                    stream,
                    version,
                    position: match events {
                        0 => Position::START,
                        _ => Position::new(first.get() + last as i64 - 1),
                    },
                    events,
                    replayed: false,
                }),
            };
            outcomes.push(outcome);
        }
        outcomes
    }
}
