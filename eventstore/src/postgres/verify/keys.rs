//! Each idempotency key: whether the events that it led to are there.

use tokio_postgres::Row;

use super::{PAGE, Run};
use crate::{
    error::Error,
    ids::Position,
    verify::{Check, Finding},
};

impl Run<'_> {
    pub(super) async fn keys(&mut self) -> Result<(), Error> {
        let (mut after, mut done) = (String::new(), 0);
        loop {
            let page = self.key_page(&after).await;
            let Some(rows) = self.seen(Check::IdempotencyKeys, page)? else { return Ok(()) };
            done += rows.len() as u64;
            self.recorder.looked_at(Check::IdempotencyKeys, rows.len() as u64);
            for row in &rows {
                let (events, found): (i64, i64) = (row.get(2), row.get(3));
                if events != found {
                    self.recorder.found(Finding::KeyWithoutEvents {
                        key: row.get(0),
                        position: Position::new(row.get(1)),
                        events: events.max(0) as u64,
                        found: found.max(0) as u64,
                    });
                }
            }
            self.recorder.progress(Check::IdempotencyKeys, done, None);
            match rows.last() {
                Some(row) if rows.len() as i64 == PAGE => after = row.get(0),
                _ => return Ok(()),
            }
        }
    }

    async fn key_page(&self, after: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
        let sql = self.schema.sql(include_str!("../sql/verify/keys.sql"));
        let statement = self.client.prepare_cached(&sql).await?;
        self.client.query(&statement, &[&after, &PAGE]).await
    }
}
