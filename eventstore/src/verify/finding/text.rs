//! What a finding says.

use std::fmt;

use super::{super::outcome::counted, F, Finding};
use crate::{
    ids::{StreamId, Version},
    life::StreamState,
};

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            F::MigrationChanged { number } => {
                write!(f, "migration {number} is not the one that this program knows")
            }
            F::MigrationMissing { number } => {
                write!(f, "it is not noted that migration {number} was applied")
            }
            F::MigrationUnknown { number } => {
                write!(f, "migration {number} is applied, and this program does not know it")
            }
            F::FunctionChanged { function } => {
                write!(
                    f,
                    "the function {function} is missing, or not the one that the migrations made"
                )
            }
            F::TriggerMissing { table, trigger } => {
                write!(f, "the trigger {trigger} of the table {table} is missing")
            }
            F::TriggerDisabled { table, trigger } => {
                write!(f, "the trigger {trigger} of the table {table} is not always enabled")
            }
            F::TriggerChanged { table, trigger } => {
                write!(f, "the trigger {trigger} of the table {table} is another one")
            }
            F::IndexMissing { table, columns } => {
                write!(f, "{table} has no valid unique index on ({})", columns.join(", "))
            }
            F::StoreRowMissing => f.write_str("the table store has no row"),
            F::CounterBehind { last, highest } => write!(
                f,
                "the counter of positions stands at {last}, and there is an event at {highest}"
            ),
            F::CounterCached { cache } => {
                write!(f, "the counter of positions has a cache of {cache} instead of 1")
            }
            F::RecoveryMarkLogged => {
                f.write_str("the sequence recovered is logged: a crash would not reset it")
            }
            F::CheckpointAhead { reader, at, last } => write!(
                f,
                "the reader {reader:?} stands at position {at}, and the last one drawn is {last}"
            ),
            F::StuckAppend { registration } => write!(f, "an append is stuck: {registration}"),
            F::PositionTwice { position, stream, version } => {
                write!(f, "position {position} is taken twice, by {}", event(stream, *version))
            }
            F::TimeWentBack { position, stream, version, recorded_at, before } => write!(
                f,
                "{} at position {position} was recorded at {recorded_at}, and the event before it in \
                 the log at {before}",
                event(stream, *version)
            ),
            F::EventWithoutStream { position, version, stream_id } => write!(
                f,
                "the event at position {position}, version {version}, is of a stream that does not \
                 exist (id {stream_id})"
            ),
            F::MetadataUnreadable { stream, version, position, reason } => write!(
                f,
                "the metadata of {} at position {position} cannot be read: {reason}",
                event(stream, *version)
            ),
            F::Undecodable { stream, version, position, event_type, schema_version, reason } => {
                write!(
                    f,
                    "event {version} of stream {stream} at position {position}, type {event_type:?} \
                 version {schema_version}, cannot be decoded: {reason}"
                )
            }
            F::VersionGap { stream, after, next, position } => {
                let first = after.plus(1);
                write!(f, "stream {stream} has no event {first}")?;
                if first.plus(1) < *next {
                    write!(f, " to {}", next.get() - 1)?;
                }
                write!(f, "; the next is {next}, at position {position}")
            }
            F::VersionTwice { stream, version, position } => {
                write!(f, "stream {stream} has a second event {version}, at position {position}")
            }
            F::OutOfOrder { stream, version, position, previous } => write!(
                f,
                "event {version} of stream {stream} stands at position {position}, before the \
                 stream's earlier event at {previous}"
            ),
            F::WrongVersion { stream, version, last } => {
                write!(f, "stream {stream} says version {version}, and its last event is {last}")
            }
            F::Misplaced { stream, state, events } => {
                write!(f, "stream {stream} is {state}, and {events} of its events are in ")?;
                f.write_str(match state {
                    StreamState::Archived => "events",
                    _ => "archived_events",
                })
            }
            F::KeyWithoutEvents { key, position, events, found } => write!(
                f,
                "idempotency key {key:?} led to {} up to position {position}, and {found} of them can be \
                 found",
                counted(*events, "event")
            ),
            F::SnapshotWithoutEvent { stream, name, version, position } => write!(
                f,
                "the snapshot of {name} is of {} at position {position}, which does not exist",
                event(stream, *version)
            ),
            F::SnapshotUnreadable { stream, name, version, reason, .. } => write!(
                f,
                "the snapshot of {name} of stream {stream} at version {version} cannot be read: \
                 {reason}"
            ),
            F::SnapshotDiffers { stream, name, version, position, at } => {
                write!(
                    f,
                    "the snapshot of {name} of stream {stream} at version {version}, position \
                     {position}, is not the fold of its events"
                )?;
                if at.is_empty() { Ok(()) } else { write!(f, ": it differs at {at}") }
            }
        }
    }
}

fn event(stream: &Option<StreamId>, version: Version) -> String {
    match stream {
        Some(stream) => format!("event {version} of stream {stream}"),
        None => format!("event {version} of a stream that does not exist"),
    }
}
