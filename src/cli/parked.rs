//! `parked`: the streams that projections leave out, and what to do about them.

use std::fmt::Write;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    App, Exit, Failure,
    database::Database,
    json::plain,
    output::{Output, print, print_json},
    projection::{must_exist, must_have_begun},
    time::shown,
};
use crate::{
    StreamId,
    control::{self, ParkedStream},
};

/// Looks after streams that projections leave out, since an event of theirs failed
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists them, with the event that failed, and why
    #[command(
        after_help = "Exit code: 0 if they were listed, also if there are some: `status` has \
                            another code then; 1 if they could not be."
    )]
    List(List),
    /// Has the worker try them again
    ///
    /// The event that failed and all behind it are applied in their order. A stream of which one fails
    /// again stays parked there.
    #[command(
        after_help = "Exit code: 0 if they are to be tried, 1 if they could not be, or are not \
                            parked."
    )]
    Retry(Retry),
    /// Has the worker leave the event out at which a stream is parked, and go on behind it
    ///
    /// The event stays in the log, and a rebuild meets it again.
    #[command(
        after_help = "Exit code: 0 if it is to be left out, 1 if it could not be, or is not parked."
    )]
    Discard(Discard),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    database: Database,

    /// Only those of this projection
    projection: Option<String>,

    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Retry {
    #[command(flatten)]
    database: Database,

    /// The projection: the name of its table, or the one that it gives itself
    projection: String,

    #[command(flatten)]
    which: Which,

    /// How to print the outcome
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The stream, by its category and its key
    #[arg(long, num_args = 2, value_names = ["CATEGORY", "KEY"], allow_hyphen_values = true)]
    stream: Vec<String>,

    /// All that are parked
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
pub(super) struct Discard {
    #[command(flatten)]
    database: Database,

    /// The projection: the name of its table, or the one that it gives itself
    projection: String,

    /// The stream, by its category and its key
    #[arg(
        long,
        num_args = 2,
        value_names = ["CATEGORY", "KEY"],
        allow_hyphen_values = true,
        required = true
    )]
    stream: Vec<String>,

    /// How to print the outcome
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Command {
    /// True if it changes what it looks at.
    pub(super) fn changes(&self) -> bool {
        !matches!(self, Self::List(_))
    }
}

pub(super) async fn run(app: &App, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::List(arguments) => list(app, arguments).await,
        Command::Retry(arguments) => retry(app, arguments).await,
        Command::Discard(arguments) => discard(app, arguments).await,
    }
}

async fn list(app: &App, arguments: List) -> Result<Exit, Failure> {
    let List { database, projection, output } = arguments;
    let store = database.open(app).await?;
    if let Some(projection) = &projection {
        must_exist(app, &store, projection).await?;
    }
    let parked = control::parked(&store, projection.as_deref()).await?;
    store.close().await;
    match output {
        Output::Text if parked.is_empty() => print("Nothing is parked.")?,
        Output::Text => print(&text(&parked)?)?,
        Output::Json => print_json(&json!({
            "parked": parked.iter().map(document).collect::<Vec<_>>(),
        }))?,
    }
    Ok(Exit::Success)
}

fn text(parked: &[ParkedStream]) -> Result<String, Failure> {
    let mut text = String::new();
    for (index, one) in parked.iter().enumerate() {
        let ParkedStream { projection, stream, version, position, .. } = one;
        let since = shown(one.parked_at);
        let (number, stream) = (index + 1, plain(&stream.to_string()));
        let attempts = match one.attempts {
            1 => "1 attempt".to_owned(),
            many => format!("{many} attempts"),
        };
        let asked = if one.asked { "; the worker is asked to go on" } else { "" };
        writeln!(
            text,
            "{number}. {projection} leaves out {stream} from version {version} on, position \
             {position}, since {since}, after {attempts}{asked}\n   {}\n",
            plain(&one.reason.replace('\n', " "))
        )?;
    }
    Ok(text)
}

fn document(parked: &ParkedStream) -> Value {
    json!({
        "projection": parked.projection,
        "stream": parked.stream.to_string(),
        "category": parked.stream.category(),
        "key": parked.stream.key(),
        "version": parked.version,
        "position": parked.position,
        "reason": parked.reason,
        "attempts": parked.attempts,
        "parked_at": shown(parked.parked_at),
        "asked": parked.asked,
    })
}

async fn retry(app: &App, arguments: Retry) -> Result<Exit, Failure> {
    let Retry { database, projection, which, output } = arguments;
    let stream = stream(&which.stream)?;
    let store = database.open(app).await?;
    must_have_begun(app, &store, &projection).await?;
    let asked = control::retry(&store, &projection, stream.as_ref()).await?;
    store.close().await;
    if let (0, Some(stream)) = (asked, &stream) {
        return Err(not_parked(&projection, stream));
    }
    match output {
        Output::Text => print(&match asked {
            0 => format!("Nothing is parked in {projection}."),
            1 => format!("{projection} tries 1 stream again."),
            many => format!("{projection} tries {many} streams again."),
        })?,
        Output::Json => print_json(&json!({ "projection": projection, "retried": asked }))?,
    }
    Ok(Exit::Success)
}

async fn discard(app: &App, arguments: Discard) -> Result<Exit, Failure> {
    let Discard { database, projection, stream: named, output } = arguments;
    let Some(stream) = stream(&named)? else {
        return Err(Failure("which stream? say --stream CATEGORY KEY".to_owned()));
    };
    let store = database.open(app).await?;
    must_have_begun(app, &store, &projection).await?;
    let discarded = control::discard(&store, &projection, &stream).await?;
    store.close().await;
    if !discarded {
        return Err(not_parked(&projection, &stream));
    }
    match output {
        Output::Text => print(&format!(
            "{projection} leaves out the event at which {stream} is parked, and goes on behind it."
        ))?,
        Output::Json => print_json(&json!({
            "projection": projection,
            "discarded": stream.to_string(),
        }))?,
    }
    Ok(Exit::Success)
}

/// The stream that two words name.
fn stream(words: &[String]) -> Result<Option<StreamId>, Failure> {
    match words {
        [category, key] => Ok(Some(StreamId::new(category, key)?)),
        _ => Ok(None),
    }
}

fn not_parked(projection: &str, stream: &StreamId) -> Failure {
    Failure(format!("stream {stream} is not parked in {projection}"))
}
