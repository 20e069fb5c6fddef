//! Histories: what writers asked for and were told, what readers saw, and whether it fits together.
//!
//! A stress tool gives each writer and each reader a [`Recorder`], which writes one JSON object a
//! line. When all is quiet it records the whole log once. [`read`] takes the lines back, of one file
//! or of many one after the other, and [`check()`] judges them. It is a pure function: a history that
//! was kept can be judged again.
//!
//! ```
//! use std::time::Instant;
//! use annals_eventstore::{Append, EventStore, ExpectedVersion, NewEvent, Payload, Position, StreamId};
//! use annals_eventstore::conformance::history::{self, Filter, Recorder};
//! use futures::TryStreamExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = EventStore::in_memory();
//! let mut recorder = Recorder::new("all", Instant::now(), Vec::new());
//!
//! let opened = NewEvent::raw("opened", 1, Payload::from_json("{}")?);
//! let append = Append::to(StreamId::new("account", 7)?, ExpectedVersion::NoStream, [opened]);
//! let invoked = recorder.invoked(&append);
//! recorder.answered(invoked, &store.append(append).await);
//!
//! let safe = store.safe_position().await?;
//! recorder.started(Position::START, &Filter::All);
//! let page = store.read_page(None, Position::START, safe, 100).await?;
//! recorder.page(Position::START, safe, &page);
//!
//! let log: Vec<_> = store.read_all(Position::START).try_collect().await?;
//! recorder.log(&log);
//! let verdict = history::check(&history::read(&recorder.finish()?[..])?);
//! assert!(verdict.is_sound(), "{verdict}");
//! # Ok(()) }
//! ```

mod check;
mod readers;
#[cfg(test)]
mod tests;
mod verdict;

use std::{
    io::{self, BufRead, Write},
    time::Instant,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::{
    check::check,
    verdict::{Verdict, Violation},
};
use crate::{
    append::{Append, Appended},
    error::Error,
    event::Recorded,
    ids::{Position, StreamId, Version},
};

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Entry {
    /// A writer is about to append. Without an answer, it is not known what became of it.
    Invoked {
        /// Who.
        writer: String,
        /// The append's own id.
        append: Uuid,
        /// When, in microseconds since the run began.
        at: u64,
        /// What is to be recorded.
        events: Vec<Written>,
    },
    /// The store said that the append is recorded.
    Acknowledged {
        /// The append.
        append: Uuid,
        /// When, in microseconds since the run began.
        at: u64,
        /// Where each event is.
        places: Vec<Place>,
    },
    /// The store refused the append, or it was rolled back.
    Refused {
        /// The append.
        append: Uuid,
    },
    /// The answer was lost: nobody knows.
    Indeterminate {
        /// The append.
        append: Uuid,
    },
    /// A reader starts, or starts again, from a checkpoint.
    Started {
        /// Who.
        reader: String,
        /// It has dealt with everything up to here.
        after: Position,
        /// What it is looking for.
        filter: Filter,
    },
    /// A reader has moved its checkpoint, and saw these events on the way.
    Page {
        /// Who.
        reader: String,
        /// From after this position.
        after: Position,
        /// Up to this one. It will not look for anything at or below it again.
        up_to: Position,
        /// In the order in which they came.
        events: Vec<Seen>,
    },
    /// A reader of one stream saw these events, up to the stream's end.
    Stream {
        /// Who.
        reader: String,
        /// The stream.
        stream: String,
        /// From after this version.
        after: Version,
        /// In the order in which they came.
        events: Vec<Seen>,
    },
    /// The whole log, read when all writers were done.
    Log {
        /// In the order in which they came.
        events: Vec<Seen>,
    },
}

/// An event that is to be recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its id.
    pub id: Uuid,
    /// The name of its stream.
    pub stream: String,
}

/// Where an event is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// In the log.
    pub position: Position,
    /// In its stream.
    pub version: Version,
}

/// An event as a reader saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its id.
    pub id: Uuid,
    /// The name of its stream.
    pub stream: String,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
}

impl From<&Recorded> for Seen {
    fn from(event: &Recorded) -> Self {
        Self {
            id: event.id,
            stream: event.stream.to_string(),
            place: Place { position: event.position, version: event.version },
            recorded_at: event.recorded_at,
        }
    }
}

/// Which events a reader looks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Filter {
    /// All.
    All,
    /// Those of these categories.
    Categories(Vec<String>),
}

impl Filter {
    /// The categories, as [`read_page`](crate::EventStore::read_page) takes them.
    pub fn categories(&self) -> Option<&[String]> {
        match self {
            Self::All => None,
            Self::Categories(names) => Some(names),
        }
    }

    fn matches(&self, stream: &str) -> bool {
        let category = stream.split_once('-').map_or(stream, |(category, _)| category);
        self.categories().is_none_or(|names| names.iter().any(|name| name == category))
    }
}

/// Writes down the part of a history that one writer or reader takes.
///
/// A sink that fails is noticed at the end, by [`finish`](Self::finish).
#[derive(Debug)]
pub struct Recorder<W> {
    name: String,
    start: Instant,
    sink: W,
    failed: Option<io::Error>,
}

/// An append that has been invoked and not yet answered.
#[derive(Debug)]
#[must_use = "say how it was answered"]
pub struct Invoked {
    append: Uuid,
    streams: Vec<String>,
}

impl<W: Write> Recorder<W> {
    /// A recorder for the writer or reader of this name. All recorders of a run share its `start`.
    pub fn new(name: impl Into<String>, start: Instant, sink: W) -> Self {
        Self { name: name.into(), start, sink, failed: None }
    }

    /// An append is about to be sent.
    pub fn invoked(&mut self, append: &Append) -> Invoked {
        let written = append.events.iter().map(|(stream, event)| Written {
            id: event.id,
            stream: append.streams[*stream].0.to_string(),
        });
        self.invoked_events(written.collect())
    }

    /// Events are about to be appended, by whatever way.
    pub fn invoked_events(&mut self, events: Vec<Written>) -> Invoked {
        let invoked = Invoked {
            append: Uuid::now_v7(),
            streams: events.iter().map(|event| event.stream.clone()).collect(),
        };
        let (writer, at) = (self.name.clone(), self.now());
        self.write(&Entry::Invoked { writer, append: invoked.append, at, events });
        // What comes of it may be that this program ends.
        self.flush();
        invoked
    }

    /// The store has answered.
    pub fn answered(&mut self, invoked: Invoked, outcome: &Result<Appended, Error>) {
        match outcome {
            Ok(appended) => {
                let places = places(&invoked.streams, appended);
                self.acknowledged(invoked, places);
            }
            Err(Error::Indeterminate { .. }) => self.indeterminate(invoked),
            Err(_) => self.refused(invoked),
        }
    }

    /// It is recorded, and where.
    pub fn acknowledged(&mut self, invoked: Invoked, places: Vec<Place>) {
        let at = self.now();
        self.write(&Entry::Acknowledged { append: invoked.append, at, places });
    }

    /// It was refused or rolled back.
    pub fn refused(&mut self, invoked: Invoked) {
        self.write(&Entry::Refused { append: invoked.append });
    }

    /// It is not known what became of it.
    pub fn indeterminate(&mut self, invoked: Invoked) {
        self.write(&Entry::Indeterminate { append: invoked.append });
    }

    /// The reader starts from a checkpoint.
    pub fn started(&mut self, after: Position, filter: &Filter) {
        self.write(&Entry::Started { reader: self.name.clone(), after, filter: filter.clone() });
    }

    /// The reader has moved its checkpoint.
    pub fn page(&mut self, after: Position, up_to: Position, events: &[Recorded]) {
        let events = events.iter().map(Seen::from).collect();
        self.write(&Entry::Page { reader: self.name.clone(), after, up_to, events });
    }

    /// The reader has read a stream after a version.
    pub fn stream(&mut self, stream: &StreamId, after: Version, events: &[Recorded]) {
        let (reader, stream) = (self.name.clone(), stream.to_string());
        let events = events.iter().map(Seen::from).collect();
        self.write(&Entry::Stream { reader, stream, after, events });
    }

    /// The whole log.
    pub fn log(&mut self, events: &[Recorded]) {
        self.write(&Entry::Log { events: events.iter().map(Seen::from).collect() });
    }

    /// Gives the sink back.
    ///
    /// # Errors
    /// The first failure of the sink, if any.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush();
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.sink),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn flush(&mut self) {
        if let Err(error) = self.sink.flush() {
            self.failed.get_or_insert(error);
        }
    }

    fn write(&mut self, entry: &Entry) {
        let written = serde_json::to_vec(entry).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.sink.write_all(&line)
        });
        if let Err(error) = written {
            self.failed.get_or_insert(error);
        }
    }
}

/// Where the events of an append are, of which the streams are given in the events' order.
fn places(streams: &[String], appended: &Appended) -> Vec<Place> {
    let place = |(index, stream): (usize, &String)| {
        let own = |streams: &[String]| streams.iter().filter(|other| *other == stream).count();
        let last = appended.versions.iter().find(|(id, _)| id.to_string() == *stream);
        let last = last.map_or(0, |(_, version)| version.get());
        Place {
            position: appended.first_position.plus(index),
            version: Version::new(last - own(&streams[index + 1..]) as i64),
        }
    };
    streams.iter().enumerate().map(place).collect()
}

/// Reads a history back, line by line. A last line that was cut off is left out: its writer was
/// killed.
///
/// # Errors
/// If it cannot be read, or if a line is no [`Entry`].
pub fn read(mut lines: impl BufRead) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        if line.ends_with(b"\n") {
            entries.push(serde_json::from_slice(&line)?);
        }
        line.clear();
    }
    Ok(entries)
}
