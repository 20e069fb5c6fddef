//! What holds from one event of the log to the next, and the audit of a log in memory.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;

use super::{Check, Finding, Plan, Recorder, Unchecked, undecodable};
use crate::{
    error::Error,
    ids::{Position, StreamId, Version},
    query::EventQuery,
    store::EventStore,
};

/// The place of an event in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) position: Position,
    pub(crate) version: Version,
    pub(crate) recorded_at: DateTime<Utc>,
}

/// Goes through the log by position.
#[derive(Debug, Default)]
pub(crate) struct LogAudit {
    last: Option<(Position, DateTime<Utc>)>,
}

impl LogAudit {
    /// What is wrong with the next event. Of its stream, `stream` tells.
    pub(crate) fn next(
        &mut self,
        entry: Entry,
        stream: impl FnOnce() -> Option<StreamId>,
    ) -> Option<Finding> {
        let Entry { position, version, recorded_at } = entry;
        let (last, before) = self.last.replace((position, recorded_at))?;
        if position <= last {
            return Some(Finding::PositionTwice { position, stream: stream(), version });
        }
        (recorded_at < before).then(|| Finding::TimeWentBack {
            position,
            stream: stream(),
            version,
            recorded_at,
            before,
        })
    }
}

/// Audits a store whose log nothing but the store can get at.
pub(super) async fn in_memory(
    store: &EventStore,
    plan: &Plan,
    recorder: &mut Recorder,
) -> Result<(), Error> {
    let up_to = store.safe_position().await?;
    recorder.up_to(up_to);
    let decoders = plan.subjects.decoders();
    let (mut audit, mut versions) = (LogAudit::default(), HashMap::<StreamId, Version>::new());
    let mut not_given = BTreeMap::<String, u64>::new();
    recorder.looked_at(Check::Log, 0);
    recorder.looked_at(Check::Payloads, 0);
    let log = EventQuery::log().include_archived().up_to(up_to);
    let mut events = std::pin::pin!(store.read(log));
    while let Some(event) = events.try_next().await? {
        let (position, version, stream) = (event.position, event.version, event.stream.clone());
        recorder.looked_at(Check::Log, 1);
        let entry = Entry { position, version, recorded_at: event.recorded_at };
        if let Some(finding) = audit.next(entry, || Some(stream.clone())) {
            recorder.found(finding);
        }
        let before = versions.entry(stream.clone()).or_default();
        if version <= *before {
            recorder.found(Finding::VersionTwice { stream: stream.clone(), version, position });
        } else if version > before.plus(1) {
            let (stream, after, next) = (stream.clone(), *before, version);
            recorder.found(Finding::VersionGap { stream, after, next, position });
        }
        *before = version;
        match decoders.get(stream.category()) {
            None => *not_given.entry(stream.category().to_owned()).or_default() += 1,
            Some(decoders) => {
                recorder.looked_at(Check::Payloads, 1);
                let (event_type, schema_version) = (&*event.event_type, event.schema_version);
                if let Some(reason) =
                    undecodable(decoders, event_type, schema_version, &event.event)
                {
                    let event_type = event_type.to_owned();
                    recorder.found(Finding::Undecodable {
                        stream,
                        version,
                        position,
                        event_type,
                        schema_version,
                        reason,
                    });
                }
            }
        }
        recorder.progress(Check::Log, position.get() as u64, Some(up_to.get() as u64));
    }
    recorder.looked_at(Check::Streams, versions.len() as u64);
    for (category, events) in not_given {
        recorder.unchecked(Unchecked::Payloads { category, events });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn positions_rise_and_times_do_not_fall() {
        let mut audit = LogAudit::default();
        let mut next = |position, second| {
            let recorded_at = DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
            let (position, version) = (Position::new(position), Version::new(1));
            audit.next(Entry { position, version, recorded_at }, || None).map(|f| f.kind())
        };
        assert_eq!(next(1, 5), None);
        assert_eq!(next(3, 5), None);
        assert_eq!(next(3, 5), Some("position_twice"));
        assert_eq!(next(4, 4), Some("time_went_back"));
        assert_eq!(next(5, 4), None);
    }
}
