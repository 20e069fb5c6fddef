//! What a record is, what it should be, and where the two differ.

use std::fmt;

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use crate::{
    error::Error,
    event::Recorded,
    ids::Position,
    kafka::{
        cloud_events::Headers, options::Settings, publication::Router, record::ENDS_TRANSACTION,
    },
};

/// A part of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Its key.
    Key,
    /// Its value.
    Payload,
    /// A header, by its name: another value, missing, or there without a reason.
    Header(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("the key"),
            Self::Payload => f.write_str("the payload"),
            Self::Header(name) => write!(f, "the header {name:?}"),
        }
    }
}

type HeaderList = Vec<(String, Vec<u8>)>;

/// What a topic holds.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) offset: i64,
    pub(super) key: Vec<u8>,
    pub(super) payload: Vec<u8>,
    pub(super) headers: HeaderList,
}

impl Record {
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let header = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), header.value.unwrap_or_default().to_vec())
        };
        Self {
            offset: message.offset(),
            key: message.key().unwrap_or_default().to_vec(),
            payload: message.payload().unwrap_or_default().to_vec(),
            headers: headers.map(header).collect(),
        }
    }

    /// Whether it is there for the end of its transaction alone.
    pub(super) fn ends_transaction(&self) -> bool {
        self.headers.iter().any(|(name, _)| name == ENDS_TRANSACTION)
    }

    pub(super) fn bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.len() + self.payload.len() + headers
    }

    fn header(&self, wanted: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| &**value)
    }

    /// The position that it says it has.
    pub(super) fn position(&self) -> Option<Position> {
        let text = std::str::from_utf8(self.header("ce_sequence")?).ok()?;
        let position: i64 = text.parse().ok()?;
        (position > 0).then(|| Position::new(position))
    }

    /// Whether it says that it is this event: positions alone do not tell apart the events of two
    /// stores.
    pub(super) fn is_of(&self, event: &Recorded) -> bool {
        self.position() == Some(event.position)
            && self.header("ce_id") == Some(event.id.to_string().as_bytes())
    }
}

/// What should be there of an event.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) topic: String,
    pub(super) key: Vec<u8>,
    payload: Bytes,
    headers: HeaderList,
}

/// Knows what a publisher makes of events.
#[derive(Debug)]
pub(super) struct Expectations<'a> {
    settings: &'a Settings,
    router: Router,
    headers: Headers,
}

impl<'a> Expectations<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        let router = Router::new(&settings.context, &settings.publication);
        let headers =
            Headers::new(&settings.context, settings.disclosure, settings.schemas.clone());
        Self { settings, router, headers }
    }

    /// The record of an event; `None` if it is not published.
    ///
    /// # Errors
    /// If the event has no public form or no topic.
    pub(super) fn of(&mut self, stored: &Recorded) -> Result<Option<Expected>, Error> {
        let Some(event) = self.settings.publication.publish(stored)? else { return Ok(None) };
        let mut headers = Vec::new();
        self.headers.write(&event, |name, value| headers.push((name.to_owned(), value.to_vec())));
        Ok(Some(Expected {
            topic: self.router.topic(stored)?.to_string(),
            key: event.stream.key().as_bytes().to_vec(),
            payload: Bytes::copy_from_slice(event.event.as_bytes()),
            headers,
        }))
    }
}

impl Expected {
    /// Where a record first differs, if it does. The order of headers means nothing.
    pub(super) fn differs_from(&self, record: &Record) -> Option<Part> {
        if record.key != self.key {
            return Some(Part::Key);
        }
        if record.payload != self.payload {
            return Some(Part::Payload);
        }
        if record.headers == self.headers {
            return None;
        }
        let sorted = |headers: &HeaderList| {
            let mut headers = headers.clone();
            headers.sort();
            headers
        };
        let (found, expected) = (sorted(&record.headers), sorted(&self.headers));
        let other = |of: &HeaderList, than: &HeaderList| {
            of.iter().find(|header| !than.contains(header)).map(|(name, _)| name.clone())
        };
        let longer = || found.windows(2).find(|two| two[0] == two[1]).map(|two| two[0].0.clone());
        let differs = other(&expected, &found).or_else(|| other(&found, &expected));
        // Or the same header is there twice.
        let twice = || (found != expected).then(longer).flatten();
        differs.or_else(twice).map(Part::Header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&str, &str)]) -> HeaderList {
        all.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn every_difference_is_seen_and_named() {
        let expected = Expected {
            topic: "t".into(),
            key: b"k".to_vec(),
            payload: Bytes::from_static(b"{}"),
            headers: headers(&[("b", "2"), ("a", "1")]),
        };
        let differs = |key: &str, payload: &str, all: &[(&str, &str)]| {
            let (key, payload) = (key.as_bytes().to_vec(), payload.as_bytes().to_vec());
            expected.differs_from(&Record { offset: 0, key, payload, headers: headers(all) })
        };
        let header = |name: &str| Some(Part::Header(name.into()));
        assert_eq!(differs("k", "{}", &[("b", "2"), ("a", "1")]), None);
        assert_eq!(differs("k", "{}", &[("a", "1"), ("b", "2")]), None);
        assert_eq!(differs("K", "{}", &[("a", "1"), ("b", "2")]), Some(Part::Key));
        assert_eq!(differs("k", "{ }", &[("a", "1"), ("b", "2")]), Some(Part::Payload));
        assert_eq!(differs("k", "{}", &[("a", "1"), ("b", "3")]), header("b"));
        assert_eq!(differs("k", "{}", &[("b", "2")]), header("a"));
        assert_eq!(differs("k", "{}", &[("a", "1"), ("b", "2"), ("c", "")]), header("c"));
        assert_eq!(differs("k", "{}", &[("a", "1"), ("b", "2"), ("b", "2")]), header("b"));
    }
}
