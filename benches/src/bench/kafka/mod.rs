//! Publishing to Kafka, and projecting from there.

mod bare;
pub(crate) mod consume;
pub(crate) mod end_to_end;
pub(crate) mod publish;

use std::time::Duration;

use annals::kafka::Progress;
use anyhow::{Context, Result};
use tokio::{sync::watch, time::timeout};

/// Of each topic.
const PARTITIONS: u16 = 4;
/// A publisher that has not come to the end of the log by then has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until a publisher has come so far.
async fn reaches(
    progress: &mut watch::Receiver<Progress>,
    is_there: impl FnMut(&Progress) -> bool,
) -> Result<()> {
    let reached = timeout(PATIENCE, progress.wait_for(is_there)).await;
    reached.context("the publisher takes too long")?.context("the publisher has ended")?;
    Ok(())
}
