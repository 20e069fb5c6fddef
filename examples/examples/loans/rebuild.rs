//! The read model is built anew while commands and its worker go on, compared with the one in use, and put
//! into its place.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use annals::{EventStore, ProjectionError, QueryReadModels, Rebuild};
use anyhow::bail;
use tokio::sync::Notify;

use crate::{
    progress::Progress,
    read_model::LoanApplications,
    report::{Rebuilt, grouped},
};

/// Begins when the import is halfway through, and the worker has made its tables.
pub(crate) async fn rebuild(
    store: EventStore,
    halfway: Arc<Notify>,
    progress: Progress,
) -> anyhow::Result<Rebuilt> {
    halfway.notified().await;
    let beginning = store.query::<LoanApplications>();
    beginning.wait_for(annals::Position::START, Duration::from_secs(60)).await?;

    let started = Instant::now();
    let before = store.safe_position().await?;
    let drawn = progress.clone();
    let rebuild = Rebuild::<LoanApplications>::of(&store).on_progress(move |at| drawn.rebuilt(&at));
    let built = loop {
        match rebuild.build().await {
            // Of a run that was killed, until its lease is over.
            Err(ProjectionError::RebuildRuns { .. }) if started.elapsed().as_secs() < 10 => {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            built => break built?,
        }
    };
    let build = started.elapsed();
    let comparison = rebuild.compare().await?;
    if !comparison.is_same() {
        for difference in comparison.differences.iter().take(10) {
            progress.line(&format!("differs: {difference:?}"));
        }
        bail!("the rebuilt read model differs in {} rows", comparison.different);
    }
    rebuild.swap().await?;
    let meanwhile = store.safe_position().await?.get() - before.get();
    let rebuilt = Rebuilt {
        events: built.events,
        rows: comparison.rebuilt_rows,
        build,
        all: started.elapsed(),
        recorded_meanwhile: meanwhile.unsigned_abs(),
    };
    progress.line(&format!(
        "rebuilt: {} events in {:.1} s, compared and swapped after {:.1} s, while {} more were recorded; \
         {} rows equal those that were in use at position {}",
        grouped(rebuilt.events),
        rebuilt.build.as_secs_f64(),
        rebuilt.all.as_secs_f64(),
        grouped(rebuilt.recorded_meanwhile),
        grouped(rebuilt.rows),
        comparison.position,
    ));
    Ok(rebuilt)
}
