//! Which event is meant, and where it is.

use uuid::Uuid;

use crate::{
    EventQuery, EventStore, Position, Recorded, StreamId, StreamState, Version,
    cli::{Failure, output::Bar, time::number},
};

/// Through how many positions an id is looked for before the progress is shown.
const PART: i64 = 500_000;

/// What an event is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Position(Position),
    Id(Uuid),
    /// The last one, if there is no version.
    Stream(StreamId, Option<Version>),
}

impl Name {
    /// A number is a position; else it is an id, or `category-key@version`, or `category-key`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return number(text).map(|position| Self::Position(Position::new(position)));
        }
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        let named = |name: &str| {
            let (category, key) = name.split_once('-')?;
            StreamId::new(category, key).ok()
        };
        let versioned = || {
            // A key may hold an @ too.
            let (name, version) = text.rsplit_once('@')?;
            Some(Self::Stream(named(name)?, Some(Version::new(number(version).ok()?))))
        };
        versioned().or_else(|| Some(Self::Stream(named(text)?, None))).ok_or_else(|| {
            "expected a position like 1234, the id of an event, or a stream and a version like \
             loan-7@2; for other keys, there is --stream"
                .to_owned()
        })
    }
}

/// Looks for an event, also among those of archived streams.
pub(super) async fn find(store: &EventStore, name: &Name) -> Result<Recorded, Failure> {
    match name {
        Name::Position(position) => at(store, *position).await,
        Name::Id(id) => by_id(store, *id).await,
        Name::Stream(stream, version) => of(store, stream, *version).await,
    }
}

async fn first(store: &EventStore, query: EventQuery) -> Result<Option<Recorded>, Failure> {
    let mut cursor = store.cursor(query.include_archived().limit(1));
    Ok(cursor.next_page().await?.pop())
}

async fn at(store: &EventStore, position: Position) -> Result<Recorded, Failure> {
    let end = store.safe_position().await?;
    let query = EventQuery::log().after(Position::new(position.get() - 1)).up_to(position);
    match first(store, query).await? {
        Some(event) => Ok(event),
        None if position > end => {
            Err(Failure(format!("there is no event at position {position}: the log ends at {end}")))
        }
        None => Err(Failure(format!(
            "there is no event at position {position}: an append drew it and recorded nothing"
        ))),
    }
}

async fn by_id(store: &EventStore, id: Uuid) -> Result<Recorded, Failure> {
    let end = store.safe_position().await?;
    let bar = Bar::new();
    let drawn = bar.handle();
    drawn.set_message("looking for it");
    drawn.set_length(end.get().unsigned_abs());
    // From the newest on: as a rule it is one of these.
    let mut up_to = end;
    while up_to > Position::START {
        let after = Position::new(up_to.get() - PART);
        let query = EventQuery::log().event_id(id).after(after).up_to(up_to);
        if let Some(event) = first(store, query).await? {
            return Ok(event);
        }
        up_to = after;
        drawn.set_position((end.get() - up_to.get()).unsigned_abs());
    }
    Err(Failure(format!("there is no event with the id {id} up to position {end}")))
}

async fn of(
    store: &EventStore,
    stream: &StreamId,
    version: Option<Version>,
) -> Result<Recorded, Failure> {
    let query = EventQuery::stream(stream);
    let query = match version {
        Some(version) => {
            query.after_version(Version::new(version.get() - 1)).up_to_version(version)
        }
        None => query.backward(),
    };
    if let Some(event) = first(store, query).await? {
        return Ok(event);
    }
    Err(Failure(match store.stream_info(stream).await? {
        None => format!("there is no stream {stream}"),
        Some(info) if info.state == StreamState::Deleted => format!(
            "stream {stream} is deleted; its events are in the log: `events tail --category {}`",
            stream.category()
        ),
        Some(info) => format!(
            "stream {stream} has no event {}; its last is {}",
            version.unwrap_or_default(),
            info.version
        ),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_several_names() {
        let stream = |key: &str, version: Option<i64>| {
            Ok(Name::Stream(StreamId::new("loan", key).unwrap(), version.map(Version::new)))
        };
        let id = "0192f0c1-2222-7333-8444-555566667777";
        assert_eq!(Name::parse("12"), Ok(Name::Position(Position::new(12))));
        assert_eq!(Name::parse(id), Ok(Name::Id(id.parse().unwrap())));
        assert_eq!(Name::parse("loan-7@2"), stream("7", Some(2)));
        assert_eq!(Name::parse("loan-7"), stream("7", None));
        assert_eq!(Name::parse(&format!("loan-{id}@3")), stream(id, Some(3)));
        assert_eq!(Name::parse("loan-a@b.c@2"), stream("a@b.c", Some(2)));
        assert_eq!(Name::parse("loan-a@b.c"), stream("a@b.c", None));
        for nonsense in ["", "0", "loan", "Loan-7", "-7", "loan-", "99999999999999999999"] {
            assert!(Name::parse(nonsense).is_err(), "{nonsense}");
        }
    }
}
