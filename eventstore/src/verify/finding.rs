//! What can be wrong with a store: where it is, and what to do about it.

mod advice;
mod text;

use chrono::{DateTime, Utc};

use super::{Check, Registration};
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
}
