//! What is checked of every event before it is sent.

use chrono::{DateTime, Utc};

use super::Options;
use crate::{append::NewEvent, clock::to_micros, error::Error, trace};

/// Checks the events of one append, in the order of their positions.
#[derive(Clone, Copy)]
pub(super) struct Check<'a> {
    options: &'a Options,
    so_far: SoFar,
}

/// What the events checked so far come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SoFar {
    /// The last time that an event brought.
    last: Option<DateTime<Utc>>,
    events: usize,
    bytes: usize,
}

impl<'a> Check<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self::resume(options, SoFar::default())
    }

    /// Goes on where another check of the same append stopped.
    pub(super) fn resume(options: &'a Options, so_far: SoFar) -> Self {
        Self { options, so_far }
    }

    pub(super) fn so_far(&self) -> SoFar {
        self.so_far
    }

    /// Checks the next event and brings its times into the database's form.
    pub(super) fn event(&mut self, event: &mut NewEvent) -> Result<(), Error> {
        if event.metadata.traceparent.is_none() {
            event.metadata.traceparent = trace::current();
        }
        self.size(event)?;
        if let Some(reason) = unstorable(event) {
            return Err(Error::invalid_append(reason));
        }
        event.occurred_at = event.occurred_at.map(to_micros);
        event.recorded_at = event.recorded_at.map(to_micros);
        if event.recorded_at.is_some() && !self.options.clock.is_supplied() {
            return Err(Error::invalid_append(
                "it brings a recording time and the store's clock is the database's; \
                 open the store with a supplied clock",
            ));
        }
        if let (Some(given), Some(last)) = (event.recorded_at, self.so_far.last)
            && given < last
        {
            return Err(Error::ClockWentBack { given, last });
        }
        self.so_far.last = self.so_far.last.max(event.recorded_at);
        self.so_far.events += 1;
        Ok(())
    }

    fn size(&mut self, event: &mut NewEvent) -> Result<(), Error> {
        if self.so_far.events == self.options.max_append_events {
            return Err(Error::invalid_append(format!(
                "it has more than {} events; split it, or raise max_append_events",
                self.options.max_append_events
            )));
        }
        let mut bytes = event.payload.as_bytes().len();
        if !event.metadata.is_empty() {
            bytes += serde_json::to_vec(&event.metadata)
                .map_err(|source| Error::Encode { what: "metadata".to_owned(), source })?
                .len();
        }
        if bytes > self.options.max_event_bytes {
            return Err(Error::invalid_append(format!(
                "event {:?} has {bytes} bytes, the limit is {}; store large data elsewhere and \
                 refer to it, or raise max_event_bytes",
                event.event_type, self.options.max_event_bytes
            )));
        }
        event.bytes = bytes;
        self.so_far.bytes += bytes;
        if self.so_far.bytes > self.options.max_append_bytes {
            return Err(Error::invalid_append(format!(
                "its events have more than {} bytes together; split it, or raise max_append_bytes",
                self.options.max_append_bytes
            )));
        }
        Ok(())
    }
}

/// An idempotency key is 1 to 255 bytes without control characters.
pub(super) fn idempotency_key(key: &str) -> Result<(), Error> {
    if key.is_empty() || key.len() > 255 || key.chars().any(char::is_control) {
        return Err(Error::invalid_append(format!(
            "{key:?} is no idempotency key: 1 to 255 bytes, no control characters"
        )));
    }
    Ok(())
}

/// What PostgreSQL would refuse, or take now and fail on later.
fn unstorable(event: &NewEvent) -> Option<String> {
    let kind = &event.event_type;
    if kind.is_empty() || kind.len() > 128 || kind.chars().any(char::is_control) {
        return Some(format!("{kind:?} is no event type: 1 to 128 bytes, no control characters"));
    }
    if i32::try_from(event.schema_version).is_err() || event.schema_version == 0 {
        return Some(format!("{} is no schema version: they start at 1", event.schema_version));
    }
    let custom = &event.metadata.custom;
    let metadata = custom.keys().map(String::as_str).any(|key| key.contains('\0'))
        || custom.values().any(|value| has_nul(value.to_string().as_bytes()))
        || [
            &event.metadata.correlation_id,
            &event.metadata.causation_id,
            &event.metadata.actor,
            &event.metadata.traceparent,
        ]
        .into_iter()
        .flatten()
        .any(|value| value.contains('\0'));
    (metadata || has_nul(event.payload.as_bytes()))
        .then(|| format!("event {kind:?} holds the character \\u0000, which no text column can"))
}

/// True if JSON text holds an escaped NUL: `\u0000` behind an even number of backslashes.
fn has_nul(json: &[u8]) -> bool {
    let mut from = 0;
    while let Some(at) = json[from..].iter().position(|byte| *byte == b'\\') {
        let escape = &json[from + at..];
        if escape.starts_with(b"\\u0000") {
            return true;
        }
        // Skip the escaped character too: it may be a backslash.
        from += at + escape.len().min(2);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::has_nul;
    use crate::{Append, Error, EventStore, ExpectedVersion, NewEvent, Payload, StreamId};

    fn append(payloads: &[&'static str]) -> Append {
        let events = payloads
            .iter()
            .map(|payload| NewEvent::raw("noted", 1, Payload::from_json(*payload).unwrap()));
        Append::to(StreamId::new("note", 1).unwrap(), ExpectedVersion::Any, events)
    }

    #[tokio::test]
    async fn the_limits_that_are_set_are_kept() {
        let store = EventStore::options().max_event_bytes(8).max_append_events(2).in_memory();
        for refused in [append(&["\"1234567\""]), append(&["1", "2", "3"])] {
            let error = store.append(refused).await.unwrap_err();
            assert!(matches!(error, Error::InvalidAppend { .. }), "{error}");
        }
        store.append(append(&["\"123456\"", "2"])).await.unwrap();
    }

    #[test]
    fn an_escaped_nul_is_told_from_an_escaped_backslash() {
        assert!(has_nul(br#"{"a":"\u0000"}"#));
        assert!(has_nul(br#"{"a":"\\\u0000"}"#));
        assert!(!has_nul(br#"{"a":"\\u0000"}"#));
        assert!(!has_nul(br#"{"a":"\u0001 \n"}"#));
        assert!(!has_nul(br#"{"a":"u0000"}"#));
    }
}
