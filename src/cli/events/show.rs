//! `events show`: one event whole, and what it is read as.

use std::fmt::Write;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::{
    find::{Name, find},
    record::{Record, raw, text},
};
use crate::{
    MetadataFields, Payload, Recorded, StreamId, Version,
    cli::{
        App, Exit, Failure,
        aggregate::ReadEvent,
        database::Database,
        json,
        output::{Output, print, table},
        time::{number, shown},
    },
};

/// Prints one event whole, and what this program reads it as
///
/// If it was stored in another shape than the code has now, both are shown. Events of archived streams are
/// found too. There is no index on ids: one is looked for through the whole log, from its end.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 if it was printed, 1 if there is none or the store could not be read, 2 if \
                  it cannot be decoded, 130 if it was stopped."
)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// A position, an event's id, CATEGORY-KEY@VERSION, or CATEGORY-KEY for the last one
    #[arg(
        value_name = "EVENT",
        value_parser = Name::parse,
        required_unless_present = "stream",
        conflicts_with = "stream"
    )]
    event: Option<Name>,

    /// The stream of the event, where its name is not easily written
    #[arg(long, value_names = ["CATEGORY", "KEY"], num_args = 2, allow_hyphen_values = true)]
    stream: Option<Vec<String>>,

    /// Its version; the last one unless set
    #[arg(long, value_name = "VERSION", value_parser = number, requires = "stream")]
    version: Option<i64>,

    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Arguments {
    fn name(&self) -> Result<Name, Failure> {
        match (&self.event, self.stream.as_deref()) {
            (Some(name), _) => Ok(name.clone()),
            (None, Some([category, key])) => {
                Ok(Name::Stream(StreamId::new(category, key)?, self.version.map(Version::new)))
            }
            _ => Err(Failure("no event is named".to_owned())),
        }
    }
}

pub(super) async fn run(app: &App, arguments: Arguments) -> Result<Exit, Failure> {
    let name = arguments.name()?;
    let store = arguments.database.open(app).await?;
    let event = find(&store, &name).await?;
    store.close().await;
    let readings = readings(app, &event)?;
    match arguments.output {
        Output::Text => print(&in_words(&event, &readings)?)?,
        Output::Json => print(&document(&event, &readings)?)?,
    }
    let is_read = readings.iter().all(|reading| reading.events.is_ok());
    Ok(if is_read { Exit::Success } else { Exit::Findings })
}

/// What one of the program's types of events makes of it.
#[derive(Debug)]
struct Reading {
    /// The type.
    by: &'static str,
    /// As a rule one, after a split several or none; or why it cannot be read.
    events: Result<Vec<ReadEvent>, String>,
    /// It would be stored again as it is.
    is_same: bool,
}

/// Reads an event as each of the types that the program has for its category: one, as a rule.
fn readings(app: &App, event: &Recorded) -> Result<Vec<Reading>, Failure> {
    let mut readings = Vec::new();
    let mut done = Vec::new();
    for known in app.aggregates.iter().filter(|one| one.category == event.stream.category()) {
        let (id, by) = known.events;
        if !done.contains(&id) {
            done.push(id);
            let events = (known.read)(event).map_err(|failure| failure.to_string());
            let is_same = events.as_deref().map_or(Ok(false), |events| is_same(event, events))?;
            readings.push(Reading { by, events, is_same });
        }
    }
    Ok(readings)
}

fn is_same(stored: &Recorded, read: &[ReadEvent]) -> Result<bool, Failure> {
    let [one] = read else { return Ok(false) };
    Ok(*one.event_type == *stored.event_type
        && one.schema_version == stored.schema_version
        && value(&one.payload)? == value(&stored.event)?)
}

fn value(payload: &Payload) -> Result<Value, Failure> {
    Ok(serde_json::from_slice(payload.as_bytes())?)
}

fn in_words(event: &Recorded, readings: &[Reading]) -> Result<String, Failure> {
    let mut fields = table();
    let mut field = |name: &str, value: String| {
        fields.add_row([name.to_owned(), value]);
    };
    field("stream", event.stream.to_string());
    field("version", event.version.to_string());
    field("position", event.position.to_string());
    field("type", format!("{}, version {}", event.event_type, event.schema_version));
    field("id", event.id.to_string());
    field("recorded at", shown(event.recorded_at));
    if let Some(at) = event.occurred_at {
        field("occurred at", shown(at));
    }
    let MetadataFields { correlation_id, causation_id, actor, traceparent, custom, .. } =
        &*event.metadata;
    let known = [
        ("correlation id", correlation_id),
        ("causation id", causation_id),
        ("actor", actor),
        ("traceparent", traceparent),
    ];
    for (name, value) in known {
        if let Some(value) = value {
            field(name, json::plain(value));
        }
    }
    for (name, value) in custom {
        field(&json::plain(name), json::compact(&value.to_string()));
    }
    let mut words = format!("{fields}\n\n{}\n\n", json::pretty(text(&event.event)?));
    if readings.is_empty() {
        let category = event.stream.category();
        writeln!(words, "This program has no aggregate of the category {category:?} to read it.")?;
    }
    for Reading { by, events, is_same } in readings {
        match events {
            Err(why) => writeln!(words, "{by} cannot read it: {why}")?,
            Ok(_) if *is_same => writeln!(words, "{by} reads it as it is stored.")?,
            Ok(events) if events.is_empty() => writeln!(words, "{by} reads it as no event.")?,
            Ok(events) => {
                for (index, event) in events.iter().enumerate() {
                    let ReadEvent { event_type, schema_version, payload } = event;
                    let and = if index == 0 { format!("{by} reads it as") } else { "and".into() };
                    let payload = json::pretty(text(payload)?);
                    writeln!(
                        words,
                        "{and} {event_type}, version {schema_version}:\n\n{payload}\n"
                    )?;
                }
            }
        }
    }
    Ok(words)
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    record: Record<'a>,
    read_as: Vec<ReadAs<'a>>,
}

#[derive(Serialize)]
struct ReadAs<'a> {
    by: &'a str,
    same: bool,
    events: Option<Vec<EventRead>>,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct EventRead {
    #[serde(rename = "type")]
    event_type: &'static str,
    schema_version: u32,
    payload: Box<RawValue>,
}

fn document(event: &Recorded, readings: &[Reading]) -> Result<String, Failure> {
    let read = |ReadEvent { event_type, schema_version, payload }: &ReadEvent| {
        let (event_type, schema_version) = (*event_type, *schema_version);
        Ok::<_, Failure>(EventRead { event_type, schema_version, payload: raw(payload)? })
    };
    let read_as = readings.iter().map(|Reading { by, events, is_same }| {
        let events = events.as_deref();
        Ok(ReadAs {
            by,
            same: *is_same,
            events: events.ok().map(|events| events.iter().map(read).collect()).transpose()?,
            error: events.err().map(String::as_str),
        })
    });
    let read_as = read_as.collect::<Result<_, Failure>>()?;
    let document = serde_json::to_string(&Document { record: Record::of(event)?, read_as })?;
    Ok(json::pretty(&document))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{Aggregate, Append, Apply, Event, EventStore, ExpectedVersion, NewEvent};

    #[derive(Event, Serialize, Deserialize)]
    #[event(dropped("clicked"), split("moved", Moved))]
    enum AccountEvent {
        #[event(version = 2, upcast_from = DepositedV1)]
        Deposited {
            cents: i64,
        },
        Withdrawn {
            cents: i64,
        },
    }

    #[derive(Deserialize)]
    struct DepositedV1 {
        euros: i64,
    }

    impl From<DepositedV1> for AccountEvent {
        fn from(old: DepositedV1) -> Self {
            Self::Deposited { cents: old.euros * 100 }
        }
    }

    #[derive(Deserialize)]
    struct Moved {
        cents: i64,
    }

    impl From<Moved> for Vec<AccountEvent> {
        fn from(Moved { cents }: Moved) -> Self {
            vec![AccountEvent::Withdrawn { cents }, AccountEvent::Deposited { cents }]
        }
    }

    #[derive(Aggregate, Default)]
    #[aggregate(category = "account", event = AccountEvent)]
    struct Account;

    impl Apply<AccountEvent> for Account {
        fn apply(&mut self, _: &AccountEvent) {}
    }

    /// Of the same category, with the same events.
    #[derive(Aggregate, Default)]
    #[aggregate(category = "account", event = AccountEvent)]
    struct Audit;

    impl Apply<AccountEvent> for Audit {
        fn apply(&mut self, _: &AccountEvent) {}
    }

    /// What is said of an event, below its payload, and the document's part.
    async fn said(event_type: &str, version: u32, payload: &'static str) -> (String, Value) {
        let store = EventStore::in_memory();
        let stream = StreamId::new("account", 1).unwrap();
        let event = NewEvent::raw(event_type, version, Payload::from_json(payload).unwrap());
        let append = Append::to(stream.clone(), ExpectedVersion::Any, [event]);
        store.append(append).await.unwrap();
        let event = find(&store, &Name::Stream(stream, None)).await.unwrap();
        let app = App::new().aggregate::<Account>().aggregate::<Audit>().aggregate::<Account>();
        let readings = readings(&app, &event).unwrap();
        let words = in_words(&event, &readings).unwrap();
        let (_, below) = words.split_once(&json::pretty(payload)).unwrap();
        let document: Value = serde_json::from_str(&document(&event, &readings).unwrap()).unwrap();
        (below.trim().to_owned(), document["read_as"].clone())
    }

    #[tokio::test]
    async fn what_became_of_an_event_is_shown() {
        let (words, read) = said("deposited", 2, r#"{ "cents": 5 }"#).await;
        assert_eq!(words, "AccountEvent reads it as it is stored.");
        assert_eq!((&read[0]["same"], read.as_array().unwrap().len()), (&true.into(), 1));

        let (words, read) = said("deposited", 1, r#"{"euros":2}"#).await;
        let upcast = "AccountEvent reads it as deposited, version 2:\n\n{\n  \"cents\": 200\n}";
        assert_eq!(words, upcast);
        assert_eq!(read[0]["same"], false);
        assert_eq!(read[0]["events"][0]["payload"]["cents"], 200);

        let (words, read) = said("moved", 1, r#"{"cents":7}"#).await;
        let split = "AccountEvent reads it as withdrawn, version 1:\n\n{\n  \"cents\": 7\n}\n\n\
                     and deposited, version 2:\n\n{\n  \"cents\": 7\n}";
        assert_eq!(words, split);
        assert_eq!(read[0]["events"].as_array().unwrap().len(), 2);

        let (words, read) = said("clicked", 1, "{}").await;
        assert_eq!(words, "AccountEvent reads it as no event.");
        assert_eq!((&read[0]["same"], &read[0]["events"]), (&false.into(), &Value::Array(vec![])));

        let (words, read) = said("deposited", 3, "{}").await;
        assert!(words.starts_with("AccountEvent cannot read it: "), "{words}");
        assert!(words.ends_with("deploy the newer code here"), "{words}");
        assert_eq!(read[0]["events"], Value::Null);
    }
}
