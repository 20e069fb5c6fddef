//! What to do about a finding.

use std::borrow::Cow;

use super::{F, Finding};

impl Finding {
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
                "Readers of the whole log stop there, and those of a category pass it. Put the stream's row back from a backup."
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
