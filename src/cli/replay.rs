//! `replay`: a read model as it was, folded from the log into tables of its own.

use std::num::{NonZeroU32, NonZeroUsize};

use clap::Args;
use serde_json::json;

use super::{
    App, Exit, Failure,
    database::Database,
    output::{Bar, Output, print, print_json},
    projection::{Seen, known},
    rebuild::{Rebuilding, patiently},
    time::position_or_time,
};
use crate::AsOf;

/// Folds the log up to a moment into tables beside those in use, to be asked with SQL
///
/// For read models that keep no history, or not for so long. A moment is a time in RFC 3339, a date for the midnight in
/// UTC with which it begins, or a position like 1234. The tables take the place of those of the last replay.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 if it was done; 2 if streams are left out since an event of theirs failed; 1 if \
                  it could not be done; 130 if Ctrl-C stopped it."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// The read model: the name of its table
    projection: String,

    /// The moment
    #[arg(long, value_name = "TIME|POSITION", value_parser = position_or_time,
        required_unless_present = "discard")]
    to: Option<AsOf>,

    /// Drops the tables of the last replay
    #[arg(long, conflicts_with_all = ["to", "events_per_second", "shards"])]
    discard: bool,

    /// Reads so many events per second at most
    #[arg(long, value_name = "COUNT")]
    events_per_second: Option<NonZeroU32>,

    /// Folds rows in so many parts at a time: half as many as there are processors unless set, and at most 3
    #[arg(long, value_name = "COUNT")]
    shards: Option<NonZeroUsize>,

    /// How to print the outcome
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(app: &App, arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { database, projection, to, events_per_second, shards, output, .. } = arguments;
    let known = known(app, &projection)?;
    let store = database.open(app).await?;
    let bar = Bar::of_phases();
    let rebuild = (known.rebuild)(&store, &Rebuilding::new(events_per_second, shards, &bar));
    let seen = match to {
        Some(moment) => Some(patiently(|| rebuild.replay_to(moment)).await?),
        None => {
            patiently(|| rebuild.discard_replayed()).await?;
            None
        }
    };
    drop(bar);
    store.close().await;
    match (output, &seen) {
        (Output::Text, Some(seen)) => print(&text(&projection, seen))?,
        (Output::Text, None) => print(&format!("Nothing of a replay of {projection} is kept."))?,
        (Output::Json, seen) => print_json(&json!({
            "projection": projection,
            "replayed": seen.as_ref().map(|Seen { position, rows, parked, table }| json!({
                "position": position, "rows": rows, "parked": parked, "table": table,
            })),
            "discarded": seen.is_none(),
        }))?,
    }
    let is_whole = seen.is_none_or(|seen| seen.parked == 0);
    Ok(if is_whole { Exit::Success } else { Exit::Findings })
}

fn text(projection: &str, seen: &Seen) -> String {
    let Seen { position, rows, parked, table } = seen;
    let mut text = format!(
        "{projection} as of position {position} has {rows} rows: select * from {table}\n\
         `replay {projection} --discard` drops them.\n"
    );
    if *parked > 0 {
        text += &format!(
            "An event failed in each of {parked} streams, which are left out from there on.\n"
        );
    }
    text
}
