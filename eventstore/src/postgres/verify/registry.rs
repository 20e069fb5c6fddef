//! What the order of the log rests on: counters, registrations, checkpoints.

use std::time::{Duration, Instant};

use super::Run;
use crate::{
    error::Error,
    ids::Position,
    verify::{Check, Finding, Registration},
};

/// The appends that were in flight at a moment.
pub(super) struct Seen {
    at: Instant,
    registrations: Vec<Registration>,
}

impl Run<'_> {
    /// Who is registered. It is looked at twice, at the beginning and at the end.
    pub(super) async fn registrations(&mut self) -> Result<Option<Seen>, Error> {
        let registered = self.registered().await;
        let registered = self.seen(Check::Registry, registered)?;
        Ok(registered.map(|registrations| Seen { at: Instant::now(), registrations }))
    }

    /// Everything else, with the registrations seen at the beginning.
    pub(super) async fn registry(&mut self, before: Option<Seen>) -> Result<(), Error> {
        if let Some(before) = before {
            self.stuck(before).await?;
        }
        for part in [
            self.store_row().await,
            self.counter().await,
            self.recovery().await,
            self.checkpoints().await,
        ] {
            let Some((looked_at, findings)) = self.seen(Check::Registry, part)? else { continue };
            self.recorder.looked_at(Check::Registry, looked_at);
            findings.into_iter().for_each(|finding| self.recorder.found(finding));
        }
        Ok(())
    }

    /// Whose registration was there at the beginning, is there still, and is old.
    async fn stuck(&mut self, before: Seen) -> Result<(), Error> {
        let now = self.registered().await;
        let Some(now) = self.seen(Check::Registry, now)? else { return Ok(()) };
        self.recorder.looked_at(Check::Registry, now.len() as u64);
        let between = before.at.elapsed();
        for registration in &now {
            let is_same = |other: &&Registration| {
                other.position == registration.position
                    && other.pid == registration.pid
                    && other.prepared == registration.prepared
            };
            if before.registrations.iter().any(|other| is_same(&other))
                && registration.age.max(Some(between)) >= Some(self.plan.stuck_after)
            {
                let registration = registration.clone();
                self.recorder.found(Finding::StuckAppend { registration });
            }
        }
        self.recorder.in_flight(now);
        Ok(())
    }

    async fn registered(&self) -> Result<Vec<Registration>, tokio_postgres::Error> {
        let sql = self.schema.sql(include_str!("../sql/verify/registrations.sql"));
        let rows = self.client.query(&sql, &[]).await?;
        let registration = |row: &tokio_postgres::Row| Registration {
            position: Position::new(row.get(0)),
            pid: row.get(1),
            prepared: row.get(2),
            application: row.get(3),
            state: row.get(4),
            age: row.get::<_, Option<f64>>(5).map(|age| Duration::from_secs_f64(age.max(0.0))),
        };
        Ok(rows.iter().map(registration).collect())
    }

    async fn store_row(&self) -> Result<(u64, Vec<Finding>), tokio_postgres::Error> {
        let sql = self.schema.sql("select count(*) from {schema}.store");
        let rows: i64 = self.client.query_one(&sql, &[]).await?.get(0);
        Ok((1, if rows == 1 { Vec::new() } else { vec![Finding::StoreRowMissing] }))
    }

    /// First the events and then the counter: it was there before them.
    async fn counter(&self) -> Result<(u64, Vec<Finding>), tokio_postgres::Error> {
        let sql = self.schema.sql(
            "select coalesce(greatest((select max(position) from {schema}.events),
                 (select max(position) from {schema}.archived_events)), 0)",
        );
        let highest: i64 = self.client.query_one(&sql, &[]).await?.get(0);
        let last = self.last_position().await?;
        let sql = "select s.seqcache from pg_catalog.pg_sequence s
             join pg_catalog.pg_class c on c.oid = s.seqrelid
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace
             where n.nspname = $1 and c.relname = 'positions'";
        let cache: i64 = self.client.query_one(sql, &[&self.schema.name()]).await?.get(0);
        let mut findings = Vec::new();
        if last < highest {
            let (last, highest) = (Position::new(last), Position::new(highest));
            findings.push(Finding::CounterBehind { last, highest });
        }
        if cache != 1 {
            findings.push(Finding::CounterCached { cache });
        }
        Ok((2, findings))
    }

    /// The mark does its work only where a crash resets it.
    async fn recovery(&self) -> Result<(u64, Vec<Finding>), tokio_postgres::Error> {
        let sql = "select c.relpersistence = 'u' from pg_catalog.pg_class c
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace
             where n.nspname = $1 and c.relname = 'recovered' and c.relkind = 'S'";
        let row = self.client.query_opt(sql, &[&self.schema.name()]).await?;
        let is_unlogged = row.is_some_and(|row| row.get(0));
        Ok((1, if is_unlogged { Vec::new() } else { vec![Finding::RecoveryMarkLogged] }))
    }

    /// First the readers and then the counter: none can have come further.
    async fn checkpoints(&self) -> Result<(u64, Vec<Finding>), tokio_postgres::Error> {
        let sql = self.schema.sql("select name, position from {schema}.checkpoints order by name");
        let rows = self.client.query(&sql, &[]).await?;
        let last = self.last_position().await?;
        let ahead = rows.iter().filter(|row| row.get::<_, i64>(1) > last);
        let findings = ahead.map(|row| Finding::CheckpointAhead {
            reader: row.get(0),
            at: Position::new(row.get(1)),
            last: Position::new(last),
        });
        Ok((rows.len() as u64, findings.collect()))
    }

    async fn last_position(&self) -> Result<i64, tokio_postgres::Error> {
        let sql = self.schema.sql("select {schema}.last_position()");
        Ok(self.client.query_one(&sql, &[]).await?.get(0))
    }
}
