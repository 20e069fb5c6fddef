//! `state`: what the events of a stream add up to, now or at a moment of the past.

use std::fmt::Write;

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    App, Exit, Failure,
    aggregate::{Known, State},
    database::Database,
    json,
    output::{Output, print},
    time::{moment, shown},
};
use crate::{
    AsOf, EventQuery, EventStore, Position, Recorded, Shown, StreamId, StreamState, Version,
};

/// Prints the state of an aggregate, now or as of a moment of the past
///
/// As JSON if the aggregate is Serialize, else as its Debug has it.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 if it was printed, 1 if there is none, or it could not be loaded or \
                  printed, 130 if it was stopped."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// The category of the aggregate
    category: String,

    /// Its key
    #[arg(allow_hyphen_values = true)]
    key: String,

    /// As it was: at a time in RFC 3339, or at the midnight in UTC with which a date begins; up to a
    /// position like 1234; or at a version like v3
    #[arg(long, value_name = "TIME|POSITION|vN", value_parser = moment)]
    as_of: Option<AsOf>,

    /// Which aggregate of the category, by the name of its type, where there are several
    #[arg(long, value_name = "TYPE")]
    aggregate: Option<String>,

    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) async fn run(app: &App, arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { database, category, key, as_of, aggregate, output } = arguments;
    let known = chosen(app, &category, aggregate.as_deref())?;
    let stream = StreamId::new(&category, &key)?;
    let store = database.open(app).await?;
    let state = match (known.load)(store.clone(), key, as_of).await? {
        Some(state) => state,
        None => return Err(missing(&store, &stream, as_of).await?),
    };
    if let Some(AsOf::Version(asked)) = as_of
        && asked > state.version
    {
        let last = state.version;
        return Err(Failure(format!("stream {stream} has no event {asked}; its last is {last}")));
    }
    let last = event(&store, EventQuery::stream(&stream).up_to_version(state.version).backward());
    let last = last.await?;
    store.close().await;
    let printed = match output {
        Output::Text => in_words(known, &stream, as_of, &state, last.as_ref())?,
        Output::Json => document(known, &stream, as_of, &state, last.as_ref())?,
    };
    print(&printed)?;
    Ok(Exit::Success)
}

/// The aggregate that is meant.
fn chosen<'a>(app: &'a App, category: &str, name: Option<&str>) -> Result<&'a Known, Failure> {
    let of_category: Vec<_> =
        app.aggregates.iter().filter(|known| known.category == category).collect();
    let names = || list(of_category.iter().map(|known| known.name));
    match (of_category.as_slice(), name) {
        ([], _) => {
            let mut categories: Vec<_> = app.aggregates.iter().map(|one| one.category).collect();
            categories.sort_unstable();
            categories.dedup();
            Err(Failure(match categories.as_slice() {
                [] => "this program has no aggregates; add them with App::new().aggregate::<..>()"
                    .to_owned(),
                _ => format!(
                    "this program has no aggregate of the category {category:?}, but of {}",
                    list(categories.iter().copied())
                ),
            }))
        }
        ([known], None) => Ok(known),
        (several, Some(name)) => {
            several.iter().find(|known| known.name == name).copied().ok_or_else(|| {
                let names = names();
                Failure(format!("no aggregate of the category {category:?} is {name:?}: {names}"))
            })
        }
        (_, None) => Err(Failure(format!(
            "the category {category:?} has several aggregates; choose by --aggregate: {}",
            names()
        ))),
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

async fn event(store: &EventStore, query: EventQuery) -> Result<Option<Recorded>, Failure> {
    Ok(store.cursor(query.include_archived().limit(1)).next_page().await?.pop())
}

/// Why there is no state.
async fn missing(
    store: &EventStore,
    stream: &StreamId,
    as_of: Option<AsOf>,
) -> Result<Failure, Failure> {
    let info = store.stream_info(stream).await?;
    let first = event(store, EventQuery::stream(stream)).await?;
    Ok(Failure(match (info, first, as_of) {
        (Some(info), ..) if info.state == StreamState::Deleted => {
            format!("stream {stream} is deleted")
        }
        (_, Some(first), Some(as_of)) => format!(
            "stream {stream} had no events {}; its first was recorded at {}, at position {}",
            in_time(as_of),
            shown(first.recorded_at),
            first.position
        ),
        _ => format!("there is no stream {stream}"),
    }))
}

fn in_time(as_of: AsOf) -> String {
    match as_of {
        AsOf::Time(time) => format!("as of {}", shown(time)),
        AsOf::Position(position) => format!("as of position {position}"),
        AsOf::Version(version) => format!("as of version {version}"),
        _ => "then".to_owned(),
    }
}

/// What to do about a state that cannot be printed.
fn unprintable(known: &Known) -> Failure {
    Failure(format!(
        "the state of {} cannot be printed: add #[derive(serde::Serialize)] to it, or Debug",
        known.name
    ))
}

fn in_words(
    known: &Known,
    stream: &StreamId,
    as_of: Option<AsOf>,
    state: &State,
    last: Option<&Recorded>,
) -> Result<String, Failure> {
    let mut words = stream.to_string();
    if let Some(as_of) = as_of.filter(|as_of| !matches!(as_of, AsOf::Version(_))) {
        write!(words, " {}", in_time(as_of))?;
    }
    write!(words, ": version {}, position {}", state.version, state.position)?;
    if let Some(last) = last {
        write!(words, ", recorded at {}", shown(last.recorded_at))?;
    }
    words.push_str("\n\n");
    match &state.shown {
        Ok(Shown::Json(json)) => words.push_str(&json::pretty(json)),
        Ok(Shown::Debug(debug)) => words.push_str(debug),
        Ok(_) => return Err(unprintable(known)),
        Err(error) => return Err(unwritable(known, error)),
    }
    Ok(words)
}

fn unwritable(known: &Known, error: &serde_json::Error) -> Failure {
    Failure(format!("the state of {} cannot be written as JSON: {error}", known.name))
}

#[derive(Serialize)]
struct Document<'a> {
    stream: String,
    category: &'a str,
    key: &'a str,
    aggregate: &'a str,
    as_of: Option<Moment>,
    version: Version,
    position: Position,
    recorded_at: Option<String>,
    state: Option<Box<RawValue>>,
    debug: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Moment {
    Time(String),
    Position(Position),
    Version(Version),
}

fn document(
    known: &Known,
    stream: &StreamId,
    as_of: Option<AsOf>,
    state: &State,
    last: Option<&Recorded>,
) -> Result<String, Failure> {
    let (json, debug) = match &state.shown {
        Ok(Shown::Json(json)) => (Some(RawValue::from_string(json.clone())?), None),
        Ok(Shown::Debug(debug)) => (None, Some(debug.as_str())),
        Ok(_) => return Err(unprintable(known)),
        Err(error) => return Err(unwritable(known, error)),
    };
    let document = Document {
        stream: stream.to_string(),
        category: stream.category(),
        key: stream.key(),
        aggregate: known.name,
        as_of: as_of.and_then(|as_of| match as_of {
            AsOf::Time(time) => Some(Moment::Time(shown(time))),
            AsOf::Position(position) => Some(Moment::Position(position)),
            AsOf::Version(version) => Some(Moment::Version(version)),
            _ => None,
        }),
        version: state.version,
        position: state.position,
        recorded_at: last.map(|last| shown(last.recorded_at)),
        state: json,
        debug,
    };
    Ok(json::pretty(&serde_json::to_string(&document)?))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;
    use crate::{Aggregate, Append, Apply, Event, ExpectedVersion, NewEvent};

    #[derive(Event, Serialize, Deserialize)]
    enum Changed {
        Changed { by: i64 },
    }

    macro_rules! aggregate {
        ($name:ident, $category:literal, $($derived:ident),*) => {
            #[derive(Aggregate, Default, $($derived),*)]
            #[aggregate(category = $category, event = Changed)]
            struct $name {
                #[allow(dead_code, reason = "it may only be printed")]
                sum: i64,
            }

            impl Apply<Changed> for $name {
                fn apply(&mut self, event: &Changed) {
                    let Changed::Changed { by } = event;
                    self.sum += by;
                }
            }
        };
    }

    aggregate!(Written, "written", Serialize);
    aggregate!(Printed, "printed", Debug);
    aggregate!(Hidden, "hidden",);
    aggregate!(Other, "hidden", Serialize);

    fn app() -> App {
        App::new().aggregate::<Written>().aggregate::<Printed>().aggregate::<Hidden>()
    }

    /// As text and as a document.
    async fn printed(known: &Known) -> Result<(String, Value), Failure> {
        let store = EventStore::in_memory();
        let stream = StreamId::new(known.category, 1)?;
        for by in [3, 4] {
            let event = NewEvent::of(&Changed::Changed { by })?;
            store.append(Append::to(stream.clone(), ExpectedVersion::Any, [event])).await?;
        }
        let state = (known.load)(store, "1".to_owned(), None).await?.unwrap();
        let words = in_words(known, &stream, None, &state, None)?;
        Ok((words, serde_json::from_str(&document(known, &stream, None, &state, None)?)?))
    }

    #[tokio::test]
    async fn a_state_is_printed_as_well_as_it_can_be() {
        let app = app();
        let (words, document) = printed(chosen(&app, "written", None).unwrap()).await.unwrap();
        assert_eq!(words, "written-1: version 2, position 2\n\n{\n  \"sum\": 7\n}");
        assert_eq!((&document["state"]["sum"], &document["debug"]), (&7.into(), &Value::Null));

        let (words, document) = printed(chosen(&app, "printed", None).unwrap()).await.unwrap();
        let debug = "Printed {\n    sum: 7,\n}";
        assert_eq!(words, format!("printed-1: version 2, position 2\n\n{debug}"));
        assert_eq!((&document["state"], &document["debug"]), (&Value::Null, &debug.into()));

        let refused = printed(chosen(&app, "hidden", None).unwrap()).await.unwrap_err();
        let advice = "the state of Hidden cannot be printed: add #[derive(serde::Serialize)] to it, or Debug";
        assert_eq!(refused.to_string(), advice);
    }

    #[test]
    fn of_several_aggregates_one_is_chosen() {
        let why = |app: &App, category, name| chosen(app, category, name).unwrap_err().to_string();
        let unknown = why(&app(), "account", None);
        assert!(unknown.ends_with("but of hidden, printed, written"), "{unknown}");
        assert!(why(&App::new(), "account", None).contains("App::new().aggregate::<..>()"));
        let app = app().aggregate::<Other>();
        assert_eq!(chosen(&app, "hidden", Some("Other")).unwrap().name, "Other");
        let several = why(&app, "hidden", None);
        assert!(several.ends_with("choose by --aggregate: Hidden, Other"), "{several}");
        assert!(why(&app, "hidden", Some("other")).ends_with("Hidden, Other"));
    }
}
