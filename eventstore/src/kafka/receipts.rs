//! What the broker says about the messages that were sent.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rdkafka::{
    ClientContext, Message as _, config::RDKafkaLogLevel, error::KafkaError,
    message::DeliveryResult, producer::ProducerContext, types::RDKafkaErrorCode as Code,
};

/// The place in the batch that stands for the progress, which is no event.
pub(super) const PROGRESS: usize = usize::MAX;

/// Counts the delivery reports of a batch, notes where its events are, and keeps the report that explains
/// a failure.
#[derive(Debug, Default)]
pub(super) struct Receipts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    acknowledged: usize,
    failure: Option<Undelivered>,
    ends: Ends,
    /// What librdkafka last said about its connections.
    trouble: Option<String>,
    /// Whether it said anything about them that nobody has followed up.
    doubt: bool,
}

/// The ends of what was sent. It is written once for each message, so it is looked up without hashing.
#[derive(Debug, Default)]
struct Ends {
    /// By topic, the offset behind the last event in each partition; 0 where there is none.
    topics: Vec<(String, Vec<i64>)>,
}

impl Ends {
    fn note(&mut self, topic: &str, partition: i32, offset: i64) {
        let Ok(partition) = usize::try_from(partition) else { return };
        let at = self.topics.iter().position(|(known, _)| known == topic).unwrap_or_else(|| {
            self.topics.push((topic.to_owned(), Vec::new()));
            self.topics.len() - 1
        });
        let ends = &mut self.topics[at].1;
        if ends.len() <= partition {
            ends.resize(partition + 1, 0);
        }
        ends[partition] = ends[partition].max(offset + 1);
    }

    fn offsets(&self) -> BTreeMap<String, BTreeMap<i32, i64>> {
        let partitions = |ends: &[i64]| {
            let touched = ends.iter().enumerate().filter(|(_, end)| **end > 0);
            // Partitions are counted in i32.
            touched.map(|(partition, end)| (partition as i32, *end)).collect()
        };
        self.topics.iter().map(|(topic, ends)| (topic.clone(), partitions(ends))).collect()
    }
}

/// A message that was not delivered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Undelivered {
    /// Its place in the batch.
    pub(super) index: usize,
    pub(super) bytes: usize,
    pub(super) code: Code,
}

impl Receipts {
    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole after each assignment, wherever a panic happens.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the batch before.
    pub(super) fn start_batch(&self) {
        let mut state = self.state();
        state.acknowledged = 0;
        state.failure = None;
        state.ends = Ends::default();
    }

    /// By topic and partition, the offset behind the last event of the batch that is acknowledged.
    pub(super) fn offsets(&self) -> BTreeMap<String, BTreeMap<i32, i64>> {
        self.state().ends.offsets()
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.state().acknowledged
    }

    pub(super) fn failure(&self) -> Option<Undelivered> {
        self.state().failure
    }

    /// What was last said about the connections.
    pub(super) fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    /// A broker may have crashed.
    pub(super) fn doubt(&self) {
        self.state().doubt = true;
    }

    /// Whether a broker may have crashed since this was asked last.
    pub(super) fn take_doubt(&self) -> bool {
        std::mem::take(&mut self.state().doubt)
    }

    /// Forgets what was said about the connections: they are there.
    pub(super) fn forget_trouble(&self) {
        self.state().trouble = None;
    }
}

impl Undelivered {
    /// Whether this one explains more than `other`.
    fn explains_more_than(&self, other: &Self) -> bool {
        match (is_consequence(self.code), is_consequence(other.code)) {
            (false, true) => true,
            // The broker refuses whole batches; it is the largest message that is too large.
            (false, false) => {
                self.code == Code::MessageSizeTooLarge
                    && other.code == self.code
                    && self.bytes > other.bytes
            }
            _ => false,
        }
    }
}

/// True if a message failed only because another one did.
pub(super) fn is_consequence(code: Code) -> bool {
    matches!(code, Code::PurgeQueue | Code::PurgeInflight | Code::Fatal | Code::GaplessGuarantee)
}

/// True if the broker has given the transactional id to another producer.
pub(super) fn is_fenced(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

/// True if the broker will say the same when it is asked again.
pub(super) fn is_permanent(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::InvalidMessage
            | Code::InvalidMessageSize
            | Code::MessageBatchTooLarge
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::InvalidTopic
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidConfig
            | Code::InvalidRequest
            | Code::InvalidArgument
            | Code::InvalidRequiredAcks
            | Code::PolicyViolation
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::InvalidTransactionTimeout
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature
            | Code::UnsupportedForMessageFormat
            | Code::UnsupportedCompressionType
    )
}

/// What a lost connection may mean.
fn with_advice(message: &str) -> String {
    if message.contains("Disconnected") {
        format!("{message}; a listener for TLS or SASL closes connections that come without")
    } else {
        message.to_owned()
    }
}

impl ClientContext for Receipts {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            // Some failures are only logged: that of a listener which closes the connection because it
            // is spoken to in another protocol.
            let mut state = self.state();
            state.doubt = true;
            state.trouble.get_or_insert_with(|| with_advice(message));
        }
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        // "1/1 brokers are down" says less than what was said about one of them.
        let all_down = error.rdkafka_error_code() == Some(Code::AllBrokersDown);
        let mut state = self.state();
        state.doubt = true;
        if !all_down || state.trouble.is_none() {
            state.trouble = Some(reason.to_owned());
        }
    }
}

/// Passes on what librdkafka says.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        // Lost connections, each attempt of them: the publisher tells it in one line.
        RDKafkaLogLevel::Error if matches!(facility, "FAIL" | "ERROR") => {
            tracing::debug!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", facility, "{message}");
        }
    }
}

impl ProducerContext for Receipts {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let mut state = self.state();
        match result {
            Ok(_) if index == PROGRESS => {}
            Ok(message) => {
                state.acknowledged += 1;
                state.ends.note(message.topic(), message.partition(), message.offset());
            }
            Err((error, message)) => {
                let failure = Undelivered {
                    index,
                    bytes: message.payload_len() + message.key_len(),
                    code: error.rdkafka_error_code().unwrap_or(Code::Unknown),
                };
                if state.failure.is_none_or(|other| failure.explains_more_than(&other)) {
                    state.failure = Some(failure);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_those_of_the_partitions_that_were_touched() {
        let mut ends = Ends::default();
        for (topic, partition, offset) in
            [("a", 2, 7), ("b", 0, 0), ("a", 0, 3), ("a", 2, 8), ("a", 2, 6)]
        {
            ends.note(topic, partition, offset);
        }
        let expected = [("a", vec![(0, 4), (2, 9)]), ("b", vec![(0, 1)])];
        let expected = expected.map(|(topic, ends)| (topic.to_owned(), ends.into_iter().collect()));
        assert_eq!(ends.offsets(), BTreeMap::from(expected));
    }

    #[test]
    fn the_failure_told_is_the_cause_and_of_too_large_ones_the_largest() {
        let failure = |index, bytes, code| Undelivered { index, bytes, code };
        let told = [
            failure(7, 900, Code::PurgeQueue),
            failure(3, 10, Code::MessageSizeTooLarge),
            failure(4, 500, Code::MessageSizeTooLarge),
            failure(5, 20, Code::MessageSizeTooLarge),
            failure(6, 999, Code::GaplessGuarantee),
            failure(2, 999, Code::TopicAuthorizationFailed),
        ]
        .into_iter()
        .reduce(|told, next| if next.explains_more_than(&told) { next } else { told });
        assert_eq!(told, Some(failure(4, 500, Code::MessageSizeTooLarge)));
    }
}
