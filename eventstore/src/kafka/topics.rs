//! The topics: how they are named, and how one comes into being when it is first needed.

use std::{collections::HashMap, time::Duration};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::KafkaError,
    metadata::Metadata,
    types::RDKafkaErrorCode,
};

use super::progress_record::ProgressRecord;
use crate::{error::Error, ids::MAX_CATEGORY_BYTES};

/// Kafka's limit for the name of a topic.
const MAX_TOPIC_BYTES: usize = 249;
const SUFFIX: &str = ".events.v1";

/// The topic of a category.
pub(super) fn topic_name(context: &str, category: &str) -> String {
    format!("{context}.{category}{SUFFIX}")
}

/// Whether a topic is one of a context, by its name.
pub(super) fn is_of(context: &str, topic: &str) -> bool {
    topic.strip_prefix(context).is_some_and(|rest| rest.starts_with('.')) && topic.ends_with(SUFFIX)
}

/// Refuses a context after which no topic could be named.
pub(super) fn check_context(context: &str) -> Result<(), Error> {
    let most = MAX_TOPIC_BYTES - SUFFIX.len() - 1 - MAX_CATEGORY_BYTES;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let reason = if !context.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric()) {
        "it must start with a letter or digit".to_owned()
    } else if !context.bytes().all(legal) {
        "use ASCII letters, digits, '.', '_' and '-'".to_owned()
    } else if context.len() > most {
        format!("it has {} bytes; at most {most} leave room for a category", context.len())
    } else {
        return Ok(());
    };
    let action = format!("name topics after the context {context:?}");
    Err(Error::Broker { action, source: reason.into() })
}

/// How topics are created.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) partitions: i32,
    /// -1 leaves it to the broker.
    pub(super) replication: i32,
}

/// The topics of a context that are known to be there.
#[derive(Debug, Default)]
pub(super) struct Topics {
    /// How many partitions each has.
    existing: HashMap<String, usize>,
    /// Whether the topic of the progress is there.
    progress: bool,
    /// The topic of each category that has been seen to.
    ready: HashMap<String, String>,
}

impl Topics {
    /// Notes which topics there are.
    pub(super) fn learn(&mut self, context: &str, metadata: &Metadata) {
        for topic in metadata.topics().iter().filter(|topic| is_of(context, topic.name())) {
            self.existing.insert(topic.name().to_owned(), topic.partitions().len());
        }
        let progress = ProgressRecord::topic(context);
        self.progress = metadata.topics().iter().any(|topic| topic.name() == progress);
    }

    /// Whether the topic of the progress is known to be there.
    pub(super) fn has_progress(&self) -> bool {
        self.progress
    }

    /// The topics of events that are known to be there, and how many partitions each has.
    pub(super) fn known(&self) -> Vec<(String, usize)> {
        self.existing.iter().map(|(topic, partitions)| (topic.clone(), *partitions)).collect()
    }

    /// The topic of a category, if it has been seen to.
    pub(super) fn ready(&self, category: &str) -> Option<&str> {
        self.ready.get(category).map(String::as_str)
    }

    /// True if the topic is there. The number of its partitions is fixed for life: with another
    /// number than the configured one it is used as it is, with a warning.
    pub(super) fn adopt(&mut self, category: &str, topic: &str, layout: Layout) -> bool {
        let Some(partitions) = self.existing.get(topic) else { return false };
        if usize::try_from(layout.partitions) != Ok(*partitions) {
            tracing::warn!(
                topic,
                partitions,
                configured = layout.partitions,
                "the topic has another number of partitions than configured; it stays as it is, \
                 since a change would tear each stream's order apart"
            );
        }
        self.ready.insert(category.to_owned(), topic.to_owned());
        true
    }

    /// Notes a topic that has just been created.
    pub(super) fn created(&mut self, category: &str, topic: &str) {
        self.ready.insert(category.to_owned(), topic.to_owned());
    }
}

/// The topic of the progress keeps the last record of each store, and little else.
pub(super) const PROGRESS_PROPERTIES: [(&str, &str); 3] = [
    ("cleanup.policy", "compact"),
    // A record for each transaction: compact it before it is large.
    ("segment.bytes", "16777216"),
    ("min.cleanable.dirty.ratio", "0.1"),
];

/// Creates a topic. Blocks. `false` if it turns out to be there already.
pub(super) fn create(
    config: &ClientConfig,
    topic: &str,
    layout: Layout,
    properties: &[(&str, &str)],
    timeout: Duration,
) -> Result<bool, KafkaError> {
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let mut new =
        NewTopic::new(topic, layout.partitions, TopicReplication::Fixed(layout.replication));
    for (name, value) in properties {
        new = new.set(name, value);
    }
    let options =
        AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
    let results = futures::executor::block_on(admin.create_topics([&new], &options))?;
    match results.into_iter().next() {
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
        Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
        Some(Ok(_)) | None => {
            tracing::info!(topic, partitions = layout.partitions, "created the topic");
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_named_after_context_and_category() {
        assert_eq!(topic_name("lending", "loan"), "lending.loan.events.v1");
    }

    #[test]
    fn a_context_is_what_kafka_takes_in_a_topic_name() {
        for context in ["lending", "eu.lending", "Lending-2_x", "7", &"c".repeat(174)] {
            assert!(check_context(context).is_ok(), "{context}");
            let longest = topic_name(context, &"x".repeat(MAX_CATEGORY_BYTES));
            assert!(longest.len() <= MAX_TOPIC_BYTES, "{context}");
        }
        for context in ["", ".", "-x", "a b", "a/b", "é", "a\0", &"c".repeat(175)] {
            assert!(check_context(context).is_err(), "{context}");
        }
    }
}
