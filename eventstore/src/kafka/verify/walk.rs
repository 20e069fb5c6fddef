//! The driver: it goes through the log and all partitions side by side.

use std::{collections::HashMap, sync::Arc};

use futures::TryStreamExt as _;
use rdkafka::ClientConfig;
use tokio::task::spawn_blocking;

use super::{
    Finding, Place, Progress, Subject, Topic, Verification,
    ledger::{Late, Ledger, Meeting},
    outcome::{Recorder, Report},
    reader::{self, Reader},
    record::{Expectations, Expected, Record},
};
use crate::{
    error::Error,
    event::Recorded,
    ids::Position,
    kafka::{
        self, Delivery, ProgressRecord, Publisher, partitioner::partition_of,
        producer::broker_error, reader::Unread, topics,
    },
    life::StreamState,
    postgres::Checkpoint,
    query::EventQuery,
    store::EventStore,
};

/// So many events are looked up at a time: repeats come in rows.
const LOOKED_UP: usize = 500;
/// So often it is told how far it is, in events.
const REPORTED: u64 = 1000;

/// A verification under way.
pub(super) struct Walk<'a> {
    store: &'a EventStore,
    config: ClientConfig,
    expectations: Expectations<'a>,
    /// By their names; `None` if there is none of this name.
    topics: HashMap<String, Option<Opened>>,
    published: Position,
    log_end: Position,
    lookup: Vec<Recorded>,
    recorder: Recorder,
    report: Option<Report>,
    repeats: Repeats,
    events: u64,
    records: u64,
    repeated: u64,
    expired: u64,
    archived: u64,
}

/// What repeats are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeats {
    Findings,
    Counted,
}

struct Opened {
    name: Arc<str>,
    reader: Reader,
    /// One for each partition.
    ledgers: Vec<Ledger>,
    since: Since,
}

/// When a topic was opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Since {
    /// Before the end of the log was taken, so it holds nothing from above that.
    Before,
    After,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Home {
    topic: Arc<str>,
    partition: i32,
}

impl<'a> Walk<'a> {
    /// Finds out what there is to compare.
    pub(super) async fn start(
        publisher: &'a Publisher,
        max_findings: usize,
        report: Option<Report>,
    ) -> Result<Self, Error> {
        let Publisher { store, settings, .. } = publisher;
        // In this order: what is noted as published is in the topics by now, and what is in the topics
        // is in the log by then.
        let published = published(publisher).await?;
        let config = reader::consumer_config(&settings.client);
        let (context, connection) = (settings.context.clone(), config.clone());
        let declared: Vec<_> = settings.plan.declared().map(str::to_owned).collect();
        let open = move || {
            let names = reader::names(&connection, |name| {
                topics::is_of(&context, name) || declared.iter().any(|topic| topic == name)
            })?;
            let opened = names.into_iter().map(|name| {
                let reader = Reader::open(&connection, &name)?;
                Ok((name, reader.map(|reader| Opened::new(reader, Since::Before))))
            });
            opened.collect::<Result<HashMap<_, _>, Error>>()
        };
        let topics = blocking(open).await?;
        let log_end = store.safe_position().await?;
        Ok(Self {
            store,
            config,
            expectations: Expectations::new(settings),
            topics,
            published,
            log_end,
            lookup: Vec::new(),
            recorder: Recorder::new(max_findings),
            report,
            repeats: match settings.delivery {
                Delivery::AtLeastOnce => Repeats::Counted,
                Delivery::ExactlyOnce => Repeats::Findings,
            },
            events: 0,
            records: 0,
            repeated: 0,
            expired: 0,
            archived: 0,
        })
    }

    pub(super) async fn run(mut self) -> Result<Verification, Error> {
        let log = EventQuery::log().include_archived().up_to(self.log_end);
        let mut log = std::pin::pin!(self.store.read(log));
        while let Some(event) = log.try_next().await? {
            if event.position > self.published && self.all_are_read() {
                break;
            }
            self.event(&event).await?;
            self.events += 1;
            if self.events.is_multiple_of(REPORTED) {
                self.tell(event.position);
            }
        }
        let homes = self.homes();
        for home in &homes {
            while self.front(home).await?.is_some() {
                self.stray(home).await?;
            }
        }
        for home in &homes {
            let missing = self.ledger(home).map(Ledger::close);
            for event in missing.into_iter().flatten().collect::<Vec<_>>() {
                self.lost(event, &home.topic).await?;
            }
        }
        self.tell(self.log_end);
        Ok(self.finish())
    }

    /// Looks for the record of the next event of the log.
    async fn event(&mut self, event: &Recorded) -> Result<(), Error> {
        let Some(expected) = self.expectations.of(event)? else { return Ok(()) };
        let Some(home) = self.home(&expected).await? else {
            if event.position <= self.published {
                self.lost(subject(event), &expected.topic).await?;
            }
            return Ok(());
        };
        loop {
            let meeting = self.front(&home).await?.map(|record| Meeting::of(record, event));
            match meeting {
                Some(Meeting::Its) => {
                    if let Some(record) = self.pop(&home) {
                        self.compare(&home, event, &expected, &record);
                    }
                    if let Some(ledger) = self.ledger(&home) {
                        ledger.came(event.position);
                    }
                    return Ok(());
                }
                None => return self.missed(&home, event).await,
                Some(Meeting::Later) if self.front_is_genuine(&home).await? => {
                    return self.missed(&home, event).await;
                }
                Some(Meeting::Later | Meeting::Stray) => self.stray(&home).await?,
            }
        }
    }

    /// An event has no record where it should be.
    async fn missed(&mut self, home: &Home, event: &Recorded) -> Result<(), Error> {
        let published = self.published;
        let Some(opened) = self.opened(home) else { return Ok(()) };
        let index = home.partition as usize;
        let Some((partition, ledger)) =
            opened.reader.partitions.get(index).zip(opened.ledgers.get_mut(index))
        else {
            return Ok(());
        };
        if partition.begin > 0 && ledger.last == Position::START {
            self.expired += 1;
        } else if partition.is_read() && event.position > published {
            // It is on its way.
        } else if let Some(event) = ledger.missed(subject(event)) {
            self.lost(event, &home.topic).await?;
        }
        Ok(())
    }

    /// Judges the next record of a partition, which is not that of the next event.
    async fn stray(&mut self, home: &Home) -> Result<(), Error> {
        let since = self.opened(home).map(|opened| opened.since);
        let Some(record) = self.pop(home) else { return Ok(()) };
        let at = home.place(&record);
        let Some(position) = record.position() else {
            self.recorder.found(Finding::Unreadable { at });
            return Ok(());
        };
        if position > self.log_end && since == Some(Since::After) {
            return Ok(());
        }
        let Some(event) = self.find(position).await?.filter(|event| record.is_of(event)) else {
            self.recorder.found(Finding::Foreign { at, position });
            return Ok(());
        };
        let Some(expected) = self.expectations.of(&event)? else {
            self.recorder.found(Finding::Withheld { event: subject(&event), at });
            return Ok(());
        };
        if self.home(&expected).await?.as_ref() != Some(home) {
            let (event, topic) = (subject(&event), expected.topic);
            self.recorder.found(Finding::Misplaced { event, at, topic });
            return Ok(());
        }
        match self.ledger(home).map(|ledger| ledger.late(position)) {
            Some(Late::After(after)) => {
                let event = subject(&event);
                self.recorder.found(Finding::OutOfOrder { event, at, after });
            }
            Some(Late::Again) | None => {
                self.repeated += 1;
                if self.repeats == Repeats::Findings {
                    self.recorder.found(Finding::Repeated { event: subject(&event), at });
                }
            }
        }
        self.compare(home, &event, &expected, &record);
        Ok(())
    }

    /// Whether the next record is of an event that belongs there.
    async fn front_is_genuine(&mut self, home: &Home) -> Result<bool, Error> {
        let Some(record) = self.front(home).await?.cloned() else { return Ok(false) };
        let Some(position) = record.position() else { return Ok(false) };
        let Some(event) = self.find(position).await?.filter(|event| record.is_of(event)) else {
            return Ok(false);
        };
        let Some(expected) = self.expectations.of(&event)? else { return Ok(false) };
        Ok(self.home(&expected).await?.as_ref() == Some(home))
    }

    fn compare(&mut self, home: &Home, event: &Recorded, expected: &Expected, record: &Record) {
        if let Some(part) = expected.differs_from(record) {
            let (event, at) = (subject(event), home.place(record));
            self.recorder.found(Finding::Altered { event, at, part });
        }
    }

    /// An event is not there, and will not come.
    async fn lost(&mut self, event: Subject, topic: &str) -> Result<(), Error> {
        // When nothing but the number of findings matters any more, it is not worth a question.
        if !self.recorder.is_full() {
            let known = self.store.stream_info(&event.stream).await?;
            if known.is_some_and(|known| known.state == StreamState::Archived) {
                self.archived += 1;
                return Ok(());
            }
        }
        self.recorder.found(Finding::Lost { event, topic: topic.to_owned() });
        Ok(())
    }

    /// The event at a position, if there is one.
    async fn find(&mut self, position: Position) -> Result<Option<Recorded>, Error> {
        if position > self.log_end {
            return Ok(None);
        }
        let is_in = |page: &[Recorded]| {
            let ends = page.first().zip(page.last());
            ends.is_some_and(|(first, last)| (first.position..=last.position).contains(&position))
        };
        if !is_in(&self.lookup) {
            let after = Position::new(position.get() - 1);
            let query = EventQuery::log().include_archived().after(after).up_to(self.log_end);
            self.lookup = self.store.cursor(query.page_size(LOOKED_UP)).next_page().await?;
        }
        let found = self.lookup.binary_search_by_key(&position, |event| event.position);
        Ok(found.ok().and_then(|index| self.lookup.get(index)).cloned())
    }

    /// The partition of a record. `None` if its topic does not exist.
    async fn home(&mut self, expected: &Expected) -> Result<Option<Home>, Error> {
        if !self.topics.contains_key(&expected.topic) {
            let (config, topic) = (self.config.clone(), expected.topic.clone());
            let opened = blocking(move || Reader::open(&config, &topic)).await?;
            let opened = opened.map(|reader| Opened::new(reader, Since::After));
            self.topics.insert(expected.topic.clone(), opened);
        }
        let Some(Some(opened)) = self.topics.get(&expected.topic) else { return Ok(None) };
        // Kafka's numbers of partitions are such.
        let partitions = opened.ledgers.len() as i32;
        let partition = partition_of(&expected.key, partitions);
        Ok(Some(Home { topic: opened.name.clone(), partition }))
    }

    fn opened(&mut self, home: &Home) -> Option<&mut Opened> {
        self.topics.get_mut(&*home.topic)?.as_mut()
    }

    fn ledger(&mut self, home: &Home) -> Option<&mut Ledger> {
        self.opened(home)?.ledgers.get_mut(home.partition as usize)
    }

    async fn front(&mut self, home: &Home) -> Result<Option<&Record>, Error> {
        match self.opened(home) {
            Some(opened) => opened.reader.front(home.partition).await,
            None => Ok(None),
        }
    }

    fn pop(&mut self, home: &Home) -> Option<Record> {
        let record = self.opened(home)?.reader.pop(home.partition)?;
        self.records += 1;
        Some(record)
    }

    fn homes(&self) -> Vec<Home> {
        let opened = self.topics.values().flatten();
        let homes = opened.flat_map(|opened| {
            let topic = opened.name.clone();
            (0..opened.ledgers.len())
                .map(move |partition| Home { topic: topic.clone(), partition: partition as i32 })
        });
        let mut homes: Vec<_> = homes.collect();
        homes.sort_by(|one, other| {
            (&one.topic, one.partition).cmp(&(&other.topic, other.partition))
        });
        homes
    }

    fn all_are_read(&self) -> bool {
        self.topics.values().flatten().all(|opened| opened.reader.is_read())
    }

    fn tell(&mut self, position: Position) {
        let of = self.log_end.get().unsigned_abs();
        let (done, records) = (position.get().unsigned_abs(), self.records);
        if let Some(report) = &mut self.report {
            report(Progress { done, of, records });
        }
    }

    fn finish(self) -> Verification {
        let mut opened: Vec<_> = self.topics.into_values().flatten().collect();
        opened.sort_by(|one, other| one.name.cmp(&other.name));
        let held_back = opened.iter_mut().flat_map(|opened| opened.reader.held_back.drain(..));
        let held_back = held_back.collect();
        let topic = |opened: Opened| Topic {
            name: opened.reader.topic.clone(),
            partitions: opened.ledgers.len() as i32,
            records: opened.reader.records,
        };
        Verification {
            published: self.published,
            log_end: self.log_end,
            events: self.events,
            topics: opened.into_iter().map(topic).collect(),
            repeated: self.repeated,
            expired: self.expired,
            archived: self.archived,
            held_back,
            findings: self.recorder.findings,
            counts: self.recorder.counts,
        }
    }
}

impl Opened {
    fn new(reader: Reader, since: Since) -> Self {
        let ledgers = reader.partitions.iter().map(|_| Ledger::default()).collect();
        Self { name: reader.topic.as_str().into(), reader, ledgers, since }
    }
}

impl Home {
    fn place(&self, record: &Record) -> Place {
        Place { topic: self.topic.to_string(), partition: self.partition, offset: record.offset }
    }
}

fn subject(event: &Recorded) -> Subject {
    let Recorded { stream, version, position, .. } = event;
    Subject { stream: stream.clone(), version: *version, position: *position }
}

/// How far the store is published, as the publisher says in Kafka or in the database.
async fn published(publisher: &Publisher) -> Result<Position, Error> {
    let database = publisher.store.database()?;
    let kept = Checkpoint::position_of(database, Publisher::CHECKPOINT).await?;
    let key = publisher.transactional_id(database).await?;
    let settings = publisher.settings.clone();
    let topic = ProgressRecord::topic(&settings.context);
    let told = blocking(move || {
        let config = reader::consumer_config(&settings.client);
        if reader::names(&config, |name| name == topic)?.is_empty() {
            return Ok(None);
        }
        let action = || format!("read in {topic} how far the store is published");
        let progress = kafka::reader::Reader::new(&settings.client)
            .map_err(Unread::Broker)
            .and_then(|reader| reader.progress(&topic, &key));
        progress.map_err(|unread| match unread {
            Unread::Broker(error) => broker_error(action(), error),
            Unread::Record(error) => broker_error(action(), error),
        })
    });
    let told = told.await?.map(|progress| progress.position);
    Ok(kept.max(told).unwrap_or_default())
}

/// Runs what blocks on a thread where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(|error| Error::Broker {
        action: "look at the topics".to_owned(),
        source: Box::new(error),
    })?
}
