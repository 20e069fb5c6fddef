//! Inline projections: written in the transaction of the append, so that they are never behind.
//!
//! # The order of a row's events
//! What is folded into a row must be folded in the order of positions, or the row's history would be
//! wrong. Positions are drawn in the append, and two appends may commit in the other order than they
//! drew. Therefore an append that projects inline takes the locks of all the rows that its events touch
//! *before* it draws positions, and holds them to its commit. Of two appends that touch a row, the one
//! that gets the row's lock draws, folds and commits while the other waits; the other then draws, and
//! positions only rise. It reads the row in a later statement (READ COMMITTED), after the first one's
//! commit, so it folds into what the first one left.
//!
//! For that, the rows of an event must not depend on its position, version or recording time, which
//! are not known yet. It is checked, when they are known.
//!
//! # No deadlock
//! All appends take locks in one order: locks of projections and rows, sorted by their numbers; then
//! streams, sorted by name; then the lock of the clock. Appends that project nothing inline take the later
//! kinds only. What a program's own SQL locks comes before and is the program's affair.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio_postgres::types::ToSql;

use super::{
    Database, GenericClient, InlineLocks, OwnedTransaction, SqlProjection, client::Client,
    database_error, is_lost, is_transient, page,
};
use crate::{
    backend::{Page, Request},
    error::Error,
    event::Recorded,
    ids::{Position, Version},
};

/// More locks of rows than this are not worth it: the projection is locked as a whole. The server
/// has room for a few thousand locks.
const MAX_LOCKS: usize = 64;

/// The first number of a projection's locks: negative, so that it is no store's.
pub(super) fn number(database: &Database, projection: &str) -> i32 {
    let mut hash = Sha256::new();
    hash.update(database.schema().name());
    hash.update([0]);
    hash.update(projection);
    let hash = hash.finalize();
    i32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) | i32::MIN
}

impl Database {
    /// The categories of a projection that is registered as inline; `None` if it is not.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn inline_categories(&self, projection: &str) -> Result<Option<Vec<String>>, Error> {
        let sql = "select categories from {schema}.inline_projections where name = $1";
        let row = self.client().await?.query_opt(&self.schema().sql(sql), &[&projection]).await;
        let row = row.map_err(|error| database_error("look up an inline projection", error))?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Registers a projection as inline, at the end of this transaction. Until then no append is under
    /// way and none starts: project what is recorded meanwhile in this transaction, and end it soon.
    /// From then on, an append that the projection would not see is refused.
    ///
    /// # Errors
    /// If it is registered already, or the database fails.
    pub async fn register_inline(
        &self,
        transaction: &OwnedTransaction,
        projection: &dyn SqlProjection,
    ) -> Result<(), Error> {
        let sql = self.schema().sql("select {schema}.register_inline($1, $2, $3)");
        let (name, categories) = (projection.name(), projection.categories());
        let params: [&(dyn ToSql + Sync); 3] = [&name, &number(self, name), &categories];
        let registered = transaction.client()?.execute(&sql, &params).await;
        registered.map(drop).map_err(|error| database_error("register an inline projection", error))
    }

    /// A page of the log as the connection's transaction sees it: at most `limit` events after a
    /// position, of the given categories. It is complete only while no append can be in flight, as
    /// after [`register_inline`](Self::register_inline); else see
    /// [`EventStore::read_page`](crate::EventStore::read_page).
    ///
    /// # Errors
    /// If the database fails.
    pub async fn read_page_on(
        &self,
        client: &Client,
        categories: &[String],
        after: Position,
        limit: usize,
    ) -> Result<Vec<Recorded>, Error> {
        let page = Page::log(after, Position::new(i64::MAX), limit);
        page::page_on(client, self.schema(), Page { categories: Some(categories), ..page }).await
    }

    /// Takes the registration of an inline projection away, if there is one, at the end of this
    /// transaction. Appends under way that it sees are waited for.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn forget_inline(
        &self,
        client: &impl GenericClient,
        projection: &str,
    ) -> Result<(), Error> {
        let sql = self.schema().sql("select {schema}.forget_inline($1, $2)");
        let forgotten = client.execute(&sql, &[&projection, &number(self, projection)]).await;
        forgotten.map(drop).map_err(|error| database_error("forget an inline projection", error))
    }
}

/// The inline projections that an append concerns.
pub(super) struct Running<'a> {
    database: &'a Database,
    transaction: &'a OwnedTransaction,
    projections: Vec<&'a dyn SqlProjection>,
    request: &'a Request,
}

impl<'a> Running<'a> {
    pub(super) fn of(
        database: &'a Database,
        transaction: &'a OwnedTransaction,
        inline: &'a [Arc<dyn SqlProjection>],
        request: &'a Request,
    ) -> Self {
        let concerned = inline.iter().filter(|projection| concerns(&***projection, request));
        let projections = concerned.map(|projection| &**projection).collect();
        Self { database, transaction, projections, request }
    }

    /// Takes the locks of all rows that the events touch.
    pub(super) async fn lock(&self) -> Result<(), Error> {
        if self.projections.is_empty() {
            return Ok(());
        }
        let client = self.transaction.client()?;
        let events = provisional(self.request);
        let mut locks = Vec::new();
        for projection in &self.projections {
            let number = number(self.database, projection.name());
            let events = seen_by(*projection, &events);
            let wanted = projection.locks(&events, client).await;
            match wanted.map_err(|source| failed(*projection, source))? {
                InlineLocks::Rows(rows) if rows.len() <= MAX_LOCKS => {
                    locks.push((number, 0, false));
                    locks.extend(
                        rows.into_iter().map(|row| (number, (row & i32::MAX).max(1), true)),
                    );
                }
                _ => locks.push((number, 0, true)),
            }
        }
        // Of two on the same, the exclusive one; a shared lock is never made exclusive later.
        locks.sort_unstable_by_key(|(number, row, exclusive)| (*number, *row, !exclusive));
        locks.dedup_by_key(|(number, row, _)| (*number, *row));
        let names: Vec<_> = self.projections.iter().map(|projection| projection.name()).collect();
        let numbers: Vec<_> = locks.iter().map(|lock| lock.0).collect();
        let rows: Vec<_> = locks.iter().map(|lock| lock.1).collect();
        let exclusive: Vec<_> = locks.iter().map(|lock| lock.2).collect();
        let enter = async {
            let sql = &self.database.0.statements.enter_inline;
            let statement = client.prepare_cached(sql).await?;
            client.execute(&statement, &[&names, &numbers, &rows, &exclusive]).await
        };
        enter.await.map(drop).map_err(|error| refused("lock rows of inline projections", error))
    }

    /// Projects the events, which are recorded from position `first` on.
    pub(super) async fn apply(&self, first: Position) -> Result<(), Error> {
        if self.projections.is_empty() {
            return Ok(());
        }
        let client = self.transaction.client()?;
        let count = self.request.events.len();
        let after = Position::new(first.get() - 1);
        let page = Page::log(after, after.plus(count), count);
        // As they are recorded: with their times, and as every later fold will see them.
        let events = page::page_on(client, self.database.schema(), page).await?;
        for projection in &self.projections {
            let applied = projection.apply(&seen_by(*projection, &events), client).await;
            applied.map_err(|source| failed(*projection, source))?;
        }
        Ok(())
    }
}

fn concerns(projection: &dyn SqlProjection, request: &Request) -> bool {
    let categories = projection.categories();
    let sees = |stream: usize| {
        categories.iter().any(|category| category == request.streams[stream].0.category())
    };
    request.events.iter().any(|(stream, _)| sees(*stream))
}

fn seen_by(projection: &dyn SqlProjection, events: &[Recorded]) -> Vec<Recorded> {
    let categories = projection.categories();
    let seen = |event: &&Recorded| categories.iter().any(|name| name == event.stream.category());
    events.iter().filter(seen).cloned().collect()
}

/// The events before they have a place in the log.
fn provisional(request: &Request) -> Vec<Recorded> {
    let streams = &request.streams;
    let events = request.events.iter();
    events.map(|(stream, event)| event.provisional(&streams[*stream].0, Version::NONE)).collect()
}

/// SQLSTATEs that the functions for inline projections raise.
const BYPASSES_INLINE: &str = "AN011";
const INLINE_REMOVED: &str = "AN012";

/// The refusal of an append for the sake of inline projections, if the error is one.
pub(super) fn refusal(error: &tokio_postgres::Error) -> Option<Error> {
    let error = error.as_db_error()?;
    let names = || error.detail().unwrap_or_default().to_owned();
    match error.code().code() {
        BYPASSES_INLINE => Some(Error::BypassesInline { projections: names() }),
        INLINE_REMOVED => Some(Error::InlineRemoved { projection: names() }),
        _ => None,
    }
}

fn refused(action: &'static str, error: tokio_postgres::Error) -> Error {
    refusal(&error).unwrap_or_else(|| database_error(action, error))
}

/// Nothing is committed yet, so trying again is safe wherever it may help.
fn failed(
    projection: &dyn SqlProjection,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> Error {
    let first: &(dyn std::error::Error + 'static) = &*source;
    let causes = std::iter::successors(Some(first), |error| error.source());
    let retryable =
        causes.filter_map(|cause| cause.downcast_ref::<tokio_postgres::Error>()).any(|error| {
            is_lost(error) && error.as_db_error().is_some()
                || error.is_closed()
                || error.code().is_some_and(is_transient)
        });
    Error::Inline { projection: projection.name().to_owned(), source, retryable }
}
