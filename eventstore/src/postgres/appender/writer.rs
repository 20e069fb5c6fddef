//! Sending batches, and finding out what came of each append.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::Pool;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_postgres::Row;

use super::{
    super::{client::Client, connect::Target, dialect::Dialect},
    arrays::Arrays,
    failure::{Failure, Next},
    queue::{Lane, Pending, Queue},
};
#[cfg(feature = "fail-points")]
use crate::testkit::faults::Injected;
use crate::{
    backend::{Outcome, Request},
    clock::Clock,
    error::Error,
    fail_points::fail_point,
    ids::{Position, Version},
    life::StreamState,
    metrics,
};

/// How often a batch is tried that loses to others through no fault of its own.
const ATTEMPTS: usize = 5;
/// The pause before an append asks its clock again.
const CLOCK_RETRY: Duration = Duration::from_millis(1);

/// How long a batch waits for streams that others hold. Nearly all hold them for the time of a commit.
const BATCH_PATIENCE: Duration = Duration::from_millis(500);
/// The same for a part of such a batch, while the one that is held is sought.
const PART_PATIENCE: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub(super) struct Writer {
    pub(super) target: Target,
    pub(super) dialect: Arc<Dialect>,
    pub(super) pool: Pool,
    pub(super) statement: Arc<str>,
    pub(super) nudge: mpsc::Sender<()>,
    pub(super) recorded: watch::Sender<()>,
    pub(super) clock: Clock,
    /// How long to wait for an answer.
    pub(super) limit: Duration,
    pub(super) queue: Arc<Queue>,
}

impl Writer {
    /// Sends a batch, and what fails because of some of its appends again in halves.
    pub(super) async fn send(&self, batch: Vec<Pending>, lane: &Lane) {
        metrics::batch(batch.len());
        let mut parts = vec![(batch, BATCH_PATIENCE)];
        while let Some((mut part, patience)) = parts.pop() {
            let requests: Vec<_> = part.iter().map(|pending| &pending.request).collect();
            match self.record(&requests, patience).await {
                Ok(outcomes) => {
                    for (pending, outcome) in part.into_iter().zip(outcomes) {
                        pending.answer(Ok(outcome));
                    }
                }
                Err(failure) if part.len() == 1 || failure.is_everyones() => {
                    for pending in part {
                        if let Failure::Locked { .. } = failure {
                            lane.divert(pending);
                        } else {
                            self.queue.fail(pending, &failure);
                        }
                    }
                }
                Err(failure) => {
                    let locked = matches!(failure, Failure::Locked { .. });
                    let patience = if locked { PART_PATIENCE } else { patience };
                    let second = part.split_off(part.len() / 2);
                    parts.extend([(second, patience), (part, patience)]);
                }
            }
        }
    }

    /// Sends a batch, again where it lost to others, and returns the outcome of each append.
    pub(super) async fn record(
        &self,
        requests: &[&Request],
        patience: Duration,
    ) -> Result<Vec<Outcome>, Failure> {
        let started = Instant::now();
        let mut attempt = 1;
        let outcomes = loop {
            let failure = match self.try_record(requests, patience).await {
                Ok(outcomes) => break outcomes,
                Err(failure) => failure,
            };
            match failure.next(requests, &self.clock) {
                Next::Again if attempt < ATTEMPTS => attempt += 1,
                // Each time, another append has come through.
                Next::AgainLater if started.elapsed() < self.limit => sleep(CLOCK_RETRY).await,
                _ => return Err(failure),
            }
        };
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Recorded { .. })) {
            self.recorded.send_replace(());
            // If there is one to be sent already, it will do.
            let _ = self.nudge.try_send(());
        }
        Ok(outcomes)
    }

    async fn try_record(
        &self,
        requests: &[&Request],
        patience: Duration,
    ) -> Result<Vec<Outcome>, Failure> {
        let no_connection = |error| Failure::NoConnection(Arc::new(error));
        let preparing = async {
            let busy = self.target.busy(&self.pool, &self.dialect).await.map_err(no_connection)?;
            let client = busy.client().map_err(no_connection)?;
            match timeout(self.limit, client.prepare_cached(&self.statement)).await {
                Ok(Ok(statement)) => Ok((busy, statement)),
                Ok(Err(error)) => {
                    busy.done();
                    Err(Failure::Unsent(Arc::new(error)))
                }
                Err(elapsed) => Err(no_connection(Error::Database {
                    action: "prepare the append: the server does not answer",
                    source: Box::new(elapsed),
                    retryable: true,
                })),
            }
        };
        let Some(prepared) = self.queue.cut.run_until_cancelled(preparing).await else {
            return Err(Failure::Closed);
        };
        let (busy, statement) = prepared?;
        let arrays = Arrays::of(requests, &self.clock).map_err(Failure::Time)?;
        let lock_timeout = lock_timeout(patience);
        let params = arrays.params(&lock_timeout);
        let client = busy.client().map_err(no_connection)?;
        fail_point!("append-sending", |_| Err(no_connection(
            Injected::at("append-sending").into()
        )));
        let answer = timeout(self.limit, client.query_one(&statement, &params));
        let answer = match self.queue.cut.run_until_cancelled(answer).await {
            Some(Ok(answer)) => answer,
            // Nobody waits for the answer any more, and nobody may use the connection before it came.
            Some(Err(elapsed)) => return Err(Failure::NoAnswer(Arc::new(elapsed))),
            None => return Err(Failure::CutOff),
        };
        busy.done();
        fail_point!("append-answered", |_| Err(Failure::AnswerLost));
        match answer {
            Ok(row) => Ok(outcomes(requests, &arrays, &row)),
            Err(error) => Err(Failure::of_statement(error, patience)),
        }
    }
}

/// Sends requests on a connection that the caller holds, as a part of its transaction if it is in one.
pub(in crate::postgres) async fn record_on(
    client: &Client,
    sql: &str,
    clock: &Clock,
    requests: &[&Request],
    patience: Duration,
) -> Result<Vec<Outcome>, Failure> {
    let statement = client.prepare_cached(sql).await;
    let statement = statement.map_err(|error| Failure::Unsent(Arc::new(error)))?;
    let arrays = Arrays::of(requests, clock).map_err(Failure::Time)?;
    let lock_timeout = lock_timeout(patience);
    let answer = client.query_one(&statement, &arrays.params(&lock_timeout)).await;
    let row = answer.map_err(|error| Failure::of_statement(error, patience))?;
    Ok(outcomes(requests, &arrays, &row))
}

fn lock_timeout(patience: Duration) -> String {
    format!("{}ms", patience.as_millis().clamp(1, i32::MAX as u128))
}

/// What the answer says about each request.
fn outcomes(requests: &[&Request], arrays: &Arrays<'_>, answer: &Row) -> Vec<Outcome> {
    // Of each stream; none if all is recorded.
    let outcomes: Option<Vec<i32>> = answer.get(0);
    let versions: Vec<i64> = answer.get(1);
    let mut next = Position::new(answer.get(2));
    let outcome = |(request, places): (&&Request, &Vec<usize>)| {
        let outcome = |place: usize| outcomes.as_ref().map_or(0, |outcomes| outcomes[place]);
        let before =
            || places.iter().map(|place| Version::new(versions[*place])).collect::<Vec<_>>();
        match outcome(places[0]) {
            0 => {
                let first = next;
                next = first.plus(request.events.len());
                Outcome::Recorded { before: before(), first }
            }
            1 => {
                let before = before();
                // The database found one that was not as expected, by the same rules.
                let stream = std::iter::zip(&request.streams, &before)
                    .position(|((_, expected), actual)| !expected.accepts(*actual))
                    .unwrap_or(0);
                Outcome::Conflict { stream, actual: before[stream] }
            }
            2 => Outcome::KeyTaken,
            // A stream that is not live says so; the others of its append say 3.
            _ => {
                let state = |place: &usize| match outcome(*place) {
                    4 => Some(StreamState::Deleted),
                    5 => Some(StreamState::Archived),
                    _ => None,
                };
                let mut states = places.iter().map(state).enumerate();
                let (stream, state) = states
                    .find_map(|(stream, state)| Some((stream, state?)))
                    .unwrap_or((0, StreamState::Deleted));
                Outcome::NotLive { stream, state }
            }
        }
    };
    requests.iter().zip(arrays.places()).map(outcome).collect()
}
