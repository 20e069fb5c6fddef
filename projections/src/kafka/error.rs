//! What can go wrong with reading topics.

use std::sync::Arc;

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};

use super::record::RawRecord;

type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why a subscription, a group or a dead letter failed.
///
/// A broker that does not answer is no error of a subscription or a group: they wait for it, and say so
/// in their status.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// Records that were not read yet are gone. Who can reads them from the store, and goes on behind them.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// A record is no event of the context. The next call goes on behind it; see [`DeadLetters`].
    ///
    /// [`DeadLetters`]: super::DeadLetters
    #[error("the record at offset {} of {}/{} is no event", .0.record.offset, .0.record.topic, .0.record.partition)]
    Undecodable(#[source] Box<Undecodable>),
    /// Nobody publishes the context.
    #[error(
        "there is no topic {topic}: no publisher of the context {context:?} has run yet; start one, \
         or check the name of the context and the rights to describe its topics"
    )]
    NotPublished {
        /// The context.
        context: String,
        /// The topic in which publishers tell how far they have come.
        topic: String,
    },
    /// Several stores publish to one context, so that their positions are not those of one log.
    #[error(
        "several stores publish to {topic}: {publishers:?}; give each a context of its own. The record of \
         one that is gone for good is removed by a record of its key without a value"
    )]
    SeveralStores {
        /// The topic in which they tell how far they have come.
        topic: String,
        /// The keys of their records.
        publishers: Vec<String>,
    },
    /// Two topics have different numbers of partitions.
    #[error(
        "the topic {topic} has {partitions} partitions, and {other} has {others}; keys of several \
         categories meet only where both have equally many"
    )]
    PartitionCounts {
        /// A topic.
        topic: String,
        /// The number of its partitions.
        partitions: i32,
        /// Another one.
        other: String,
        /// The number of its partitions.
        others: i32,
    },
    /// A topic was given more partitions than it had.
    #[error(
        "the topic {topic} was given more partitions: {partition} is new; keys are in others since, and \
         the order of streams is torn apart. Publish to a new topic, and read that"
    )]
    PartitionAdded {
        /// The topic.
        topic: String,
        /// A partition that is new.
        partition: i32,
    },
    /// The publisher's progress cannot be understood.
    #[error("the progress of the publisher in {topic}, at offset {offset}, cannot be understood")]
    Progress {
        /// The topic.
        topic: String,
        /// Where the record is.
        offset: i64,
        /// What is wrong with it.
        source: Cause,
    },
    /// An option is unknown, out of range, or what the guarantees rest on.
    #[error("cannot use the option {option}")]
    Option {
        /// The option.
        option: String,
        /// What is wrong with it.
        source: Cause,
    },
    /// The broker refuses, or fails to, do something.
    #[error("cannot {action}")]
    Broker {
        /// What was to be done.
        action: String,
        /// What the client says.
        source: Cause,
        /// True if trying again may help.
        retryable: bool,
    },
}

impl FeedError {
    /// Whether trying again, with nothing changed, may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Broker { retryable: true, .. })
    }

    pub(super) fn broker(action: impl Into<String>, error: KafkaError) -> Self {
        let retryable = code_of(&error).is_some_and(|code| !is_permanent(code));
        Self::Broker { action: action.into(), source: Arc::new(error), retryable }
    }

    pub(super) fn option(
        option: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Option { option: option.into(), source: Arc::from(source.into()) }
    }
}

/// What was to be read next of a partition is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{topic}/{partition} does not go on where it was read up to, offset {wanted}: {loss}")]
#[non_exhaustive]
pub struct Lost {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset that was to be read next.
    pub wanted: i64,
    /// What became of it.
    pub loss: Loss,
}

/// How records can be lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// The topic holds other offsets: retention was faster than the reader, or the topic is another one.
    #[error("the topic holds {first}..{end}")]
    OutOfRange {
        /// The first offset that is there.
        first: i64,
        /// The offset behind the last one.
        end: i64,
    },
    /// The topic is not there any more.
    #[error("there is no such topic any more")]
    TopicGone,
    /// The topic was deleted and made anew: at this offset it holds other records than before.
    #[error("the topic was made anew")]
    TopicReplaced,
}

/// A record that is no event, as it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Undecodable {
    /// The record.
    pub record: RawRecord,
    /// What is wrong with it.
    pub reason: Arc<annals_eventstore::kafka::RecordError>,
}

impl std::fmt::Display for Undecodable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for Undecodable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.reason.source()
    }
}

/// What librdkafka calls an error.
pub(super) fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) | KafkaError::MessageConsumptionFatal(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

/// True if the broker will say the same when it is asked again.
pub(super) fn is_permanent(code: Code) -> bool {
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidTopic
            | Code::InvalidConfig
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidArgument
            | Code::InvalidRequest
            | Code::InvalidGroupId
            | Code::InvalidSessionTimeout
            | Code::InconsistentGroupProtocol
            | Code::PolicyViolation
            | Code::MessageSizeTooLarge
            | Code::InvalidRecord
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::Fatal
            | Code::FencedInstanceId
    )
}
