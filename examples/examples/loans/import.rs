//! Rows become commands, thousands at a time.

use annals::{Error, EventStore, ExecuteError};
use tokio::sync::{Notify, mpsc};

use crate::{
    progress::Progress,
    rows::{BadRow, Row, Rows},
};

/// How many rows are executed in one go: enough that loading an application pays for several of its
/// rows, and few enough that a run that is killed has not much to do again.
const CHUNK: usize = 8000;

/// What has come of the rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Imported {
    pub(crate) recorded: u64,
    /// Rows that an earlier run had recorded.
    pub(crate) recorded_before: u64,
    /// Rows that cannot be read, or that contradict what is recorded.
    pub(crate) rejected: u64,
}

/// Executes a command for each row, in order, and reports the rows that cannot be. Says when it is
/// halfway through.
pub(crate) async fn import(
    store: &EventStore,
    rows: Rows,
    progress: &Progress,
    halfway: &Notify,
) -> anyhow::Result<Imported> {
    let bytes = rows.bytes();
    let mut imported = Imported::default();
    // Reading goes on while commands are executed.
    let (sender, mut chunks) = mpsc::channel(2);
    let reading = tokio::task::spawn_blocking(move || read(rows, &sender));
    while let Some(chunk) = chunks.recv().await {
        let mut good = Vec::with_capacity(chunk.rows.len());
        for row in chunk.rows {
            match row {
                Ok(row) => good.push(row),
                Err(bad) => reject(&bad, &mut imported, progress),
            }
        }
        execute(store, good, &mut imported, progress).await?;
        progress.recorded(imported.recorded + imported.recorded_before, &bytes);
        if chunk.read * 2 >= bytes.size() {
            halfway.notify_one();
        }
    }
    reading.await??;
    Ok(imported)
}

/// Rows, and how far the input was read for them.
struct Chunk {
    rows: Vec<Result<Row, BadRow>>,
    read: u64,
}

fn read(rows: Rows, chunks: &mpsc::Sender<Chunk>) -> anyhow::Result<()> {
    let bytes = rows.bytes();
    let send = |rows| chunks.blocking_send(Chunk { rows, read: bytes.read() });
    let mut chunk = Vec::with_capacity(CHUNK);
    for row in rows {
        chunk.push(row?);
        if chunk.len() == CHUNK {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK));
            if send(full).is_err() {
                // The import has failed and says why.
                return Ok(());
            }
        }
    }
    // As above.
    let _ = send(chunk);
    Ok(())
}

async fn execute(
    store: &EventStore,
    rows: Vec<Row>,
    imported: &mut Imported,
    progress: &Progress,
) -> anyhow::Result<()> {
    let commands = rows.iter().cloned().map(Row::into_command);
    let outcomes = match store.execute_all(commands).await {
        Ok(outcomes) => outcomes,
        // One row, or several, are earlier than what is recorded. Find out which.
        Err(Error::ClockWentBack { .. }) if rows.len() > 1 => {
            for row in rows {
                Box::pin(execute(store, vec![row], imported, progress)).await?;
            }
            return Ok(());
        }
        Err(error @ Error::ClockWentBack { .. }) => {
            reject(&rows[0].bad("time", error), imported, progress);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    for (row, outcome) in rows.iter().zip(outcomes) {
        match outcome {
            Ok(committed) if committed.replayed => imported.recorded_before += 1,
            Ok(_) => imported.recorded += 1,
            Err(ExecuteError::Rejected(error)) => {
                reject(&row.bad("amount_requested", error), imported, progress);
            }
            Err(error) => reject(&row.bad("application", error), imported, progress),
        }
    }
    Ok(())
}

fn reject(bad: &BadRow, imported: &mut Imported, progress: &Progress) {
    progress.line(&bad.to_string());
    imported.rejected += 1;
}
