//! `sagas`: those that have not ended, and what to do about those that are stuck.

use std::fmt::Write;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    App, Exit, Failure,
    database::Database,
    json::plain,
    output::{Output, print, print_json},
    time::shown,
};
use crate::{
    Recorded,
    saga::{
        SagaStatus, Wish,
        control::{self, SagaSummary},
    },
};

/// Looks after sagas: what they wait for, and what to do about those that are stuck
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists those that have not ended: first those that are stuck, then the oldest
    #[command(after_help = "Exit code: 0 if none is stuck, 2 if one is, 1 if it is not known.")]
    List(List),
    /// Shows one, with all that happened to it
    #[command(after_help = "Exit code: 0 if it was shown, 1 if there is none.")]
    Show(Show),
    /// Has one that is stuck try again
    #[command(after_help = CODES)]
    Retry(Ask),
    /// Has one go on as if what it is stuck at were done, by hand say
    #[command(after_help = CODES)]
    Skip(Ask),
    /// Has one undo what was done
    #[command(after_help = CODES)]
    Compensate(Ask),
    /// Ends one where it stands: nothing is done or undone any more
    #[command(after_help = CODES)]
    Abort(Ask),
}

const CODES: &str = "Exit code: 0 if it is asked for, which a worker does within a second or so; \
                     1 if it could not be, or there is nothing to be asked of it.";

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    database: Database,

    /// Only those of this category
    saga: Option<String>,

    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    database: Database,

    /// The category of its stream
    saga: String,

    /// The key of its stream
    #[arg(allow_hyphen_values = true)]
    key: String,

    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Ask {
    #[command(flatten)]
    database: Database,

    /// The category of its stream
    saga: String,

    /// The key of its stream
    #[arg(allow_hyphen_values = true)]
    key: String,

    /// Why: it is recorded in the saga's stream
    #[arg(long, value_name = "TEXT")]
    reason: String,

    /// How to print the outcome
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Command {
    /// True if it changes what it looks at.
    pub(super) fn changes(&self) -> bool {
        !matches!(self, Self::List(_) | Self::Show(_))
    }
}

pub(super) async fn run(app: &App, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::List(arguments) => list(app, arguments).await,
        Command::Show(arguments) => show(app, arguments).await,
        Command::Retry(arguments) => ask(app, arguments, Wish::Retry).await,
        Command::Skip(arguments) => ask(app, arguments, Wish::Skip).await,
        Command::Compensate(arguments) => ask(app, arguments, Wish::Compensate).await,
        Command::Abort(arguments) => ask(app, arguments, Wish::Abort).await,
    }
}

async fn list(app: &App, arguments: List) -> Result<Exit, Failure> {
    let List { database, saga, output } = arguments;
    let store = database.open(app).await?;
    let sagas = control::list(&store, saga.as_deref()).await?;
    store.close().await;
    match output {
        Output::Text if sagas.is_empty() => print("No saga is under way.")?,
        Output::Text => print(&sagas.iter().map(line).collect::<Result<String, _>>()?)?,
        Output::Json => print_json(&json!({
            "sagas": sagas.iter().map(document).collect::<Vec<_>>(),
        }))?,
    }
    let is_stuck = sagas.iter().any(|saga| saga.status == SagaStatus::Stuck);
    Ok(if is_stuck { Exit::Findings } else { Exit::Success })
}

/// A saga in a line or two.
fn line(saga: &SagaSummary) -> Result<String, Failure> {
    let mut text = String::new();
    let status = saga.status.as_str();
    write!(text, "{} {}: {status}", saga.saga, plain(&saga.key))?;
    if let Some(step) = &saga.step {
        write!(text, " at step {}", plain(step))?;
    }
    if saga.attempts > 0 {
        write!(text, ", attempt {}", saga.attempts)?;
    }
    write!(text, ", since {}", shown(saga.begun_at))?;
    if let Some(timer) = saga.next_timer {
        write!(text, ", next timer {}", shown(timer))?;
    }
    if let Some(wish) = saga.asked {
        write!(text, "; it is asked to {}", wish.as_str())?;
    }
    writeln!(text)?;
    if let Some(reason) = &saga.reason {
        writeln!(text, "   {}", plain(&reason.replace('\n', " ")))?;
    }
    Ok(text)
}

fn document(saga: &SagaSummary) -> Value {
    json!({
        "saga": saga.saga,
        "key": saga.key,
        "status": saga.status.as_str(),
        "step": saga.step,
        "reason": saga.reason,
        "attempts": saga.attempts,
        "call_due": saga.call_due.map(shown),
        "next_timer": saga.next_timer.map(shown),
        "asked": saga.asked.map(Wish::as_str),
        "begun_at": shown(saga.begun_at),
        "changed_at": shown(saga.changed_at),
    })
}

async fn show(app: &App, arguments: Show) -> Result<Exit, Failure> {
    let Show { database, saga, key, output } = arguments;
    let store = database.open(app).await?;
    let found = control::show(&store, &saga, &key).await?;
    store.close().await;
    let Some((summary, events)) = found else {
        return Err(Failure(format!("there is no saga {saga} {key:?}")));
    };
    match output {
        Output::Text => {
            let mut text = line(&summary)?;
            for event in &events {
                let payload = String::from_utf8_lossy(event.event.as_bytes()).into_owned();
                let (at, name) = (shown(event.recorded_at), &event.event_type);
                writeln!(text, "{:>6}  {at}  {}  {}", event.version, plain(name), plain(&payload))?;
            }
            print(&text)?;
        }
        Output::Json => {
            let events: Result<Vec<_>, _> = events.iter().map(event).collect();
            print_json(&json!({ "saga": document(&summary), "events": events? }))?;
        }
    }
    Ok(Exit::Success)
}

fn event(event: &Recorded) -> Result<Value, Failure> {
    Ok(json!({
        "version": event.version,
        "position": event.position,
        "type": &*event.event_type,
        "recorded_at": shown(event.recorded_at),
        "payload": serde_json::from_slice::<Value>(event.event.as_bytes())?,
    }))
}

async fn ask(app: &App, arguments: Ask, wish: Wish) -> Result<Exit, Failure> {
    let Ask { database, saga, key, reason, output } = arguments;
    let store = database.open(app).await?;
    let asked = match wish {
        Wish::Retry => control::retry(&store, &saga, &key, &reason).await?,
        Wish::Skip => control::skip(&store, &saga, &key, &reason).await?,
        Wish::Compensate => control::compensate(&store, &saga, &key, &reason).await?,
        _ => control::abort(&store, &saga, &key, &reason).await?,
    };
    let found = if asked { None } else { control::show(&store, &saga, &key).await? };
    store.close().await;
    let name = wish.as_str();
    if !asked {
        return Err(Failure(match found {
            None => format!("there is no saga {saga} {key:?}"),
            Some((SagaSummary { asked: Some(wish), .. }, _)) => {
                format!("saga {saga} {key:?} is asked to {} already", wish.as_str())
            }
            Some((SagaSummary { status, .. }, _)) => {
                format!("saga {saga} {key:?} is {}: it cannot {name}", status.as_str())
            }
        }));
    }
    match output {
        Output::Text => print(&format!("{saga} {} is asked to {name}.", plain(&key)))?,
        Output::Json => print_json(&json!({ "saga": saga, "key": key, "asked": name }))?,
    }
    Ok(Exit::Success)
}
