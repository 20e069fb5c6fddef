//! How far a reader of the log has come.

use std::time::Duration;

use super::{Database, GenericClient, Prepared, database_error};
#[cfg(feature = "fail-points")]
use crate::testkit::faults::Injected;
use crate::{error::Error, fail_points::fail_point, ids::Position};

/// How long to wait before the next look at a checkpoint that is locked.
const LOCKED: Duration = Duration::from_millis(20);

/// The checkpoint of one reader: everything up to its position has been dealt with.
///
/// It moves only from where this reader left it, and only in the epoch of this reader's lease, so a
/// reader that was replaced while it slept changes nothing when it wakes up. Advance it in the
/// transaction that writes what the events led to.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    name: String,
    position: Position,
    epoch: i64,
    advance: String,
    close: String,
    check: String,
    hold: String,
}

impl Checkpoint {
    /// Takes over the checkpoint in the given epoch, creating it at the start of the log. From now
    /// on, holders from earlier epochs are fenced. Waits for a transaction in which an earlier holder
    /// moves it.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a later epoch has taken over already.
    pub async fn take_over(database: &Database, name: &str, epoch: i64) -> Result<Self, Error> {
        let position = take_over(database, name, epoch).await?;
        Ok(Self::at(database, name, position, epoch))
    }

    /// The same in the caller's transaction, so that it is created together with what it is of.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a later epoch has taken over already; roll the transaction back then.
    pub async fn take_over_in(
        database: &Database,
        transaction: &impl GenericClient,
        name: &str,
        epoch: i64,
    ) -> Result<Self, Error> {
        let sql = database.schema().sql(
            "insert into {schema}.checkpoints as c (name, position, epoch) values ($1, 0, $2)
             on conflict (name) do update set epoch = excluded.epoch where c.epoch <= excluded.epoch
             returning position",
        );
        let rows = transaction.query(&sql, &[&name, &epoch]).await;
        let rows = rows.map_err(|error| database_error("take over a checkpoint", error))?;
        let row = rows.first().ok_or_else(|| Error::Fenced { name: name.to_owned() })?;
        Ok(Self::at(database, name, Position::new(row.get(0)), epoch))
    }

    fn at(database: &Database, name: &str, position: Position, epoch: i64) -> Self {
        let check = "select from {schema}.checkpoints where name = $1 and epoch = $2";
        let check = database.schema().sql(check);
        Self {
            name: name.to_owned(),
            position,
            epoch,
            advance: database.schema().sql(
                "update {schema}.checkpoints set position = $3, updated_at = clock_timestamp()
                 where name = $1 and position = $2 and epoch = $4",
            ),
            hold: format!("{check} for share"),
            check,
            close: database.schema().sql(
                "update {schema}.checkpoints set epoch = $3, updated_at = clock_timestamp()
                 where name = $1 and position = $2 and epoch = $4",
            ),
        }
    }

    /// The position of a checkpoint; `None` if there is none of this name.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn position_of(database: &Database, name: &str) -> Result<Option<Position>, Error> {
        let sql =
            database.schema().sql("select position from {schema}.checkpoints where name = $1");
        let row = database
            .client()
            .await?
            .query_opt(&sql, &[&name])
            .await
            .map_err(|error| database_error("read a checkpoint", error))?;
        Ok(row.map(|row| Position::new(row.get(0))))
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Moves it in the caller's transaction. Call [`Checkpoint::moved`] once that is committed.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another reader has taken over; roll the transaction back then.
    pub async fn advance(
        &self,
        transaction: &impl GenericClient,
        to: Position,
    ) -> Result<(), Error> {
        let ready = self.prepare(transaction).await?;
        self.advance_ready(transaction, &ready, to).await
    }

    /// Makes the statement that moves it ready, for [`advance_ready`](Self::advance_ready).
    ///
    /// # Errors
    /// If the database fails.
    pub async fn prepare(&self, transaction: &impl GenericClient) -> Result<Prepared, Error> {
        let prepared = transaction.prepare_cached(&self.advance).await;
        prepared.map_err(|error| database_error("move a checkpoint", error))
    }

    /// As [`advance`](Self::advance), and it is sent when the future is polled first: what is polled after
    /// it on the same connection comes behind it, without waiting for its answer.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub async fn advance_ready(
        &self,
        transaction: &impl GenericClient,
        ready: &Prepared,
        to: Position,
    ) -> Result<(), Error> {
        fail_point!("checkpoint-moving", |_| Err(Injected::at("checkpoint-moving").into()));
        let moved = transaction
            .execute(ready, &[&self.name, &self.position.get(), &to.get(), &self.epoch])
            .await
            .map_err(|error| database_error("move a checkpoint", error))?;
        fail_point!("checkpoint-moved", |_| Err(Injected::at("checkpoint-moved").into()));
        if moved == 1 { Ok(()) } else { Err(Error::Fenced { name: self.name.clone() }) }
    }

    /// Ends it at the end of the caller's transaction, where it stands: no reader of any epoch moves it
    /// from then on. A projection that runs inline needs none.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another reader has taken over; roll the transaction back then.
    pub async fn close(&self, transaction: &impl GenericClient) -> Result<(), Error> {
        // The reader's own epoch is compared, and no lease comes to this one.
        let closed = transaction
            .execute(&self.close, &[&self.name, &self.position.get(), &i64::MAX, &self.epoch])
            .await
            .map_err(|error| database_error("close a checkpoint", error))?;
        if closed == 1 { Ok(()) } else { Err(Error::Fenced { name: self.name.clone() }) }
    }

    /// Makes sure that no other reader has taken over, and that none does before the caller's transaction
    /// ends, for what is written without moving the checkpoint.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another reader has taken over; roll the transaction back then.
    pub async fn hold(&self, transaction: &impl GenericClient) -> Result<(), Error> {
        let held = transaction.query(&self.hold, &[&self.name, &self.epoch]).await;
        let held = held.map_err(|error| database_error("hold a checkpoint", error))?;
        if held.len() == 1 { Ok(()) } else { Err(Error::Fenced { name: self.name.clone() }) }
    }

    /// Makes sure that no other reader has taken over by now. One that has nothing to write would not notice.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another reader has taken over.
    pub async fn check(&self, client: &impl GenericClient) -> Result<(), Error> {
        let held = client.query(&self.check, &[&self.name, &self.epoch]).await;
        let held = held.map_err(|error| database_error("check a checkpoint", error))?;
        if held.len() == 1 { Ok(()) } else { Err(Error::Fenced { name: self.name.clone() }) }
    }

    /// Notes that the move to this position is committed.
    pub fn moved(&mut self, to: Position) {
        self.position = to;
    }
}

/// Sets the epoch of a checkpoint. Where it is locked, it looks again and again: who waits inside the
/// database keeps a connection that others need to renew their leases.
async fn take_over(database: &Database, name: &str, epoch: i64) -> Result<Position, Error> {
    let failed = |error| database_error("take over a checkpoint", error);
    let sql = database.schema().sql(include_str!("sql/take_over.sql"));
    let begin = database.schema().sql(
        "insert into {schema}.checkpoints (name, position, epoch) values ($1, 0, $2)
         on conflict (name) do nothing returning position",
    );
    loop {
        let client = database.bookkeeping().await?;
        let row = client.query_opt(&sql, &[&name, &epoch]).await.map_err(failed)?;
        let Some(row) = row else {
            match client.query_opt(&begin, &[&name, &epoch]).await.map_err(failed)? {
                Some(row) => return Ok(Position::new(row.get(0))),
                // Another was faster.
                None => continue,
            }
        };
        drop(client);
        match (row.get::<_, Option<i64>>(0), row.get(1)) {
            (Some(position), _) => return Ok(Position::new(position)),
            (None, true) => return Err(Error::Fenced { name: name.to_owned() }),
            (None, false) => tokio::time::sleep(LOCKED).await,
        }
    }
}
