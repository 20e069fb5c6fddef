//! Each event in the log, in the order of positions.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures::TryStreamExt;
use tokio_postgres::{Row, types::ToSql};

use super::Run;
use crate::{
    error::Error,
    event::Metadata,
    ids::{Position, StreamId, Version},
    postgres::page::JsonText,
    verify::{Check, Entry, Finding, LogAudit, Subject, Unchecked, undecodable},
};

/// How many events are asked for at a time. They are looked at as they come.
const EVENTS: i64 = 2000;

impl Run<'_> {
    pub(super) async fn log(&mut self) -> Result<(), Error> {
        let decoders = self.plan.subjects.decoders();
        let mut reading = Reading {
            decoders,
            audit: LogAudit::default(),
            not_given: BTreeMap::new(),
            events: 0,
            decoded: 0,
            findings: Vec::new(),
        };
        // Below every position.
        let mut from = i64::MIN;
        loop {
            let page = self.log_page(from, &mut reading).await;
            let Some(next) = self.seen(Check::Log, page)? else { return Ok(()) };
            reading.findings.drain(..).for_each(|finding| self.recorder.found(finding));
            self.recorder.looked_at(Check::Log, std::mem::take(&mut reading.events));
            self.recorder.looked_at(Check::Payloads, std::mem::take(&mut reading.decoded));
            let of = self.up_to.get() as u64;
            let Some(next) = next else {
                self.recorder.progress(Check::Log, of, Some(of));
                break;
            };
            from = next;
            self.recorder.progress(Check::Log, from.max(0) as u64, Some(of));
        }
        for (category, events) in reading.not_given {
            self.recorder.unchecked(Unchecked::Payloads { category, events });
        }
        Ok(())
    }

    /// Reads a page; returns from where to go on, if there may be more.
    ///
    /// A position that is taken twice is in both tables. One statement must see both: between two, an
    /// event may move to the other table. So the last position of a full page is left to the next.
    async fn log_page(
        &self,
        from: i64,
        reading: &mut Reading<'_>,
    ) -> Result<Option<i64>, tokio_postgres::Error> {
        let sql = self.schema.sql(include_str!("../sql/verify/log.sql"));
        let statement = self.client.prepare_cached(&sql).await?;
        let categories: Vec<&str> = reading.decoders.keys().copied().collect();
        let up_to = self.up_to.get();
        let params: [&(dyn ToSql + Sync); 4] = [&from, &up_to, &EVENTS, &categories];
        let rows = self.client.query_raw(&statement, params).await?;
        let mut rows = std::pin::pin!(rows);
        // Those read and not looked at, all of one position.
        let (mut count, mut last, mut waiting) = (0, from, Vec::new());
        while let Some(row) = rows.try_next().await? {
            count += 1;
            let position = row.try_get(0)?;
            if position != last {
                for row in waiting.drain(..) {
                    reading.event(&row)?;
                }
                last = position;
            }
            waiting.push(row);
        }
        if count == EVENTS {
            return Ok(Some(last));
        }
        for row in waiting {
            reading.event(&row)?;
        }
        Ok(None)
    }
}

/// What goes on from page to page.
struct Reading<'a> {
    decoders: HashMap<&'static str, Vec<&'a dyn Subject>>,
    audit: LogAudit,
    /// How many events there are of each category whose events are not decoded.
    not_given: BTreeMap<String, u64>,
    events: u64,
    decoded: u64,
    findings: Vec<Finding>,
}

impl Reading<'_> {
    fn event(&mut self, row: &Row) -> Result<(), tokio_postgres::Error> {
        self.events += 1;
        let position = Position::new(row.try_get(0)?);
        let version = Version::new(row.try_get(1)?);
        let recorded_at = row.try_get(2)?;
        let category: Option<&str> = row.try_get(4)?;
        let key: Option<&str> = row.try_get(5)?;
        let stream = || Some(StreamId::stored(Arc::from(category?), key?));
        let entry = Entry { position, version, recorded_at };
        self.findings.extend(self.audit.next(entry, stream));
        if let Some(metadata) = row.try_get::<_, Option<&str>>(6)?
            && let Err(error) = serde_json::from_str::<Metadata>(metadata)
        {
            let (stream, reason) = (stream(), error.to_string());
            self.findings.push(Finding::MetadataUnreadable { stream, version, position, reason });
        }
        let Some(category) = category else {
            let stream_id = row.try_get(3)?;
            self.findings.push(Finding::EventWithoutStream { position, version, stream_id });
            return Ok(());
        };
        let Some(decoders) = self.decoders.get(category) else {
            match self.not_given.get_mut(category) {
                Some(events) => *events += 1,
                None => drop(self.not_given.insert(category.to_owned(), 1)),
            }
            return Ok(());
        };
        self.decoded += 1;
        let event_type: &str = row.try_get(8)?;
        let schema_version = row.try_get::<_, i32>(7)? as u32;
        let JsonText(payload) = row.try_get(9)?;
        if let Some(reason) = undecodable(decoders, event_type, schema_version, &payload)
            && let Some(stream) = stream()
        {
            let event_type = event_type.to_owned();
            self.findings.push(Finding::Undecodable {
                stream,
                version,
                position,
                event_type,
                schema_version,
                reason,
            });
        }
        Ok(())
    }
}
