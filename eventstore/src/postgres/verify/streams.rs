//! Each stream: its versions, and where its events are.

use std::sync::Arc;

use tokio_postgres::Row;

use super::{PAGE, Run};
use crate::{
    error::Error,
    ids::{Position, StreamId, Version},
    life::StreamState,
    verify::{Check, Finding},
};

/// How many gaps and repetitions of one stream are named.
const ODD_EVENTS: i64 = 20;

impl Run<'_> {
    pub(super) async fn streams(&mut self) -> Result<(), Error> {
        self.recorder.looked_at(Check::Streams, 0);
        let sql = self.schema.sql("select coalesce(max(id), 0) from {schema}.streams");
        let last = self.client.query_one(&sql, &[]).await.map(|row| row.get::<_, i64>(0));
        let Some(last) = self.seen(Check::Streams, last)? else { return Ok(()) };
        // Below every number.
        let mut at = i64::MIN;
        loop {
            let page = self.stream_page(at).await;
            let Some(rows) = self.seen(Check::Streams, page)? else { return Ok(()) };
            self.recorder.looked_at(Check::Streams, rows.len() as u64);
            for row in rows.iter().filter(|row| !row.get::<_, bool>(1)) {
                // Asked once more, with all about this one.
                let odd = self.odd_stream(row.get(0)).await;
                for finding in self.seen(Check::Streams, odd)?.into_iter().flatten() {
                    self.recorder.found(finding);
                }
            }
            let Some(row) = rows.last().filter(|_| rows.len() as i64 == PAGE) else { break };
            at = row.get(0);
            self.recorder.progress(Check::Streams, at.max(0) as u64, Some(last as u64));
        }
        self.recorder.progress(Check::Streams, last as u64, Some(last as u64));
        Ok(())
    }

    async fn stream_page(&self, after: i64) -> Result<Vec<Row>, tokio_postgres::Error> {
        let sql = self.schema.sql(include_str!("../sql/verify/streams.sql"));
        let statement = self.client.prepare_cached(&sql).await?;
        self.client.query(&statement, &[&after, &PAGE]).await
    }

    /// What is wrong with a stream.
    async fn odd_stream(&self, id: i64) -> Result<Vec<Finding>, tokio_postgres::Error> {
        let sql = self.schema.sql(include_str!("../sql/verify/stream.sql"));
        let rows = self.client.query(&sql, &[&id, &ODD_EVENTS]).await?;
        Ok(rows.first().map(|first| findings(first, &rows)).unwrap_or_default())
    }
}

fn findings(first: &Row, rows: &[Row]) -> Vec<Finding> {
    let stream = StreamId::stored(Arc::from(first.get::<_, &str>(0)), first.get(1));
    let version = |row: &Row, column| Version::new(row.get(column));
    let position = |row: &Row, column| Position::new(row.get(column));
    let mut findings = Vec::new();
    for row in rows.iter().filter(|row| row.get::<_, Option<i64>>(7).is_some()) {
        let (next, after, at) = (version(row, 7), version(row, 9), position(row, 8));
        let (stream, previous) = (stream.clone(), position(row, 10));
        findings.push(if next <= after {
            Finding::VersionTwice { stream, version: next, position: at }
        } else if next > after.plus(1) {
            Finding::VersionGap { stream, after, next, position: at }
        } else {
            Finding::OutOfOrder { stream, version: next, position: at, previous }
        });
    }
    let (said, last) = (version(first, 2), version(first, 4));
    if said != last {
        findings.push(Finding::WrongVersion { stream: stream.clone(), version: said, last });
    }
    let state = StreamState::stored(i64::from(first.get::<_, i16>(3)));
    let column = if state == StreamState::Archived { 5 } else { 6 };
    let events = first.get::<_, i64>(column) as u64;
    if events > 0 {
        findings.push(Finding::Misplaced { stream, state, events });
    }
    findings
}
