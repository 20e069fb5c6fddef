//! Executing commands: load, decide, append; again after a version conflict, and within a budget after what may pass.

use std::collections::{HashMap, HashSet};

use tower::retry::budget::Budget;
use tracing::Instrument;

use super::{EventStore, backoff, cache::Held, lot::Lot, outcome_of, state::State};
#[cfg(feature = "fail-points")]
use crate::testkit::faults::Injected;
use crate::{
    aggregate::Aggregate,
    backend::{KnownKey, Outcome},
    command::{Command, Committed, Envelope, Handle},
    error::{Error, ExecuteError},
    fail_points::fail_point,
    ids::{Position, StreamId},
    life::StreamState,
};

type ErrorOf<C> = <<C as Command>::Aggregate as Aggregate>::Error;
type Outcomes<C> = Vec<Result<Committed, ExecuteError<ErrorOf<C>>>>;

impl EventStore {
    /// Executes a command: loads its aggregate, lets it decide, appends the events.
    ///
    /// When the stream changed meanwhile, it loads and decides again, up to
    /// [`max_attempts`](super::Options::max_attempts) times, waiting a random time in between
    /// (exponential backoff with jitter). So it does, under an idempotency key, when the database fails in a way
    /// that may pass, as far as the [budget](super::Options::retry_budget) goes. Takes a bare command or an
    /// [`Envelope`].
    ///
    /// Dropping the future does not call the command back: it goes on by itself, and its events may be
    /// recorded. With an idempotency key, executing the command again settles it.
    ///
    /// Of a deleted stream the aggregate is as before its first event.
    ///
    /// # Errors
    /// [`ExecuteError::Rejected`] with the domain's reason, [`ExecuteError::Failed`] with the store's:
    /// among others [`Error::StreamDeleted`] or [`Error::StreamArchived`] if the stream is not in use.
    pub async fn execute<C>(
        &self,
        command: impl Into<Envelope<C>>,
    ) -> Result<Committed, ExecuteError<ErrorOf<C>>>
    where
        C: Command,
        C::Aggregate: Handle<C>,
    {
        let mut outcomes = self.execute_all([command]).await?;
        outcomes.pop().unwrap_or(Err(ExecuteError::Failed(Error::Closed)))
    }

    /// Executes many commands in order in one go: one load and one append for the lot.
    ///
    /// Each command has its own outcome, in the order given; one that is rejected, cannot be recorded,
    /// or is for a stream that is deleted or archived does not hinder the others. Later commands see the
    /// events of earlier ones. All events are recorded together or, if the store fails, none of them.
    ///
    /// # Errors
    /// If the store fails, or an event of one of the streams cannot be read ([`Error::Decode`]); then
    /// nothing is recorded, except after [`Error::Indeterminate`], where it is not known.
    pub async fn execute_all<C, I>(&self, commands: I) -> Result<Outcomes<C>, Error>
    where
        C: Command,
        C::Aggregate: Handle<C>,
        I: IntoIterator,
        I::Item: Into<Envelope<C>>,
    {
        let lot = Lot::new(commands.into_iter().map(Into::into).collect());
        let store = self.clone();
        // A task of its own: while it holds its streams, others wait for it. A future that is neither
        // polled nor dropped must not keep them waiting.
        let task = tokio::spawn(async move { store.execute_lot(lot).await }.in_current_span());
        outcome_of(task.await)
    }

    async fn execute_lot<C>(&self, lot: Lot<C>) -> Result<Outcomes<C>, Error>
    where
        C: Command,
        C::Aggregate: Handle<C>,
    {
        // The keys of a lot are looked up first. Of a single command, the append says if its key is
        // taken.
        let mut known = Known { keys: Vec::new(), are_looked_up: false, dead: HashMap::new() };
        if !lot.is_single() {
            self.look_up_keys(&lot, &mut known).await?;
        }
        let mut held = self.hold(lot.streams_without(&known.keys)).await;
        // Who held them meanwhile may have had the same keys.
        known.are_looked_up = false;
        let starts = lot.starts();
        for held in held.iter_mut().filter(|held| starts.contains(&held.stream)) {
            held.state.get_or_insert_with(State::initial);
        }
        let outcomes = self.decide_until_recorded(&lot, &mut known, &mut held).await;
        self.put(held);
        outcomes
    }

    async fn decide_until_recorded<C>(
        &self,
        lot: &Lot<C>,
        known: &mut Known,
        held: &mut Vec<Held<C::Aggregate>>,
    ) -> Result<Outcomes<C>, Error>
    where
        C: Command,
        C::Aggregate: Handle<C>,
    {
        let mut delays = backoff::delays(self.options.max_attempts);
        self.retries.deposit();
        loop {
            let failure = match self.try_execute(lot, known, held).await {
                Ok(outcomes) => return Ok(outcomes),
                Err(failure) => failure,
            };
            // Wherever it came from, nothing of what was decided may be decided on.
            forget(held);
            let (again, costs) = match &failure {
                Error::Conflict { stream, actual, .. } => {
                    for held in held.iter_mut().filter(|held| held.stream == *stream) {
                        held.is_stale = true;
                        // The log has lost events, by a failover for example: others take their place.
                        held.state.take_if(|state| state.loaded.version > *actual);
                    }
                    (true, false)
                }
                Error::StreamDeleted { .. } if lot.is_single() => {
                    return Ok(vec![Err(ExecuteError::Failed(failure))]);
                }
                Error::StreamDeleted { stream } => {
                    if !known.note_dead(stream, StreamState::Deleted) {
                        return Err(failure);
                    }
                    held.iter_mut().for_each(|held| held.is_stale = true);
                    continue;
                }
                Error::StreamArchived { stream } => {
                    if !known.note_dead(stream, StreamState::Archived) {
                        return Err(failure);
                    }
                    held.retain(|held| held.stream != *stream);
                    // Of the others, a part may be loaded.
                    held.iter_mut().for_each(|held| held.is_stale = true);
                    continue;
                }
                Error::KeyInFlight => (true, false),
                // It may be recorded. Deciding again is safe where that would be noticed.
                failure => (failure.is_retryable() && lot.all_have_keys(), true),
            };
            let Some(delay) = delays.next().filter(|_| again) else { return Err(failure) };
            // Callers try again too, so each attempt here would be multiplied by theirs.
            if costs && !self.retries.withdraw() {
                return Err(failure);
            }
            tokio::time::sleep(delay).await;
            tracing::debug!(error = %failure, "deciding again");
        }
    }

    /// Decides on a lot and appends. Every decision holds when this returns: the append is conditional
    /// on the versions that it rests on, and what leads to no append rests on a state that was compared
    /// with the log.
    async fn try_execute<C>(
        &self,
        lot: &Lot<C>,
        known: &mut Known,
        held: &mut Vec<Held<C::Aggregate>>,
    ) -> Result<Outcomes<C>, Error>
    where
        C: Command,
        C::Aggregate: Handle<C>,
    {
        loop {
            let missing = held.iter_mut().filter(|held| held.state.is_none() || held.is_stale);
            self.catch_up(missing).await?;
            fail_point!("command-loaded", |_| Err(Injected::at("command-loaded").into()));
            let states = held
                .iter_mut()
                .map(|held| (&held.stream, held.state.get_or_insert_with(State::initial)));
            let decided = lot.decide(&known.keys, &known.dead, states.collect(), &self.options);
            if decided.refuses() && !known.are_looked_up && lot.has_keys() {
                // It may have been recorded, and be refused only now that it is.
                self.look_up_keys_again(lot, known, held).await?;
                forget(held);
                continue;
            }
            let idle = held.iter_mut().zip(&decided.last).filter(|(held, last)| {
                **last == 0 && held.state.as_ref().is_some_and(|state| !state.is_current)
            });
            if self.have_moved_on(idle.map(|(held, _)| held)).await? {
                forget(held);
                // What came meanwhile may have come under the same keys.
                known.are_looked_up = false;
                continue;
            }
            if decided.request.events.is_empty() && decided.request.keys.is_empty() {
                return Ok(decided.outcomes(Position::START));
            }
            fail_point!("command-decided", |_| Err(Injected::at("command-decided").into()));
            let outcome = self.record(decided.request.clone()).await.and_then(answered);
            match outcome {
                Ok(Outcome::Recorded { first, .. }) => {
                    for (held, last) in held.iter_mut().zip(&decided.last) {
                        if let Some(state) = &mut held.state {
                            state.recorded(Position::new(first.get() + *last as i64 - 1));
                        }
                    }
                    return Ok(decided.outcomes(first));
                }
                Ok(Outcome::Conflict { stream, actual }) => {
                    let (stream, expected) = decided.request.streams[stream].clone();
                    return Err(Error::Conflict { stream, expected, actual });
                }
                Ok(Outcome::NotLive { stream, state }) => {
                    let is_current = |held: &Held<C::Aggregate>| {
                        held.state.as_ref().is_some_and(|state| state.is_current)
                    };
                    let were_current = held.iter().all(is_current);
                    forget(held);
                    let stream = &decided.request.streams[stream].0;
                    for held in held.iter_mut() {
                        held.is_stale |= !is_current(held) || held.stream == *stream;
                    }
                    // A cached state may be from before the stream was deleted: to be decided again, as
                    // if there had been none.
                    if were_current {
                        held.iter_mut()
                            .filter(|held| held.stream == *stream)
                            .for_each(|held| held.state = None);
                        return Err(state.refusal(stream.clone()));
                    }
                }
                Ok(Outcome::KeyTaken) => {
                    forget(held);
                    let first_time = !known.are_looked_up;
                    self.look_up_keys_again(lot, known, held).await?;
                    if !first_time {
                        return Err(Error::KeyInFlight);
                    }
                }
                Err(error) => {
                    // It may be recorded.
                    held.iter_mut().for_each(|held| held.is_stale = true);
                    known.are_looked_up = false;
                    return Err(error);
                }
            }
        }
    }

    /// Takes hold of streams in the order of their names: two lots that share streams wait for each
    /// other, and never both for each other. They come back in the order given.
    async fn hold<A: Aggregate>(&self, streams: Vec<StreamId>) -> Vec<Held<A>> {
        let mut order: Vec<_> = (0..streams.len()).collect();
        order.sort_unstable_by_key(|index| &streams[*index]);
        let mut held = Vec::with_capacity(streams.len());
        for index in order {
            held.push((index, self.cache.hold(&streams[index]).await));
        }
        held.sort_unstable_by_key(|(index, _)| *index);
        held.into_iter().map(|(_, held)| held).collect()
    }

    /// Brings states up to date; true if one of them was not.
    async fn have_moved_on<'a, A: Aggregate>(
        &self,
        held: impl Iterator<Item = &'a mut Held<A>>,
    ) -> Result<bool, Error> {
        let mut held: Vec<_> = held.collect();
        if held.is_empty() {
            return Ok(false);
        }
        let version = |held: &Held<A>| held.state.as_ref().map(|state| state.loaded.version);
        let before: Vec<_> = held.iter().map(|held| version(held)).collect();
        self.catch_up(held.iter_mut().map(|held| &mut **held)).await?;
        Ok(held.iter().zip(before).any(|(held, before)| version(held) != before))
    }

    /// Looks up keys, and lets go of the streams that no command needs any more: what was recorded
    /// is answered, whatever became of its stream.
    async fn look_up_keys_again<C: Command>(
        &self,
        lot: &Lot<C>,
        known: &mut Known,
        held: &mut Vec<Held<C::Aggregate>>,
    ) -> Result<(), Error> {
        self.look_up_keys(lot, known).await?;
        let needed: HashSet<_> = lot.streams_without(&known.keys).into_iter().collect();
        let (kept, rest): (Vec<_>, Vec<_>) =
            std::mem::take(held).into_iter().partition(|held| needed.contains(&held.stream));
        *held = kept;
        self.put(rest);
        Ok(())
    }

    async fn look_up_keys<C: Command>(&self, lot: &Lot<C>, known: &mut Known) -> Result<(), Error> {
        if lot.has_keys() {
            let found = self.backend.known_keys(&lot.keys()).await?;
            // What was known before stays known, even if it was removed in between.
            let new: HashSet<_> = found.iter().map(|key| key.key.clone()).collect();
            known.keys.retain(|key| !new.contains(&key.key));
            known.keys.extend(found);
        }
        known.are_looked_up = true;
        Ok(())
    }
}

/// What is known of a lot's idempotency keys and streams.
struct Known {
    keys: Vec<KnownKey>,
    are_looked_up: bool,
    /// Streams that take no events.
    dead: HashMap<StreamId, StreamState>,
}

impl Known {
    /// Notes that a stream takes no events, so that commands for it fail alone. False if that was known,
    /// and should not have come up again.
    fn note_dead(&mut self, stream: &StreamId, state: StreamState) -> bool {
        self.dead.insert(stream.clone(), state) != Some(state)
    }
}

/// Comes by the fail point behind an append.
fn answered(outcome: Outcome) -> Result<Outcome, Error> {
    fail_point!("command-recorded", |_| Err(Injected::at("command-recorded").answer_lost()));
    Ok(outcome)
}

/// Takes back what was decided; a state that cannot be taken back is loaded again.
fn forget<A: Aggregate>(held: &mut [Held<A>]) {
    for held in held {
        held.state =
            held.state.take().and_then(|mut state| state.forget_decided().then_some(state));
    }
}
