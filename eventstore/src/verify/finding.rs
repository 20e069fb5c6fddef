//! What can be wrong with a store: where it is, and what to do about it.

use std::{borrow::Cow, fmt};

use chrono::{DateTime, Utc};

use super::{Check, Registration, outcome::counted};
use crate::{
    ids::{Position, StreamId, Version},
    life::StreamState,
};

/// Something that is wrong with a store. Its text says what and where; [`advice`](Self::advice) says
/// what to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// An applied migration is not the one that this program knows.
    MigrationChanged {
        /// The migration's number.
        number: i32,
    },
    /// It is not noted that a migration was applied.
    MigrationMissing {
        /// The migration's number.
        number: i32,
    },
    /// A migration was applied that this program does not know.
    MigrationUnknown {
        /// The migration's number.
        number: i32,
    },
    /// A function of the store is gone, or not what the migrations made.
    FunctionChanged {
        /// The function.
        function: String,
    },
    /// A trigger that guards the store is gone.
    TriggerMissing {
        /// The table.
        table: String,
        /// The trigger.
        trigger: String,
    },
    /// A trigger that guards the store does not always fire.
    TriggerDisabled {
        /// The table.
        table: String,
        /// The trigger.
        trigger: String,
    },
    /// A trigger that guards the store is another one than the migrations made.
    TriggerChanged {
        /// The table.
        table: String,
        /// The trigger.
        trigger: String,
    },
    /// A unique index is gone or not valid, so that the same may be stored twice.
    IndexMissing {
        /// The table.
        table: String,
        /// The columns that it is about.
        columns: Vec<String>,
    },
    /// The table `store` has no row, so that appends register nowhere.
    StoreRowMissing,
    /// The counter of positions stands below an event.
    CounterBehind {
        /// The last position drawn, as the counter says.
        last: Position,
        /// The highest position of an event.
        highest: Position,
    },
    /// Sessions draw positions in advance.
    CounterCached {
        /// How many.
        cache: i64,
    },
    /// The mark that tells that the server has recovered outlives a recovery.
    RecoveryMarkLogged,
    /// A reader says that it has come to a position that was never drawn.
    CheckpointAhead {
        /// The name of the checkpoint.
        reader: String,
        /// Where it stands.
        at: Position,
        /// The last position drawn.
        last: Position,
    },
    /// An append has been in flight for too long. It holds up all readers.
    StuckAppend {
        /// Whose it is.
        registration: Registration,
    },
    /// Two events have the same position.
    PositionTwice {
        /// The position.
        position: Position,
        /// The stream of one of them, if it has one.
        stream: Option<StreamId>,
        /// The version of that one.
        version: Version,
    },
    /// An event was recorded before the one at a lower position.
    TimeWentBack {
        /// The event's position.
        position: Position,
        /// The event's stream, if it has one.
        stream: Option<StreamId>,
        /// The event's version.
        version: Version,
        /// When it was recorded.
        recorded_at: DateTime<Utc>,
        /// When the one before it was.
        before: DateTime<Utc>,
    },
    /// An event is of a stream that does not exist.
    EventWithoutStream {
        /// The event's position.
        position: Position,
        /// The event's version.
        version: Version,
        /// The number of the stream in the database.
        stream_id: i64,
    },
    /// The metadata of an event cannot be read.
    MetadataUnreadable {
        /// The stream, if there is one.
        stream: Option<StreamId>,
        /// The event's version.
        version: Version,
        /// The event's position.
        position: Position,
        /// Why not.
        reason: String,
    },
    /// An event cannot be decoded.
    Undecodable {
        /// The stream.
        stream: StreamId,
        /// The event's version.
        version: Version,
        /// The event's position.
        position: Position,
        /// The stored name of its type.
        event_type: String,
        /// The stored version of its schema.
        schema_version: u32,
        /// Why not.
        reason: String,
    },
    /// Events of a stream are missing.
    VersionGap {
        /// The stream.
        stream: StreamId,
        /// The last version before the gap.
        after: Version,
        /// The version of the next event.
        next: Version,
        /// The position of the next event.
        position: Position,
    },
    /// Two events of a stream have the same version.
    VersionTwice {
        /// The stream.
        stream: StreamId,
        /// The version.
        version: Version,
        /// The position of the second one.
        position: Position,
    },
    /// Events of a stream do not stand in the log in the order of their versions.
    OutOfOrder {
        /// The stream.
        stream: StreamId,
        /// The version of the later event.
        version: Version,
        /// Its position.
        position: Position,
        /// The position of the event before it in the stream.
        previous: Position,
    },
    /// A stream's version is not that of its last event.
    WrongVersion {
        /// The stream.
        stream: StreamId,
        /// The version that the stream has.
        version: Version,
        /// The version of its last event.
        last: Version,
    },
    /// Events of a stream are not in the table that its state says.
    Misplaced {
        /// The stream.
        stream: StreamId,
        /// Its state.
        state: StreamState,
        /// How many events are elsewhere: of an archived stream in `events`, else in
        /// `archived_events`.
        events: u64,
    },
    /// The recorded outcome of an idempotency key is not in the log.
    KeyWithoutEvents {
        /// The key.
        key: String,
        /// The position of the last event that it led to.
        position: Position,
        /// How many events it led to.
        events: u64,
        /// How many of them there are.
        found: u64,
    },
    /// A snapshot is of no event of its stream.
    SnapshotWithoutEvent {
        /// The stream, if there is one.
        stream: Option<StreamId>,
        /// Whose state it is.
        name: String,
        /// The version that it says it is of.
        version: Version,
        /// The position that it says it is of.
        position: Position,
    },
    /// A snapshot cannot be read.
    SnapshotUnreadable {
        /// The stream.
        stream: StreamId,
        /// Whose state it is.
        name: String,
        /// Its version.
        version: Version,
        /// Its position.
        position: Position,
        /// Why not.
        reason: String,
    },
    /// A snapshot is not the fold of its events.
    SnapshotDiffers {
        /// The stream.
        stream: StreamId,
        /// Whose state it is.
        name: String,
        /// Its version.
        version: Version,
        /// Its position.
        position: Position,
        /// Where in the state the first difference is, as a JSON pointer.
        at: String,
    },
}

use Finding as F;

impl Finding {
    /// A name of this kind of finding that stays, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            F::MigrationChanged { .. } => "migration_changed",
            F::MigrationMissing { .. } => "migration_missing",
            F::MigrationUnknown { .. } => "migration_unknown",
            F::FunctionChanged { .. } => "function_changed",
            F::TriggerMissing { .. } => "trigger_missing",
            F::TriggerDisabled { .. } => "trigger_disabled",
            F::TriggerChanged { .. } => "trigger_changed",
            F::IndexMissing { .. } => "index_missing",
            F::StoreRowMissing => "store_row_missing",
            F::CounterBehind { .. } => "counter_behind",
            F::CounterCached { .. } => "counter_cached",
            F::RecoveryMarkLogged => "recovery_mark_logged",
            F::CheckpointAhead { .. } => "checkpoint_ahead",
            F::StuckAppend { .. } => "stuck_append",
            F::PositionTwice { .. } => "position_twice",
            F::TimeWentBack { .. } => "time_went_back",
            F::EventWithoutStream { .. } => "event_without_stream",
            F::MetadataUnreadable { .. } => "metadata_unreadable",
            F::Undecodable { .. } => "undecodable",
            F::VersionGap { .. } => "version_gap",
            F::VersionTwice { .. } => "version_twice",
            F::OutOfOrder { .. } => "out_of_order",
            F::WrongVersion { .. } => "wrong_version",
            F::Misplaced { .. } => "misplaced",
            F::KeyWithoutEvents { .. } => "key_without_events",
            F::SnapshotWithoutEvent { .. } => "snapshot_without_event",
            F::SnapshotUnreadable { .. } => "snapshot_unreadable",
            F::SnapshotDiffers { .. } => "snapshot_differs",
        }
    }

    /// The check that found it.
    pub fn check(&self) -> Check {
        match self {
            F::MigrationChanged { .. }
            | F::MigrationMissing { .. }
            | F::MigrationUnknown { .. }
            | F::FunctionChanged { .. }
            | F::TriggerMissing { .. }
            | F::TriggerDisabled { .. }
            | F::TriggerChanged { .. }
            | F::IndexMissing { .. } => Check::Schema,
            F::StoreRowMissing
            | F::CounterBehind { .. }
            | F::CounterCached { .. }
            | F::RecoveryMarkLogged
            | F::CheckpointAhead { .. }
            | F::StuckAppend { .. } => Check::Registry,
            F::PositionTwice { .. }
            | F::TimeWentBack { .. }
            | F::EventWithoutStream { .. }
            | F::MetadataUnreadable { .. } => Check::Log,
            F::Undecodable { .. } => Check::Payloads,
            F::VersionGap { .. }
            | F::VersionTwice { .. }
            | F::OutOfOrder { .. }
            | F::WrongVersion { .. }
            | F::Misplaced { .. } => Check::Streams,
            F::KeyWithoutEvents { .. } => Check::IdempotencyKeys,
            F::SnapshotWithoutEvent { .. } => Check::Snapshots,
            F::SnapshotUnreadable { .. } | F::SnapshotDiffers { .. } => Check::States,
        }
    }

    /// The stream that it is about.
    pub fn stream(&self) -> Option<&StreamId> {
        match self {
            F::PositionTwice { stream, .. }
            | F::TimeWentBack { stream, .. }
            | F::MetadataUnreadable { stream, .. }
            | F::SnapshotWithoutEvent { stream, .. } => stream.as_ref(),
            F::Undecodable { stream, .. }
            | F::VersionGap { stream, .. }
            | F::VersionTwice { stream, .. }
            | F::OutOfOrder { stream, .. }
            | F::WrongVersion { stream, .. }
            | F::Misplaced { stream, .. }
            | F::SnapshotUnreadable { stream, .. }
            | F::SnapshotDiffers { stream, .. } => Some(stream),
            _ => None,
        }
    }

    /// The version of the stream that it is about; of a gap, the first one missing.
    pub fn version(&self) -> Option<Version> {
        match self {
            F::PositionTwice { version, .. }
            | F::TimeWentBack { version, .. }
            | F::EventWithoutStream { version, .. }
            | F::MetadataUnreadable { version, .. }
            | F::Undecodable { version, .. }
            | F::VersionTwice { version, .. }
            | F::OutOfOrder { version, .. }
            | F::WrongVersion { version, .. }
            | F::SnapshotWithoutEvent { version, .. }
            | F::SnapshotUnreadable { version, .. }
            | F::SnapshotDiffers { version, .. } => Some(*version),
            F::VersionGap { after, .. } => Some(after.plus(1)),
            _ => None,
        }
    }

    /// The position of the log that it is about; of a gap, that of the next event.
    pub fn position(&self) -> Option<Position> {
        match self {
            F::CounterBehind { highest: position, .. }
            | F::CheckpointAhead { at: position, .. }
            | F::PositionTwice { position, .. }
            | F::TimeWentBack { position, .. }
            | F::EventWithoutStream { position, .. }
            | F::MetadataUnreadable { position, .. }
            | F::Undecodable { position, .. }
            | F::VersionGap { position, .. }
            | F::VersionTwice { position, .. }
            | F::OutOfOrder { position, .. }
            | F::KeyWithoutEvents { position, .. }
            | F::SnapshotWithoutEvent { position, .. }
            | F::SnapshotUnreadable { position, .. }
            | F::SnapshotDiffers { position, .. } => Some(*position),
            F::StuckAppend { registration } => Some(registration.position),
            _ => None,
        }
    }

    /// What to do about it, in a sentence or two.
    pub fn advice(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            F::MigrationChanged { .. } => {
                "Run a build of Annals whose migrations nobody edited, or find out who changed the row."
            }
            F::MigrationMissing { .. } => {
                "Put the row of the table migrations back from a backup: without it, the next program \
                 that connects applies the migration again and fails."
            }
            F::MigrationUnknown { .. } => "Verify with the newer version of the program.",
            F::FunctionChanged { .. } => {
                "Find out who changed it and why, and create it again as the migrations do: the order of \
                 the log and the guards of the events rest on it."
            }
            F::TriggerMissing { .. } | F::TriggerChanged { .. } => {
                "Create it again as the migrations do, and find out what was changed while it was not \
                 there: compare the events with a backup."
            }
            F::TriggerDisabled { table, trigger } => {
                return Cow::Owned(format!(
                    "alter table {table} enable always trigger {trigger}; and compare the events \
                     with a backup: they could be changed meanwhile."
                ));
            }
            F::IndexMissing { .. } => {
                "Create it again as the migrations do. If that fails, the findings about the events \
                 say what is there twice."
            }
            F::StoreRowMissing => {
                "Stop all appends at once: readers can miss events. Put the row of the table store \
                 back from a backup, or insert a new one."
            }
            F::CounterBehind { highest, .. } => {
                return Cow::Owned(format!(
                    "Stop all appends: they fail, or are recorded where readers have passed. Then \
                     select setval('positions', {highest}), or the highest checkpoint if that is \
                     higher."
                ));
            }
            F::CounterCached { .. } => "alter sequence positions cache 1.",
            F::RecoveryMarkLogged => "alter sequence recovered set unlogged.",
            F::CheckpointAhead { .. } => {
                "The log was probably restored from an older backup than the checkpoint. Build what \
                 this reader writes anew, from the start of the log."
            }
            F::StuckAppend { .. } => {
                "Readers wait for it. Find out what it waits for, and end it: \
                 pg_terminate_backend(pid), or rollback prepared."
            }
            F::PositionTwice { .. } => {
                "One of them was put there by hand, or survived an incomplete restore. Compare both \
                 with a backup, and remove the wrong one."
            }
            F::TimeWentBack { .. } => {
                "Answers as of a time near it are wrong. Times only go back where events were written \
                 past the store; restore them from a backup."
            }
            F::EventWithoutStream { .. } => {
                "Nobody can read it. Put the stream's row back from a backup."
            }
            F::MetadataUnreadable { .. } => {
                "Readers of the log stop there. The column metadata was written past the store; \
                 restore it from a backup."
            }
            F::Undecodable { .. } => {
                "Its aggregate cannot be loaded, and workers stop there. Add an upcaster, an alias or \
                 the missing variant; if the payload was damaged, restore it from a backup."
            }
            F::VersionGap { .. } => {
                "Events are lost. Restore them from a backup, or from Kafka if they were published."
            }
            F::VersionTwice { .. } => {
                "One of them was put there by hand, or survived an incomplete restore. Compare both \
                 with a backup, and remove the wrong one."
            }
            F::OutOfOrder { .. } => {
                "They were written past the store. Restore them from a backup, and build read models \
                 of this stream anew."
            }
            F::WrongVersion { version, last, .. } if version > last => {
                "The last events are lost, or the row of streams was changed. Restore the events from \
                 a backup; do not append to the stream before that."
            }
            F::WrongVersion { .. } => {
                "The row of streams was changed, or events were inserted past the store: the next \
                 append fails. Set the version to that of the last event."
            }
            F::Misplaced { .. } => {
                "The state of the stream or its events were changed past the store. Loads do not see \
                 these events; find out which is right, and move the others."
            }
            F::KeyWithoutEvents { .. } => {
                "A repetition of its command is answered with what is not recorded. If the events are \
                 lost, restore them; else delete the row of idempotency."
            }
            F::SnapshotWithoutEvent { .. } | F::SnapshotUnreadable { .. } => {
                "Delete the row of snapshots: it is only a copy, and loads fold all events without it."
            }
            F::SnapshotDiffers { .. } => {
                "If the fold was changed, raise the version of the aggregate's snapshots. Else delete \
                 the row of snapshots: it is only a copy, and loads fold all events without it."
            }
        })
    }
}

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
