//! Reading the published log from Kafka.
//!
//! A [`Source`] is a context whose [publisher](annals_eventstore::kafka::Publisher) puts its events into
//! topics. A [`Subscription`] yields the events of some categories page by page, as they were in the log:
//! **in the order of their positions, each once**, over all partitions and topics.
//!
//! ```no_run
//! # use annals_eventstore::Event;
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Event, Serialize, Deserialize)]
//! # enum LoanEvent { Granted { cents: i64 } }
//! # async fn store(_: &str) {}
//! # async fn run(token: Option<&str>) -> Result<(), Box<dyn std::error::Error>> {
//! use annals_projections::kafka::{Resume, Source, Start};
//!
//! let source = Source::new("localhost:9092", "lending")?;
//! // From the first event on, or where it ended.
//! let resume = token.map_or(Ok(Resume::default()), serde_json::from_str)?;
//! let mut subscription = source.subscribe(["loan"]).start(Start::At(resume));
//! loop {
//!     let page = subscription.next().await?;
//!     for loan in page.decode::<LoanEvent>("loan")? {
//!         println!("{} {}", loan.stream, loan.position);
//!     }
//!     // In the same transaction as what was made of the events.
//!     store(&serde_json::to_string(&page.resume())?).await;
//! }
//! # }
//! ```
//!
//! # How partitions become one log again
//! In a partition, events are in the order of their positions, and what was sent twice is told by its
//! position. How far all partitions are is said by the publisher in `{context}.publisher.progress`
//! ([`ProgressRecord`](annals_eventstore::kafka::ProgressRecord)). So an event is yielded once every
//! partition has been read so far that nothing before the event can follow; an idle partition holds nobody
//! up. [`Page::end`] says up to where all is there, also where no event is of these categories.
//!
//! Events of transactions that are open or aborted are not seen.
//!
//! # What is kept
//! [`Page::resume`] says where to go on: a position, and an offset for each partition. Keep it with what
//! was made of the page, in one transaction, and every event counts once. Kafka knows of these offsets at
//! most for its own tools ([`Group::commit`]).
//!
//! Before anything is read, the record before each offset is looked at, if it is still there. If it lies
//! behind the position, the topic was deleted and made anew in between, and that is
//! [`FeedError::Lost`], as is an offset that the topic does not hold any more. Who has the store reads
//! what is lost from there: see [`Source::ends`].
//!
//! # How much it holds
//! What is not taken waits, up to [`Source::buffer_bytes`]. After a second with all full, the partitions
//! are paused, until half of it is taken. A partition that is far ahead of one that is waited for is paused
//! before it fills up its share.

//!
//! # Several processes
//! A [`Group`] is a membership in a consumer group of Kafka. It says which partitions are this process's;
//! reading them is up to subscriptions with [`Partitions::These`]. A group alone does not keep two
//! processes apart, since one that was paused does not know what it has missed: what is written must be
//! fenced, by a lease with an epoch or by the offsets themselves.
//!
//! # Records that nobody can deal with
//! One that is no event is [`FeedError::Undecodable`]. [`DeadLetters`] puts records aside in `{topic}.dlq`.

mod client;
mod dead_letters;
mod error;
mod group;
mod intake;
mod merge;
mod offsets;
mod page;
mod pressure;
mod progress;
mod reader;
mod record;
mod resumed;
mod source;
mod status;
mod subscription;
mod topics;

/// What feeds and dead letters tell a recorder of metrics.
pub(crate) fn metrics() -> impl Iterator<Item = &'static annals_eventstore::metrics::Metric> {
    status::METRICS.iter().chain([&dead_letters::WRITTEN])
}

pub use self::{
    dead_letters::{DeadLetters, Failure},
    error::{FeedError, Loss, Lost, Undecodable},
    group::{Change, Group, Join, Revoked},
    offsets::{Offsets, Partitions, Resume, Start},
    page::Page,
    record::{Origin, RawRecord},
    source::{Source, Subscribe},
    status::{FeedState, FeedStatus},
    subscription::Subscription,
};
