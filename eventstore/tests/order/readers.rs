//! The readers of the stress run.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use annals_eventstore::{EventStore, Position, Version, conformance::history::Filter};
use futures::TryStreamExt;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio_postgres::Client;

use crate::{
    support::TestDatabase,
    writers::{CATEGORIES, Part, SHARED_STREAMS, shared_stream},
};

/// How far readers read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reading {
    /// As the store says.
    UpToSafePosition,
    /// To the highest position that can be seen.
    UpToNewestPosition,
}

/// What a reader is like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Reads all, page after page, and polls without pause.
    Restless,
    /// Reads one category.
    OneCategory,
    /// Forgets where it was all the time, and starts from where it was a while before.
    Restarted,
    /// Asks for the safe position and for a page up to it at once.
    Looking,
    /// Reads to the end as a stream, again and again.
    Streaming,
    /// Reads the streams that all writers share, each from where it was.
    Following,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Restless,
        Self::OneCategory,
        Self::Restarted,
        Self::Looking,
        Self::Streaming,
        Self::Following,
    ];

    fn filter(self) -> Filter {
        match self {
            Self::OneCategory => Filter::Categories(vec![CATEGORIES[1].to_owned()]),
            _ => Filter::All,
        }
    }
}

pub(crate) struct Reader {
    pub(crate) kind: Kind,
    pub(crate) reading: Reading,
    pub(crate) seed: u64,
    pub(crate) database: Arc<TestDatabase>,
    pub(crate) store: EventStore,
    pub(crate) all_written: Arc<AtomicBool>,
    pub(crate) part: Part,
}

impl Reader {
    /// Reads until all is written and read. Returns how many pages it read.
    pub(crate) async fn run(self) -> (Part, usize) {
        match self.kind {
            Kind::Following => self.follow().await,
            _ => self.read().await,
        }
    }

    async fn follow(mut self) -> (Part, usize) {
        let mut streams: Vec<_> =
            (0..SHARED_STREAMS).map(|number| (shared_stream(number), Version::NONE)).collect();
        let mut pages = 0;
        loop {
            let last_poll = self.all_written.load(Ordering::Relaxed);
            for (stream, version) in &mut streams {
                let events = self.store.read_stream(stream, *version);
                let events: Vec<_> = events.try_collect().await.unwrap();
                let Some(last) = events.last() else { continue };
                self.part.stream(stream, *version, &events);
                *version = last.version;
                pages += 1;
            }
            if last_poll {
                return (self.part, pages);
            }
        }
    }

    async fn read(mut self) -> (Part, usize) {
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_add(self.kind as u64));
        let client = self.database.client_as("annals-reader").await;
        let filter = self.kind.filter();
        let mut checkpoint = Position::START;
        let mut saved = checkpoint;
        let mut pages = 0;
        self.part.started(checkpoint, &filter);
        loop {
            // Asked before the position: what was written by then is below it.
            let last_poll = self.all_written.load(Ordering::Relaxed);
            if let (Kind::Streaming, Reading::UpToSafePosition) = (self.kind, self.reading) {
                checkpoint = self.stream(checkpoint, &mut pages).await;
            } else if let (Kind::Looking, Reading::UpToSafePosition) = (self.kind, self.reading) {
                let limit = random.random_range(1..40);
                while self.look(&mut checkpoint, limit).await {
                    pages += 1;
                }
            } else {
                let up_to = self.end(&client).await;
                while checkpoint < up_to {
                    let limit = random.random_range(1..40);
                    let page = self.store.read_page(filter.categories(), checkpoint, up_to, limit);
                    let page = page.await.unwrap();
                    let after = checkpoint;
                    checkpoint = match page.last() {
                        Some(last) if page.len() == limit => last.position,
                        _ => up_to,
                    };
                    pages += 1;
                    self.part.page(after, checkpoint, &page);
                    if let Kind::Restarted = self.kind {
                        match random.random_range(0..6) {
                            0 | 1 => saved = checkpoint,
                            2 => {
                                checkpoint = saved;
                                self.part.started(checkpoint, &filter);
                            }
                            _ => {}
                        }
                    }
                }
            }
            if last_poll {
                return (self.part, pages);
            }
        }
    }

    async fn end(&self, client: &Client) -> Position {
        let newest = "select coalesce(max(position), 0) from annals.events";
        match self.reading {
            Reading::UpToSafePosition => self.store.safe_position().await.unwrap(),
            Reading::UpToNewestPosition => {
                Position::new(client.query_one(newest, &[]).await.unwrap().get(0))
            }
        }
    }

    /// Returns whether there may be more.
    async fn look(&mut self, checkpoint: &mut Position, limit: usize) -> bool {
        let (after, end) = (*checkpoint, Position::new(i64::MAX));
        let seen = self.store.look(None, after, end, limit, usize::MAX).await;
        let (safe, page) = seen.unwrap();
        let is_full = page.len() == limit;
        *checkpoint = page.last().filter(|_| is_full).map_or(safe, |last| last.position);
        self.part.page(after, *checkpoint, &page);
        is_full
    }

    async fn stream(&mut self, after: Position, pages: &mut usize) -> Position {
        let events: Vec<_> = self.store.read_all(after).try_collect().await.unwrap();
        let Some(last) = events.last() else { return after };
        self.part.page(after, last.position, &events);
        *pages += 1;
        last.position
    }
}
