//! `forget-history`: what rows were before a moment is deleted.

use clap::Args;
use serde_json::json;

use super::{
    App, Exit, Failure,
    database::Database,
    output::{Output, print, print_json},
    projection::known,
    reset::confirm,
    time::position_or_time,
};
use crate::{AsOf, History, ProjectionError};

/// Forgets what the rows of a read model were before a moment
///
/// Rows as of that moment and later stay; a question about an earlier one is refused from then on. A moment is a time
/// in RFC 3339, a date for the midnight in UTC with which it begins, or a position like 1234. Workers do it by
/// themselves with `Worker::keep_history`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 if it was forgotten, 1 if it was not, 130 if it was stopped.")]
pub(super) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// The read model: the name of its table
    projection: String,

    /// The moment
    #[arg(long, value_name = "TIME|POSITION", value_parser = position_or_time)]
    before: AsOf,

    /// Does not ask
    #[arg(long)]
    yes: bool,

    /// How to print the outcome
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(app: &App, arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { database, projection, before, yes, output } = arguments;
    let known = known(app, &projection)?;
    if known.history == History::None {
        return Err(ProjectionError::NoHistory { projection: known.table }.into());
    }
    let store = database.open(app).await?;
    // The same moment for who is asked and for what is done.
    let position = match before {
        AsOf::Time(time) => store.position_at(time).await?,
        AsOf::Position(position) => position,
        _ => return Err(ProjectionError::NotAMoment.into()),
    };
    if !yes {
        let schema = store.database()?.read_models().name().to_owned();
        let wanted = format!("forget its history before position {position}");
        confirm(&format!("{schema}.{projection}"), &wanted).await?;
    }
    let versions = (known.forget)(store.clone(), position).await?;
    store.close().await;
    match output {
        Output::Text => print(&format!(
            "{projection} keeps its history from position {position} on; {versions} versions are gone."
        ))?,
        Output::Json => print_json(&json!({
            "projection": projection, "history_from": position, "versions": versions,
        }))?,
    }
    Ok(Exit::Success)
}
