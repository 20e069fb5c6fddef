//! The row of a saga: what of it is due, beside the stream that says what it is.

use annals_eventstore::postgres::{Database, GenericClient};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Instance, SagaStatus, Wish, instance::Pending, machine::Sent};
use crate::error::Error;

/// A row that the transaction has locked.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// `None` for a saga that is new.
    pub(super) status: Option<SagaStatus>,
    /// How often the pending call was begun.
    pub(super) attempts: i32,
    pub(super) call_due: Option<DateTime<Utc>>,
    pub(super) claimed_by: Option<Uuid>,
    pub(super) asked: Option<(Wish, String)>,
}

impl Row {
    pub(super) fn is_ended(&self) -> bool {
        self.status.is_some_and(SagaStatus::is_ended)
    }

    /// Whether anybody has begun to make the pending call.
    pub(super) fn sent(&self, pending: Option<&Pending>) -> Sent {
        match pending {
            Some(Pending { failures: 0, retries: 0, .. }) if self.attempts == 0 => Sent::No,
            _ => Sent::Maybe,
        }
    }

    /// What is due of the pending call now that something has happened. As long as it is the same call, whoever
    /// makes it keeps it.
    pub(super) fn call(
        &mut self,
        before: Option<&Pending>,
        after: Option<&Pending>,
        now: DateTime<Utc>,
    ) {
        let Some(after) = after else {
            (self.attempts, self.call_due, self.claimed_by) = (0, None, None);
            return;
        };
        let due = after.due.map(|due| due.max(now));
        match before.filter(|before| before.id == after.id) {
            Some(before) if before.retries == after.retries => {
                if before.failures != after.failures || due.is_none() {
                    (self.call_due, self.claimed_by) = (due, None);
                } else if before.due != after.due && self.claimed_by.is_none() {
                    self.call_due = due;
                }
            }
            _ => (self.attempts, self.call_due, self.claimed_by) = (0, due, None),
        }
    }

    /// The call is to be tried later, and this attempt does not count; but that it may have had an effect is not
    /// forgotten.
    pub(super) fn put_off(&mut self, until: DateTime<Utc>, sent: Sent) {
        let least = match sent {
            Sent::No => 0,
            Sent::Maybe => 1,
        };
        self.attempts = (self.attempts - 1).max(least);
        (self.call_due, self.claimed_by) = (Some(until), None);
    }
}

/// Locks the rows of sagas, in the order of their keys.
pub(super) async fn lock(
    database: &Database,
    client: &impl GenericClient,
    saga: &str,
    keys: &[String],
) -> Result<Vec<(String, Row)>, Error> {
    let failed = |source| Error::Bookkeeping { action: "lock sagas", source };
    let sql = database.schema().sql(include_str!("sql/lock.sql"));
    let statement = client.prepare_cached(&sql).await.map_err(failed)?;
    let rows = client.query(&statement, &[&saga, &keys]).await.map_err(failed)?;
    let row = |row: tokio_postgres::Row| {
        let asked = row.get::<_, Option<&str>>(5).and_then(Wish::of);
        let locked = Row {
            status: Some(SagaStatus::of(row.get(1))),
            attempts: row.get(2),
            call_due: row.get(3),
            claimed_by: row.get(4),
            asked: asked.zip(row.get::<_, Option<String>>(6).or(Some(String::new()))),
        };
        (row.get(0), locked)
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Rows to be written at once.
#[derive(Debug, Default)]
pub(super) struct Rows {
    keys: Vec<String>,
    statuses: Vec<&'static str>,
    steps: Vec<Option<String>>,
    reasons: Vec<Option<String>>,
    attempts: Vec<i32>,
    calls: Vec<Option<DateTime<Utc>>>,
    claims: Vec<Option<Uuid>>,
    looks: Vec<Option<DateTime<Utc>>>,
    asked: Vec<Option<&'static str>>,
    whys: Vec<Option<String>>,
}

impl Rows {
    pub(super) fn push<S>(&mut self, key: &str, row: &Row, instance: &Instance<S>) {
        self.keys.push(key.to_owned());
        self.statuses.push(instance.status.as_str());
        self.steps.push(instance.step().map(ToOwned::to_owned));
        // PostgreSQL's text holds no NUL.
        self.reasons.push(instance.reason().map(|reason| reason.replace('\0', "\u{fffd}")));
        self.attempts.push(row.attempts);
        self.calls.push(row.call_due);
        self.claims.push(row.claimed_by);
        // What is asked and not done yet is looked at next.
        let asked = row.asked.as_ref();
        self.looks.push(asked.map_or(instance.next_timer(), |_| Some(DateTime::UNIX_EPOCH)));
        self.asked.push(asked.map(|(wish, _)| wish.as_str()));
        self.whys.push(asked.map(|(_, why)| why.clone()));
    }

    pub(super) async fn write(
        &self,
        database: &Database,
        client: &impl GenericClient,
        saga: &str,
    ) -> Result<(), Error> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let failed = |source| Error::Bookkeeping { action: "note what is due of sagas", source };
        let sql = database.schema().sql(include_str!("sql/write.sql"));
        let statement = client.prepare_cached(&sql).await.map_err(failed)?;
        let Self { keys, statuses, steps, reasons, attempts, calls, claims, .. } = self;
        let Self { looks, asked, whys, .. } = self;
        let written = client
            .execute(
                &statement,
                &[
                    &saga, keys, statuses, steps, reasons, attempts, calls, claims, looks, asked,
                    whys,
                ],
            )
            .await;
        written.map(drop).map_err(failed)
    }
}
