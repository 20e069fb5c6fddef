//! The migrations, and what they made to guard the events.

use super::Run;
use crate::{
    error::Error,
    postgres::migrate,
    verify::{Check, Finding},
};

/// A trigger that must be there: its table, its name, when it fires as `pg_trigger.tgtype` says it, and the
/// function that it calls.
struct Guard(&'static str, &'static str, i32, &'static str);

const BEFORE: i32 = 2;
const INSERT: i32 = 4;
const DELETE: i32 = 8;
const UPDATE: i32 = 16;
const TRUNCATE: i32 = 32;

const GUARDS: &[Guard] = &[
    Guard("streams", "streams_stay", BEFORE | DELETE | TRUNCATE, "refuse_change"),
    Guard("events", "events_are_immutable", BEFORE | UPDATE | TRUNCATE, "refuse_change"),
    Guard("events", "events_are_kept", DELETE, "refuse_loss"),
    Guard("archived_events", "events_are_immutable", BEFORE | UPDATE | TRUNCATE, "refuse_change"),
    Guard("archived_events", "events_are_kept", DELETE, "refuse_loss"),
    Guard("checkpoints", "readers_begin", BEFORE | INSERT, "await_archiving"),
];

/// The first inline projection puts it there.
const INLINE: Guard = Guard("events", "inline_projections_see_all", INSERT, "refuse_bypass");

const UNIQUE: &[(&str, &[&str])] = &[
    ("streams", &["id"]),
    ("streams", &["category", "key"]),
    ("events", &["position"]),
    ("events", &["stream_id", "version"]),
    ("archived_events", &["position"]),
    ("archived_events", &["stream_id", "version"]),
    ("idempotency", &["key"]),
    ("checkpoints", &["name"]),
    ("snapshots", &["stream_id", "name", "version"]),
];

impl Run<'_> {
    pub(super) async fn schema(&mut self) -> Result<(), Error> {
        for part in [
            self.migrations().await,
            self.functions().await,
            self.triggers().await,
            self.indexes().await,
        ] {
            let Some((looked_at, findings)) = self.seen(Check::Schema, part)? else { continue };
            self.recorder.looked_at(Check::Schema, looked_at as u64);
            findings.into_iter().for_each(|finding| self.recorder.found(finding));
        }
        Ok(())
    }

    async fn migrations(&self) -> Result<(usize, Vec<Finding>), tokio_postgres::Error> {
        let sql =
            self.schema.sql("select number, checksum from {schema}.migrations order by number");
        let rows = self.client.query(&sql, &[]).await?;
        let known = migrate::checksums();
        let mut findings = Vec::new();
        for (checksum, number) in known.iter().zip(1i32..) {
            match rows.iter().find(|row| row.get::<_, i32>(0) == number) {
                None => findings.push(Finding::MigrationMissing { number }),
                Some(row) if row.get::<_, &[u8]>(1) != checksum => {
                    findings.push(Finding::MigrationChanged { number });
                }
                Some(_) => {}
            }
        }
        let numbers = rows.iter().map(|row| row.get(0));
        let unknown = numbers.filter(|number| !(1..=known.len() as i32).contains(number));
        findings.extend(unknown.map(|number| Finding::MigrationUnknown { number }));
        Ok((known.len(), findings))
    }

    async fn functions(&self) -> Result<(usize, Vec<Finding>), tokio_postgres::Error> {
        let sql = "select p.proname::text, p.prosrc from pg_catalog.pg_proc p
             join pg_catalog.pg_namespace n on n.oid = p.pronamespace where n.nspname = $1";
        let rows = self.client.query(sql, &[&self.schema.name()]).await?;
        let known = migrate::functions(self.schema);
        let differs = known.iter().filter(|(name, body)| {
            !rows
                .iter()
                .any(|row| row.get::<_, &str>(0) == **name && row.get::<_, &str>(1) == *body)
        });
        let findings =
            differs.map(|(name, _)| Finding::FunctionChanged { function: (*name).to_owned() });
        Ok((known.len(), findings.collect()))
    }

    async fn triggers(&self) -> Result<(usize, Vec<Finding>), tokio_postgres::Error> {
        // First what takes a trigger: it is put there in the same transaction.
        let sql = self.schema.sql("select exists (select from {schema}.inline_projections)");
        let has_inline = self.client.query_one(&sql, &[]).await?.get::<_, bool>(0);
        let sql = include_str!("../sql/verify/triggers.sql");
        let rows = self.client.query(sql, &[&self.schema.name()]).await?;
        let guards: Vec<_> = GUARDS.iter().chain(has_inline.then_some(&INLINE)).collect();
        let mut findings = Vec::new();
        for Guard(table, trigger, fires, function) in &guards {
            let mut named = rows
                .iter()
                .filter(|row| row.get::<_, &str>(0) == *table && row.get::<_, &str>(1) == *trigger);
            let (table, name) = ((*table).to_owned(), (*trigger).to_owned());
            let Some(row) = named.next() else {
                findings.push(Finding::TriggerMissing { table, trigger: name });
                continue;
            };
            let (always, never) = (row.get::<_, bool>(2), row.get::<_, bool>(3));
            let is_conditional = row.get::<_, bool>(6);
            let is_this = row.get::<_, i32>(4) == *fires
                && row.get::<_, Option<&str>>(5) == Some(function)
                && !is_conditional;
            // That of inline projections need not fire in a session that replicates.
            let fires = if *trigger == INLINE.1 { !never } else { always };
            if !is_this {
                findings.push(Finding::TriggerChanged { table, trigger: name });
            } else if !fires {
                findings.push(Finding::TriggerDisabled { table, trigger: name });
            }
        }
        Ok((guards.len(), findings))
    }

    async fn indexes(&self) -> Result<(usize, Vec<Finding>), tokio_postgres::Error> {
        let sql = include_str!("../sql/verify/indexes.sql");
        let rows = self.client.query(sql, &[&self.schema.name()]).await?;
        let there: Vec<(&str, Vec<&str>)> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let missing = UNIQUE.iter().filter(|(table, columns)| {
            !there.iter().any(|(one, of)| one == table && of == columns)
        });
        let findings = missing.map(|(table, columns)| Finding::IndexMissing {
            table: (*table).to_owned(),
            columns: columns.iter().map(ToString::to_string).collect(),
        });
        Ok((UNIQUE.len(), findings.collect()))
    }
}
