//! Publishing the event log to Kafka.
//!
//! The log is the outbox. A [`Publisher`] reads it in order, sends each event to the topic of its
//! category, and moves a checkpoint in the store once the broker has acknowledged what lies below
//! it. Appends know nothing of it: a broker that is down stops publishing and nothing else.
//!
//! ```no_run
//! # async fn run() -> Result<(), annals_eventstore::Error> {
//! use annals_eventstore::{EventStore, kafka::Publisher};
//! use tokio_util::sync::CancellationToken;
//!
//! let store = EventStore::connect("postgres://localhost/app").await?;
//! let publisher = Publisher::builder("localhost:9092", "lending").partitions(8).build(&store)?;
//! let mut progress = publisher.progress();
//! let stop = CancellationToken::new();
//! let publishing = tokio::spawn(publisher.run_until(stop.clone()));
//!
//! progress.changed().await.ok();
//! println!("{:?}", progress.borrow().state);
//!
//! stop.cancel();
//! publishing.await.expect("the publisher does not panic")?;
//! # Ok(()) }
//! ```
//!
//! # What it guarantees
//! - **At least once.** No event is skipped, whatever is killed and whenever: the checkpoint moves
//!   only over events that all in-sync replicas have acknowledged. What was sent after the last move
//!   of the checkpoint is sent again by the next publisher.
//! - **In order, per stream.** The key of a record is the stream's key, so a stream lives in one
//!   partition; there its events appear first in the order of their versions. In fact the events
//!   of a partition appear first in the order of their positions, also where publishers overlap:
//!   each starts from a checkpoint below which all is there, and none sends anything behind an
//!   event that the broker did not take.
//! - **One active publisher per store.** Any number may run; one holds a lease and the others stand
//!   by. One that was paused past its lease cannot move the checkpoint when it wakes up. What it
//!   still had in flight shows up as repeats.
//!
//! # How to drop repeats
//! A consumer keeps, for each partition, the last position (`ce_sequence`) that it has dealt with,
//! together with what it does, and drops every record whose position is not above it. That is
//! enough, by the order above; there is no need to remember ids.
//!
//! # What a record looks like
//! The topic is `{context}.{category}.events.v1`, created with the configured number of partitions
//! when the category's first event is published. Keys are placed as Java clients place them
//! (murmur2). The value is the payload, byte for byte as stored; the record's timestamp is the
//! moment of publishing, because retention counts from it. The rest follows CloudEvents 1.0 in its
//! Kafka binding, binary mode:
//!
//! | Header | Content |
//! |---|---|
//! | `content-type` | `application/json` |
//! | `ce_specversion` | `1.0` |
//! | `ce_id` | the event's id |
//! | `ce_source` | `/{context}/{category}` |
//! | `ce_type` | `{context}.{category}.{type}.v{schema version}` |
//! | `ce_subject`, `ce_partitionkey` | the stream's key |
//! | `ce_time` | when it happened; when it was recorded, if that is all that is known |
//! | `ce_recordedtime` | when it was recorded, if `ce_time` says when it happened |
//! | `ce_sequence` | its position, 20 digits with leading zeros |
//! | `ce_streamversion` | its version in its stream |
//! | `ce_correlationid`, `ce_causationid`, `traceparent` | from its metadata, where there |
//! | `ce_actor`, `ce_custommetadata` | the same, with [`Disclosure::All`] only |
//!
//! Times are RFC 3339 in UTC with microseconds. There is no `ce_dataschema`, since the store does
//! not know of schemas.
//!
//! A category has no dot, and the last `.v` of `ce_type` is followed by the version alone. So a
//! consumer that takes `{context}.{category}.` off its front and splits it at the last `.v` has the
//! event's type and its schema version, whatever dots these names have. [`RecordReader`] does so, and
//! gives back the event whole.
//!
//! # Sizes
//! The store refuses events above [`max_event_bytes`](crate::Options::max_event_bytes) at the
//! append; its default fits Kafka's defaults. A program that raises it raises `message.max.bytes`
//! with [`Builder::config`], and the topics' `max.message.bytes` on the broker, as well. An event
//! that the broker refuses for its size ends [`Publisher::run_until`] with an error that names it. The
//! broker's limit holds for a batch of messages as a whole: `batch.size` must not be above it.

mod cloud_events;
mod options;
mod partitioner;
mod producer;
mod progress;
mod progress_record;
mod publisher;
mod receipts;
mod record;
mod recovery;
mod topics;
pub mod verify;
mod worker;

pub use self::{
    cloud_events::Disclosure,
    options::Builder,
    progress::{Progress, State},
    progress_record::{LastEvent, ProgressRecord, ProgressRecordError},
    publisher::Publisher,
    record::{RecordError, RecordReader},
};
