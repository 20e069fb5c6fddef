//! Projections in SQL, run by a worker.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use annals_eventstore::{
    Error as StoreError, EventStore, Position, Recorded,
    breaker::Permit,
    postgres::{Checkpoint, SqlProjection},
};
use async_trait::async_trait;
use tracing::warn;

use super::{
    Context, Projection,
    circuit::{Circuit, backoff},
    failure::{may_be_of_an_event, passes, text},
    projection::Terms,
};
use crate::{
    control::stored,
    error::{Error, EventFailure},
    fail_points::may_fail,
    register::Wanted,
    sql_projection::{asked, change_over, install, wanted},
    target::{Batch, Rest, Target, begin},
};

pub(super) struct SqlWorker {
    projection: Arc<dyn SqlProjection>,
    wanted: Wanted,
    name: String,
}

impl SqlWorker {
    pub(super) fn new(projection: Arc<dyn SqlProjection>) -> Self {
        let wanted = wanted(&*projection);
        Self { name: stored(&wanted.name), projection, wanted }
    }
}

#[async_trait]
impl Projection for SqlWorker {
    fn label(&self) -> &str {
        &self.wanted.name
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn categories(&self) -> &[String] {
        self.projection.categories()
    }

    fn slices(&self) -> u16 {
        self.wanted.slices
    }

    async fn install(&self, context: &Context) -> Result<(), Error> {
        let database = &context.database;
        if database.inline_categories(&self.name).await?.is_some() {
            return Err(Error::RunsInline { projection: self.wanted.name.clone() });
        }
        install(database, &*self.projection, &self.wanted).await
    }

    async fn rebuild(&self, store: &EventStore) -> Result<(), Error> {
        change_over(store, &*self.projection, &self.wanted).await
    }

    fn target(&self, terms: Terms) -> Box<dyn Target> {
        Box::new(SqlTarget {
            projection: self.projection.clone(),
            circuit: Circuit::new(&terms, &self.name, &self.wanted.name),
            terms,
            known: false,
            tries: None,
            rest: None,
        })
    }

    fn pauses(&self) -> bool {
        false
    }
}

struct SqlTarget {
    projection: Arc<dyn SqlProjection>,
    terms: Terms,
    circuit: Circuit,
    /// Whether it is known how an earlier worker has left the circuit.
    known: bool,
    tries: Option<Tries>,
    rest: Option<Rest>,
}

/// An event that failed, and is tried again.
struct Tries {
    position: Position,
    failures: u32,
    due: Instant,
}

impl SqlTarget {
    async fn project(&self, batch: &Batch, checkpoint: &mut Checkpoint) -> Result<(), Error> {
        let Terms { database, patience, .. } = &self.terms;
        let transaction = begin(database, checkpoint, &batch.beside, batch.to, *patience).await?;
        if !batch.events.is_empty() {
            let (projection, sql) = (&*self.projection, transaction.client()?);
            asked(projection.name(), APPLY, projection.apply(&batch.events, sql)).await?;
        }
        may_fail!("batch-written");
        transaction.commit().await.map_err(|error| self.refused(error))?;
        may_fail!("batch-committed");
        checkpoint.moved(batch.to);
        Ok(())
    }

    /// What a commit fails with may be what the projection has written.
    fn refused(&self, error: StoreError) -> Error {
        match error {
            StoreError::Database { retryable: false, .. } | StoreError::UnitEnded => {
                let source = Box::new(error).into();
                let retryable = passes(&source);
                let projection = self.projection.name().to_owned();
                Error::Sql { projection, action: APPLY, source, retryable }
            }
            error => error.into(),
        }
    }

    fn failure(&self, event: &Recorded, error: Error) -> Error {
        let source = match error {
            Error::Sql { source, .. } => source,
            error => error.into(),
        };
        let projection = self.projection.name().to_owned();
        let (stream, version, position) = (event.stream.clone(), event.version, event.position);
        Box::new(EventFailure { projection, stream, version, position, source }).into()
    }

    /// Deals with an event that failed alone: it is tried again, or has failed.
    fn failed(&mut self, event: &Recorded, error: Error, permit: Permit) -> Result<(), Error> {
        let before = self.tries.take().filter(|tries| tries.position == event.position);
        let mut failures = before.map_or(0, |tries| tries.failures);
        // What a trial fails of is what it was to find out about.
        failures += u32::from(!permit.is_trial());
        let reason = text(&error);
        self.circuit.failed(permit, reason.clone());
        if failures >= self.terms.attempts && self.circuit.is_closed() {
            return Err(self.failure(event, error));
        }
        let wait = if self.circuit.is_closed() { backoff(failures) } else { Duration::ZERO };
        let (projection, position) = (self.projection.name(), event.position);
        warn!(projection, %position, error = reason, "an event failed and is tried again");
        self.tries = Some(Tries { position, failures, due: Instant::now() + wait });
        Ok(())
    }

    /// Until when it must not try anything.
    fn waits(&self, batch: &Batch) -> Option<Instant> {
        let first = batch.events.first()?.position;
        let tries = self.tries.as_ref().filter(|tries| tries.position == first);
        self.circuit.open_until().max(tries.map(|tries| tries.due))
    }
}

const APPLY: &str = "apply events";

#[async_trait]
impl Target for SqlTarget {
    async fn prepare(&mut self) -> Result<(), Error> {
        if !self.known {
            self.circuit.take_over().await?;
            self.known = true;
        }
        Ok(())
    }

    async fn apply(&mut self, mut batch: Batch, checkpoint: &mut Checkpoint) -> Result<(), Error> {
        self.rest = None;
        let now = Instant::now();
        let wait = self.waits(&batch).filter(|until| *until > now);
        if let Some(until) = wait {
            self.rest = Some(Rest::Until(until));
            return Ok(());
        }
        let Some(first) = batch.events.first().cloned() else {
            return self.project(&batch, checkpoint).await;
        };
        if batch.late().is_some() && !self.circuit.is_closed() {
            self.rest = Some(Rest::Until(now));
            return Ok(());
        }
        let Some(permit) = self.circuit.ask() else { return Ok(()) };
        if permit.is_trial() && batch.events.len() > 1 {
            batch.events.truncate(1);
            batch.to = first.position;
        }
        match self.project(&batch, checkpoint).await {
            Ok(()) => {
                self.tries = None;
                self.circuit.succeeded(permit);
            }
            Err(error) if !may_be_of_an_event(&error) => {
                self.circuit.not_tried(permit);
                return Err(error);
            }
            Err(error) if batch.late().is_some() => {
                self.circuit.not_tried(permit);
                return Err(self.failure(&first, error));
            }
            // They are tried one by one.
            Err(error) if batch.events.len() > 1 => {
                self.circuit.not_tried(permit);
                return Err(error);
            }
            Err(error) => self.failed(&first, error, permit)?,
        }
        self.circuit.tell().await?;
        self.rest = self.waits(&batch).map(Rest::Until);
        Ok(())
    }

    fn rest(&self) -> Option<Rest> {
        self.rest
    }

    fn mended(&mut self) {
        self.circuit.mended();
    }
}
