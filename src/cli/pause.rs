//! `pause` and `resume`: a projection stands still, and goes on.

use clap::Args;
use serde_json::json;

use super::{
    App, Exit, Failure,
    database::Database,
    output::{Output, print, print_json},
    projection::must_have_begun,
};
use crate::control::{self, State};

/// Has a projection stand still, for a reason that `status` shows
///
/// Its workers finish the batch that they are at. Its read model can be queried as it is then.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 if it is paused, 1 if it could not be.")]
pub(super) struct Pause {
    #[command(flatten)]
    database: Database,

    /// The projection: the name of its table, or the one that it gives itself
    projection: String,

    /// Why: for those who wonder
    #[arg(long, value_name = "REASON")]
    reason: String,

    /// How to print the outcome
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Lets a projection go on that is paused
///
/// Also one that paused itself, once what was wrong is mended. One whose circuit is open is tried at once.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 if it is not paused now, 1 if it could not be resumed.")]
pub(super) struct Resume {
    #[command(flatten)]
    database: Database,

    /// The projection: the name of its table, or the one that it gives itself
    projection: String,

    /// How to print the outcome
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn pause(app: &App, arguments: Pause) -> Result<Exit, Failure> {
    let Pause { database, projection, reason, output } = arguments;
    let store = database.open(app).await?;
    let before = must_have_begun(app, &store, &projection).await?.state;
    if before == State::Inline {
        return Err(Failure(format!(
            "{projection} is in the transaction of each append, and cannot be paused"
        )));
    }
    must_be_there(control::pause(&store, &projection, &reason).await?, &projection)?;
    store.close().await;
    let text = format!("{projection} is paused; `resume {projection}` lets it go on.");
    said(output, &projection, Some(&reason), &before, text)
}

pub(super) async fn resume(app: &App, arguments: Resume) -> Result<Exit, Failure> {
    let Resume { database, projection, output } = arguments;
    let store = database.open(app).await?;
    let before = must_have_begun(app, &store, &projection).await?.state;
    must_be_there(control::resume(&store, &projection).await?, &projection)?;
    store.close().await;
    let text = match &before {
        State::Paused(reason) => format!("{projection} goes on; it was paused: {reason}"),
        State::Broken { reason, .. } => {
            format!("{projection} is tried again now; its circuit was open: {reason}")
        }
        _ => format!("{projection} was not paused."),
    };
    said(output, &projection, None, &before, text)
}

/// It may have been reset meanwhile.
fn must_be_there(there: bool, projection: &str) -> Result<(), Failure> {
    let gone = || Failure(format!("the projection {projection:?} is not there any more"));
    there.then_some(()).ok_or_else(gone)
}

fn said(
    output: Output,
    projection: &str,
    paused: Option<&str>,
    before: &State,
    text: String,
) -> Result<Exit, Failure> {
    let (paused_before, broken_before) = match before {
        State::Paused(reason) => (Some(reason), None),
        State::Broken { reason, .. } => (None, Some(reason)),
        _ => (None, None),
    };
    match output {
        Output::Text => print(&text)?,
        Output::Json => print_json(&json!({
            "projection": projection,
            "paused": paused,
            "paused_before": paused_before,
            "broken_before": broken_before,
        }))?,
    }
    Ok(Exit::Success)
}
