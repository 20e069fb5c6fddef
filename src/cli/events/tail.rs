//! `events tail`: the last events, and those to come.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;

use super::record::{Record, Rows};
use crate::{
    Cursor, Error, EventQuery, EventStore, Position, Recorded,
    cli::{
        App, Exit, Failure,
        database::Database,
        output::{Output, Reader, print_on},
        time::{number, time},
    },
    postgres::Listener,
};

/// How many events are shown where nothing says where to begin.
const LAST: u64 = 20;
/// How often to look for events where no nudge comes.
const POLL: Duration = Duration::from_millis(500);

/// Prints the last events, the newest last
///
/// An event must match all that is asked for, and one of the categories and one of the types. Each is printed
/// once, in the order of positions, and none is left out: what is in flight is waited for.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 if it came to the end, also where nobody reads on (| head); 1 if it could \
                  not run, 130 if Ctrl-C stopped it: the only end with --follow."
)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// Goes on with new events until it is stopped
    #[arg(long, short)]
    pub(super) follow: bool,

    /// Only events of this category; may be given several times
    #[arg(long, value_name = "CATEGORY")]
    category: Vec<String>,

    /// Only events of this type, as it is stored; may be given several times
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,

    /// Only events with this correlation id
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,

    /// Begins with this position
    #[arg(long, value_name = "POSITION", value_parser = number, conflicts_with = "since")]
    from: Option<i64>,

    /// Begins with what was recorded at this time: RFC 3339, or a date for its midnight in UTC, with
    /// which it begins
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<DateTime<Utc>>,

    /// Also events of archived streams
    #[arg(long)]
    include_archived: bool,

    /// The last so many: 20 unless set, and all with --from or --since
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<u64>,

    /// How to print the events: as a table, or a JSON document on each line
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Arguments {
    fn query(&self) -> EventQuery {
        let mut query = EventQuery::log();
        if !self.category.is_empty() {
            query = query.categories(&self.category);
        }
        if !self.types.is_empty() {
            query = query.event_types(&self.types);
        }
        if let Some(id) = &self.correlation {
            query = query.correlation_id(id);
        }
        if let Some(from) = self.from {
            query = query.after(Position::new(from - 1));
        }
        if self.include_archived {
            query = query.include_archived();
        }
        query
    }
}

pub(super) async fn run(app: &App, arguments: Arguments) -> Result<Exit, Failure> {
    let store = arguments.database.open(app).await?;
    let mut printer = Printer { output: arguments.output, rows: Rows::default() };
    // What is recorded by now comes first, what comes later is followed.
    let now = store.safe_position().await?;
    let reader = recorded(&store, &arguments, now, &mut printer).await?;
    if arguments.follow && reader == Reader::There {
        let cursor = store.cursor(arguments.query().after(now));
        follow(&store, cursor, &mut printer).await?;
    }
    store.close().await;
    Ok(Exit::Success)
}

/// Prints what is recorded up to a position.
async fn recorded(
    store: &EventStore,
    arguments: &Arguments,
    up_to: Position,
    printer: &mut Printer,
) -> Result<Reader, Failure> {
    let mut query = arguments.query().up_to(up_to);
    if let Some(time) = arguments.since {
        query = query.from_time(time);
    }
    let begins = arguments.from.is_some() || arguments.since.is_some();
    let Some(limit) = arguments.limit.or((!begins).then_some(LAST)) else {
        let mut cursor = store.cursor(query);
        loop {
            let events = cursor.next_page().await?;
            if events.is_empty() {
                return Ok(Reader::There);
            }
            if printer.print(&events)? == Reader::Gone {
                return Ok(Reader::Gone);
            }
        }
    };
    // The last of them, from the end.
    let mut cursor = store.cursor(query.backward().limit(limit));
    let mut last = Vec::new();
    loop {
        let events = cursor.next_page().await?;
        if events.is_empty() {
            last.reverse();
            return printer.print(&last);
        }
        last.extend(events);
    }
}

/// Prints what a cursor comes to, until nobody reads on. It survives a server that restarts: the cursor
/// stays where it is.
async fn follow(
    store: &EventStore,
    mut cursor: Cursor,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut listener = None;
    let mut is_away = false;
    loop {
        match next(store, &mut cursor, &mut listener).await {
            Ok(events) => {
                if std::mem::take(&mut is_away) {
                    eprintln!("the database is back");
                }
                if printer.print(&events)? == Reader::Gone {
                    return Ok(());
                }
            }
            Err(error) if error.is_retryable() => {
                if !std::mem::replace(&mut is_away, true) {
                    eprintln!("waiting for the database: {}", Failure::from(error));
                }
                tokio::time::sleep(POLL).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The next events, or none after a while.
async fn next(
    store: &EventStore,
    cursor: &mut Cursor,
    listener: &mut Option<Listener>,
) -> Result<Vec<Recorded>, Error> {
    let events = cursor.next_page().await?;
    if !events.is_empty() {
        return Ok(events);
    }
    match listener {
        Some(listener) if !listener.is_closed() => listener.wait(POLL).await,
        // What was appended before it listens is looked for first.
        other => *other = Some(store.database()?.listen().await?),
    }
    Ok(Vec::new())
}

/// Prints events as they come.
#[derive(Debug)]
struct Printer {
    output: Output,
    rows: Rows,
}

impl Printer {
    fn print(&mut self, events: &[Recorded]) -> Result<Reader, Failure> {
        match self.output {
            _ if events.is_empty() => {}
            Output::Text => return print_on(&self.rows.next(events)?),
            // Each goes out by itself, to be read as soon as it is there.
            Output::Json => {
                for event in events {
                    let line = serde_json::to_string(&Record::of(event)?)?;
                    if print_on(&line)? == Reader::Gone {
                        return Ok(Reader::Gone);
                    }
                }
            }
        }
        Ok(Reader::There)
    }
}
