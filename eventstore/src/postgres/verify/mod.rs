//! Whether what is in the database is what the store promises.
//!
//! A statement sees the database as it was at one moment, and an append, an archiving or a restoring is
//! wholly in it or not at all. So what one statement finds out about a stream or a key is right, whatever
//! goes on meanwhile. What takes several statements, the order of the log, is looked at only up to the safe
//! position, below which no event is added. It goes by pages, so that few statements hold up the
//! vacuum for long.

mod keys;
mod log;
mod registry;
mod schema;
mod snapshots;
mod streams;

use tokio_postgres::error::SqlState;

use super::{Client, Database, Schema, Use, database_error, read};
use crate::{
    error::{Error, chain},
    ids::Position,
    verify::{Check, Plan, Recorder, Unchecked},
};

/// How many rows are asked for at a time.
const PAGE: i64 = 1000;

/// Looks at everything.
pub(crate) async fn verify(
    database: &Database,
    plan: &Plan,
    recorder: &mut Recorder,
) -> Result<(), Error> {
    let database = database.using(Use::Rebuild);
    let up_to = read::position(&database, &database.0.statements.safe_position).await?;
    recorder.up_to(up_to);
    let client = database.client().await?;
    let mut run = Run { client: &client, schema: database.schema(), plan, recorder, up_to };
    run.schema().await?;
    let before = run.registrations().await?;
    run.log().await?;
    run.streams().await?;
    run.keys().await?;
    run.snapshots().await?;
    run.registry(before).await
}

/// A verification under way.
struct Run<'a> {
    client: &'a Client,
    schema: &'a Schema,
    plan: &'a Plan,
    recorder: &'a mut Recorder,
    up_to: Position,
}

impl Run<'_> {
    /// Notes a part of a check that the role may not make; another failure ends the verification.
    fn seen<T>(
        &mut self,
        check: Check,
        part: Result<T, tokio_postgres::Error>,
    ) -> Result<Option<T>, Error> {
        match part {
            Ok(seen) => Ok(Some(seen)),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                let reason = match error.as_db_error() {
                    Some(error) => error.message().to_owned(),
                    None => chain(&error),
                };
                self.recorder.unchecked(Unchecked::Denied { check, reason });
                Ok(None)
            }
            Err(error) => Err(database_error("verify the store", error)),
        }
    }
}
