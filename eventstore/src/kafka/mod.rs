//! Publishing the event log to Kafka.
//!
//! The log is the outbox. A [`Publisher`] reads it in order and sends each event to the topic of its
//! category, in transactions that also hold how far it has come. Appends know nothing of it: a broker that
//! is down stops publishing and nothing else.
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
//! - **Exactly once** ([`Delivery::ExactlyOnce`], the default). Whatever is killed, paused or cut off, and
//!   whenever: for a consumer with `isolation.level=read_committed` the topics hold each event once.
//! - **Or at least once** ([`Delivery::AtLeastOnce`]). No event is skipped; some are repeated where a
//!   publisher was interrupted.
//! - **In order, per stream.** The key of a record is the stream's key, so a stream lives in one
//!   partition; there its events have the order of their versions. In fact all events of a partition have
//!   the order of their positions. Published at least once, this holds for where each appears first, also
//!   where publishers overlap: each starts where all below is there, and none sends anything behind an
//!   event that the broker did not take.
//! - **One active publisher per store.** Any number may run; one holds a lease and the others stand
//!   by. A lease that is not renewed is over after [5 seconds](Builder::lease_time_to_live). One that was
//!   paused past its lease cannot commit anything when it wakes up, nor move the checkpoint; published at
//!   least once, what it still had in flight shows up as repeats.
//!
//! # How exactly once comes about
//! A transaction holds a batch of events and one record in the topic `{context}.publisher.progress`, which
//! says how far the store is published then ([`ProgressRecord`]). Either all of it is committed or none.
//! The publishers of a store share one transactional id, `{context}.publisher.{store}`. One that begins
//!
//! 1. takes the lease,
//! 2. initialises its transactions: the broker aborts what its predecessor has left open, and refuses
//!    whatever that one still sends,
//! 3. reads from the progress topic how far the store is published: nobody else can add to it now,
//! 4. goes on from there.
//!
//! So an answer that was lost is no harm. Whether a transaction was committed is not asked of the one who
//! committed it; the next term reads it. No failure is repaired in place: the transaction is aborted, if
//! that can be done at once, and the term ends. What helps to tell them apart: calls that were too slow are resumed; after a
//! failed delivery or transaction the next term begins with a new producer; after another producer took the
//! transactional id this one stands by; what the broker refuses for good ends [`Publisher::run_until`].
//!
//! Kafka 4 may lose the end of a transaction in partitions that are without a leader when it ends (KAFKA-20734),
//! as when all brokers that hold them crash together. The publisher looks for that when it begins and after each lost
//! connection, and ends such transactions as they ended elsewhere. Where it has to commit, it writes a record without value
//! and with the header `annals-ends-transaction`; consumers pass over it ([`RecordError::EndsTransaction`]).
//!
//! This needs brokers that check whether a transaction is still open before they take a late message of it
//! (Kafka 3.6 and later do).
//!
//! The checkpoint in the database ([`Publisher::CHECKPOINT`]) follows what is committed, within about 100 ms. It
//! holds archiving back and tells tools how far the store is published; what is published does not depend on it,
//! except here:
//!
//! | What happened | What comes of it |
//! |---|---|
//! | the progress topic was deleted, or has lost the record | publishing goes on from the checkpoint: nothing is lost; after a crash, what was published in the last 100 ms is repeated |
//! | from at least once to exactly once, or back | publishing goes on from the further of both. A graceful stop repeats nothing. One that published at least once and was interrupted leaves repeats, as ever; stop it before, so that one that was paused does not send them later |
//! | another [store name](Builder::store_name) | as if the progress topic was deleted |
//! | the database was restored from an older state, or replaced | [`Error::PublishedElsewhere`](crate::Error::PublishedElsewhere): the topics hold events that the log does not. Nothing is published until somebody decides. To publish the log anew, use another context and delete the checkpoint |
//! | the topic was compacted | nothing: the last record of each store stays |
//!
//! # How to consume
//! Published exactly once, read with `isolation.level=read_committed` (it is librdkafka's default, and not Java's), and keep
//! the offsets together with what is done. Events appear when their transaction is committed. A publisher
//! that dies leaves one open, and consumers wait at it until the next one takes over, or for at most the
//! [transaction's timeout](Builder::transaction_timeout) and 10 seconds.
//!
//! Published at least once, keep, for each partition, the last position (`ce_sequence`) that was dealt with,
//! together with what is done, and drop every record whose position is not above it. That is enough, by
//! the order above; there is no need to remember ids. It does no harm otherwise.
//!
//! Either way [`ProgressRecord`] tells up to which position all events are there, whatever the partition.
//!
//! # What a record looks like
//! The topic is `{context}.{category}.events.v1`, unless a route says otherwise. Keys are placed as Java
//! clients place them (murmur2). The value is the payload, byte for byte as stored; the record's timestamp is the
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
//! | `ce_dataschema` | where the schema of the value is: `{base}{category}.{type}.v{schema version}.json`, with [`Builder::schemas`] only |
//! | `ce_actor`, `ce_custommetadata` | the same, with [`Disclosure::All`] only |
//!
//! Times are RFC 3339 in UTC with microseconds.
//!
//! A category has no dot, and the last `.v` of `ce_type` is followed by the version alone. So a
//! consumer that takes `{context}.{category}.` off its front and splits it at the last `.v` has the
//! event's type and its schema version, whatever dots these names have. [`RecordReader`] does so, and
//! gives back the event whole.
//!
//! # What is published, as what, and where
//! Everything, as it is stored, by category. [`Builder::only_categories`] and [`Builder::filter`] leave events out; the
//! position passes them. [`Builder::map`] publishes events of a public type in the place of a category's own, so that
//! these can change without asking anybody. [`Builder::route`] puts streams into other topics.
//!
//! **A stream must stay in one topic and in one partition**, or its order is lost. The publisher sees to it as far as it
//! can: the key is always the stream's, and a route is asked for streams, not for events. What is left to you: a route
//! that always says the same of a stream, partitions that are never added to a topic, and no program that copies records
//! under other keys ([`RecordReader`] refuses such).
//!
//! # Topics
//! When a publisher becomes the active one it creates the topics that are missing, and looks at those that are there:
//! those that are declared ([`Builder::topics`], [`topic_of`](Builder::topic_of), [`topic`](Builder::topic)), those of
//! the categories that the log has, and its own, `{context}.publisher.progress`. A topic that comes later is seen to
//! before the first event goes there. Where a topic is not as declared, [`Publisher::run_until`] ends with
//! [`TopicDifferences`]: all of them, each with what to do. Nothing that exists is altered. [`TopicPolicy`] leaves
//! creating to operators, or looking too.
//!
//! The broker's user needs `Write` and `Read` on the topics; `DescribeConfigs` on them to look at what they are like;
//! `Create` to create them; and `Write` on the transactional id. The guide has a table.
//!
//! # TLS and SASL
//! [`Builder::security`] takes them as [`Security`]; the feature `kafka-tls` builds librdkafka with the machine's OpenSSL.
//! A program that wants OpenSSL built in adds `rdkafka` with its feature `ssl-vendored` to its own dependencies. A broker
//! that does not let the publisher in, or that has no certificate which the publisher trusts, shows as
//! [`State::BrokerUnreachable`], and then as [`State::CircuitOpen`], with the reason; the publisher goes on trying, since passwords and certificates are
//! replaced while it runs.
//!
//! # What it takes
//! Two pages of the log, each of up to [`Builder::batch`] events or 16 MiB, and what the client keeps on its
//! way to the broker, up to 64 MiB (`queue.buffering.max.kbytes`). A broker that is slow slows down reading, and
//! nothing else.
//!
//! # Metrics
//! With the label `context`: `annals_publisher_events_total`, `annals_publisher_transactions_total` (with
//! `outcome`: `committed` or `interrupted`), `annals_publisher_transaction_duration_seconds`,
//! `annals_publisher_interruptions_total`, `annals_publisher_active` (1 or 0), and of the active publisher
//! `annals_publisher_lag_events` and `annals_publisher_lag_seconds`, as [`Progress`] has them.
//!
//! # Sizes
//! The store refuses events above [`max_event_bytes`](crate::Options::max_event_bytes) at the
//! append; its default fits Kafka's defaults. A program that raises it raises `message.max.bytes`
//! with [`Builder::config`], and the topics' `max.message.bytes` ([`TopicSpec::max_message_bytes`]), as well. An event
//! that the broker refuses for its size ends [`Publisher::run_until`] with an error that names it. The
//! broker's limit holds for a batch of messages as a whole: `batch.size` must not be above it.

mod circuit;
mod cloud_events;
mod declare;
mod delivery;
mod fail_points;
mod front;
mod mapping;
mod metrics;
mod options;
mod partitioner;
mod producer;
mod progress;
mod progress_record;
mod publication;
mod publisher;
mod questions;
mod reader;
mod receipts;
mod record;
mod recovery;
mod security;
mod settle;
mod start;
mod topic_spec;
mod topics;
mod transaction;
pub mod verify;
mod worker;

pub(crate) use self::metrics::METRICS;
/// What the reading side needs to see to topics of dead letters. Not public API.
#[doc(hidden)]
pub mod __dead_letters {
    pub use super::{
        topic_spec::DEAD_LETTER_BYTES,
        topics::{Unready, prepare_dead_letters},
    };
}
pub use self::{
    cloud_events::Disclosure,
    delivery::Delivery,
    fail_points::FAIL_POINTS,
    options::Builder,
    progress::{Progress, State},
    progress_record::{LastEvent, ProgressRecord, ProgressRecordError},
    publisher::Publisher,
    record::{RecordError, RecordReader},
    security::{Pem, Sasl, Security, Tls},
    topic_spec::{TopicDifference, TopicDifferences, TopicPolicy, TopicSpec},
};
