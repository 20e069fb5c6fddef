//! Publishing beside the import.

use annals::{
    EventStore, Position,
    postgres::{Checkpoint, Database},
};
use tokio_util::sync::CancellationToken;

use crate::{args::Args, progress::Progress};

pub(crate) struct Publishing;

impl Publishing {
    pub(crate) fn start(_: &Args, _: &EventStore, _: &CancellationToken) -> anyhow::Result<Self> {
        Ok(Self)
    }
    pub(crate) async fn finish(self, _: Position, _: &Progress) -> anyhow::Result<()> {
        Ok(())
    }
}

pub(crate) async fn reset(_: &Args) -> anyhow::Result<()> {
    Ok(())
}

pub(crate) async fn position(database: &Database) -> anyhow::Result<Position> {
    Ok(Checkpoint::position_of(database, "publisher:kafka").await?.unwrap_or_default())
}
