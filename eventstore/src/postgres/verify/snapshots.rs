//! Each snapshot: whether there is the event that it is of, and whether it is the fold up to there.

use std::{collections::BTreeMap, sync::Arc};

use futures::TryStreamExt;
use tokio_postgres::{Row, types::ToSql};

use super::{PAGE, Run};
use crate::{
    backend::StoredEvent,
    error::Error,
    ids::{Position, StreamId, Version},
    postgres::page::{JsonText, Names},
    verify::{Check, Compared, Finding, Fold, Subject, Unchecked},
};

/// A snapshot without its state.
struct Snapshot {
    stream_id: i64,
    stream: StreamId,
    name: String,
    version: Version,
    position: Position,
    fingerprint: Vec<u8>,
}

/// A fold that the next snapshot of the same stream and name goes on with.
struct Folding {
    stream_id: i64,
    name: String,
    fingerprint: Vec<u8>,
    fold: Box<dyn Fold>,
    version: Version,
    position: Position,
}

/// Why snapshots were not compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    NotGiven,
    Outdated,
    Unfoldable,
}

impl Run<'_> {
    pub(super) async fn snapshots(&mut self) -> Result<(), Error> {
        self.recorder.looked_at(Check::Snapshots, 0);
        self.recorder.looked_at(Check::States, 0);
        let mut left = BTreeMap::<(Left, String, String), u64>::new();
        let mut folding = None;
        let (mut after, mut done) = ((i64::MIN, String::new(), 0), 0);
        loop {
            let page = self.snapshot_page(&after).await;
            let Some(rows) = self.seen(Check::Snapshots, page)? else { break };
            for row in &rows {
                done += 1;
                self.recorder.looked_at(Check::Snapshots, 1);
                let Some(snapshot) = self.placed(row) else { continue };
                let why = self.compare(&snapshot, &mut folding).await;
                if let Some(Some(why)) = self.seen(Check::States, why)? {
                    let category = snapshot.stream.category().to_owned();
                    *left.entry((why, category, snapshot.name)).or_default() += 1;
                }
            }
            self.recorder.progress(Check::Snapshots, done, None);
            match rows.last() {
                Some(row) if rows.len() as i64 == PAGE => {
                    after = (row.get(0), row.get(1), row.get(2));
                }
                _ => break,
            }
        }
        for ((why, category, name), snapshots) in left {
            self.recorder.unchecked(match why {
                Left::NotGiven => Unchecked::Snapshots { category, name, snapshots },
                Left::Outdated => Unchecked::OutdatedSnapshots { category, name, snapshots },
                Left::Unfoldable => Unchecked::Unfoldable { category, name, snapshots },
            });
        }
        Ok(())
    }

    async fn snapshot_page(
        &self,
        (stream, name, version): &(i64, String, i64),
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let sql = self.schema.sql(include_str!("../sql/verify/snapshots.sql"));
        let statement = self.client.prepare_cached(&sql).await?;
        self.client.query(&statement, &[stream, name, version, &PAGE]).await
    }

    /// A snapshot that is of an event.
    fn placed(&mut self, row: &Row) -> Option<Snapshot> {
        let name: String = row.get(1);
        let (version, position) = (Version::new(row.get(2)), Position::new(row.get(3)));
        let stream = row.get::<_, Option<&str>>(5).zip(row.get::<_, Option<&str>>(6));
        let stream = stream.map(|(category, key)| StreamId::stored(Arc::from(category), key));
        if !row.get::<_, bool>(7) {
            self.recorder.found(Finding::SnapshotWithoutEvent { stream, name, version, position });
            return None;
        }
        let (stream_id, fingerprint) = (row.get(0), row.get(4));
        Some(Snapshot { stream_id, stream: stream?, name, version, position, fingerprint })
    }

    /// Compares a snapshot with the fold of its events, or says why not.
    async fn compare(
        &mut self,
        snapshot: &Snapshot,
        folding: &mut Option<Folding>,
    ) -> Result<Option<Left>, tokio_postgres::Error> {
        let category = snapshot.stream.category();
        let mut named = self.plan.subjects.iter().filter_map(|subject| {
            let kind = subject.snapshots()?;
            (subject.category() == category && kind.name == snapshot.name)
                .then_some((subject, kind))
        });
        let Some(first) = named.next() else { return Ok(Some(Left::NotGiven)) };
        let is_of_this = |kind: &[u8]| kind == snapshot.fingerprint;
        let mut all = std::iter::once(first).chain(named);
        let Some((subject, _)) = all.find(|(_, kind)| is_of_this(&kind.fingerprint)) else {
            return Ok(Some(Left::Outdated));
        };
        let Some(stored) = self.state(snapshot).await? else { return Ok(None) };
        let Some(fold) = self.fold(subject, snapshot, folding).await? else {
            return Ok(Some(Left::Unfoldable));
        };
        self.recorder.looked_at(Check::States, 1);
        let Snapshot { stream, name, version, position, .. } = snapshot;
        let (stream, name) = (stream.clone(), name.clone());
        let (version, position) = (*version, *position);
        match fold.compare(&stored) {
            Compared::Same => {}
            Compared::Unreadable(reason) => self.recorder.found(Finding::SnapshotUnreadable {
                stream,
                name,
                version,
                position,
                reason,
            }),
            Compared::Differs(at) => {
                self.recorder.found(Finding::SnapshotDiffers {
                    stream,
                    name,
                    version,
                    position,
                    at,
                });
            }
        }
        Ok(None)
    }

    /// The stored state; `None` if the snapshot was replaced meanwhile.
    async fn state(&self, snapshot: &Snapshot) -> Result<Option<Vec<u8>>, tokio_postgres::Error> {
        let sql = self.schema.sql(include_str!("../sql/verify/state.sql"));
        let statement = self.client.prepare_cached(&sql).await?;
        let Snapshot { stream_id, name, version, fingerprint, .. } = snapshot;
        let version = version.get();
        let row =
            self.client.query_opt(&statement, &[stream_id, name, &version, fingerprint]).await?;
        let Some(row) = row else { return Ok(None) };
        let JsonText(state) = row.try_get(1)?;
        Ok(Some(state.as_bytes().to_vec()))
    }

    /// Folds up to a snapshot, on from the one before it; `None` if not all its events can be folded.
    async fn fold<'a>(
        &self,
        subject: &dyn Subject,
        snapshot: &Snapshot,
        folding: &'a mut Option<Folding>,
    ) -> Result<Option<&'a dyn Fold>, tokio_postgres::Error> {
        let mut state = match folding.take() {
            Some(state)
                if state.stream_id == snapshot.stream_id
                    && state.name == snapshot.name
                    && state.fingerprint == snapshot.fingerprint
                    && state.version <= snapshot.version =>
            {
                state
            }
            _ => Folding {
                stream_id: snapshot.stream_id,
                name: snapshot.name.clone(),
                fingerprint: snapshot.fingerprint.clone(),
                fold: subject.begin(),
                version: Version::NONE,
                position: Position::START,
            },
        };
        let sql = self.schema.sql(include_str!("../sql/verify/history.sql"));
        let statement = self.client.prepare_cached(&sql).await?;
        let mut names = Names::default();
        while state.version < snapshot.version {
            let (after, up_to) = (state.version.get(), snapshot.version.get());
            let params: [&(dyn ToSql + Sync); 4] = [&snapshot.stream_id, &after, &up_to, &PAGE];
            let rows = self.client.query_raw(&statement, params).await?;
            let mut rows = std::pin::pin!(rows);
            while let Some(row) = rows.try_next().await? {
                let JsonText(payload) = row.try_get(4)?;
                let event = StoredEvent {
                    version: Version::new(row.try_get(0)?),
                    position: Position::new(row.try_get(1)?),
                    event_type: names.get(row.try_get(2)?),
                    schema_version: row.try_get::<_, i32>(3)? as u32,
                    payload,
                };
                if event.version != state.version.plus(1) || state.fold.apply(&event).is_err() {
                    return Ok(None);
                }
                (state.version, state.position) = (event.version, event.position);
            }
            if state.version.get() == after {
                return Ok(None);
            }
        }
        if state.position != snapshot.position {
            return Ok(None);
        }
        Ok(Some(&*folding.insert(state).fold))
    }
}
