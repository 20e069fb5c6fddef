//! The topics: how they are named, and how they are created and looked at.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
        TopicReplication,
    },
    client::{Client, ClientContext, DefaultClientContext},
    error::KafkaError,
    metadata::Metadata,
    types::RDKafkaErrorCode as Code,
};

use super::{
    producer::broker_error,
    receipts::{Receipts, is_permanent},
    topic_spec::{
        ActualTopic, TopicDifference, TopicDifferences, TopicPlan, TopicPolicy, TopicSpec,
    },
};
use crate::{error::Error, ids::MAX_CATEGORY_BYTES};

/// Kafka's limit for the name of a topic.
const MAX_TOPIC_BYTES: usize = 249;
const SUFFIX: &str = ".events.v1";
/// The pause before something that others are changing is looked at again.
const PAUSE: Duration = Duration::from_millis(100);

/// The topic of a category.
pub(super) fn topic_name(context: &str, category: &str) -> String {
    format!("{context}.{category}{SUFFIX}")
}

/// Says what is wrong with the name of a topic, if anything.
pub(super) fn invalid_topic(name: &str) -> Option<&'static str> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name == "." || name == ".." || !name.bytes().all(legal) {
        return Some("the name of a topic is ASCII letters, digits, '.', '_' and '-'");
    }
    (name.len() > MAX_TOPIC_BYTES).then_some("the name of a topic has at most 249 characters")
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

/// Why topics are not ready.
#[derive(Debug)]
pub enum Unready {
    /// Nothing will change by trying again.
    Refused(Error),
    /// They are not as declared, or not there.
    Differ(TopicDifferences),
    /// The cluster has fewer brokers than a topic needs. It may be about to start.
    TooFewBrokers(Error),
    /// The broker did not answer, or not well.
    Failed(KafkaError),
    /// Somebody else is just creating or deleting one.
    Changing,
}

/// The topics that have been seen to.
#[derive(Clone, Debug, Default)]
pub(super) struct Topics(HashSet<Arc<str>>);

impl Topics {
    pub(super) fn are_ready(&self, topic: &str) -> bool {
        self.0.contains(topic)
    }

    /// Sees to it that topics are there and as declared, as far as that is the publisher's business.
    /// Blocks for a few times `timeout` at most.
    pub(super) fn prepare(
        &mut self,
        names: &[Arc<str>],
        plan: &TopicPlan,
        client: &Client<impl ClientContext>,
        config: &ClientConfig,
        timeout: Duration,
    ) -> Result<(), Unready> {
        // Each once, or the broker's answer is not understood.
        let wanted: BTreeSet<_> =
            names.iter().filter(|name| !self.are_ready(name)).cloned().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let metadata = client.fetch_metadata(None, timeout).map_err(Unready::Failed)?;
        let mut found = found(&metadata);
        let (there, missing): (Vec<_>, Vec<_>) =
            wanted.iter().partition(|name| found.contains_key(&***name));
        let mut differences = Vec::new();
        let admin = Admin::new(config, timeout)?;
        if plan.policy == TopicPolicy::Create {
            admin.create(&missing, plan)?;
        } else {
            let missing = missing.iter().map(|name| name.to_string());
            differences.extend(missing.map(|topic| TopicDifference::Missing { topic }));
        }
        if plan.policy != TopicPolicy::Trust {
            admin.describe(&there, &mut found)?;
            for name in there {
                let actual = found.remove(&**name).unwrap_or_default();
                differences.extend(plan.spec(name).differences(name, &actual));
            }
        }
        if let Some(differences) = TopicDifferences::of(differences) {
            return Err(Unready::Differ(differences));
        }
        self.0.extend(wanted);
        Ok(())
    }
}

/// Sees to it that a topic of dead letters is there and as declared. It is made with so many partitions where nothing
/// is declared. Blocks for a few times `timeout` at most. Not public API: it is here for the reading side.
pub fn prepare_dead_letters(
    topic: &str,
    (spec, policy): (&TopicSpec, TopicPolicy),
    partitions: i32,
    config: &ClientConfig,
    timeout: Duration,
) -> Result<(), Unready> {
    let plan = TopicPlan::of_dead_letters(spec.clone(), policy, partitions);
    let client: AdminClient<DefaultClientContext> = config.create().map_err(Unready::Failed)?;
    let names = [topic.into()];
    let began = Instant::now();
    loop {
        let prepared = Topics::default().prepare(&names, &plan, client.inner(), config, timeout);
        match prepared {
            Err(Unready::Changing) if began.elapsed() < timeout => std::thread::sleep(PAUSE),
            prepared => return prepared,
        }
    }
}

/// The topics that the broker knows of.
fn found(metadata: &Metadata) -> HashMap<String, ActualTopic> {
    let topics = metadata.topics().iter().filter(|topic| !topic.partitions().is_empty());
    let actual = |topic: &rdkafka::metadata::MetadataTopic| ActualTopic {
        partitions: topic.partitions().len(),
        // The lowest of its partitions: the others are no less safe.
        replication: topic.partitions().iter().map(|it| it.replicas().len()).min().unwrap_or(0),
        config: BTreeMap::new(),
    };
    topics.map(|topic| (topic.name().to_owned(), actual(topic))).collect()
}

/// Who creates topics and reads their configuration.
struct Admin {
    client: AdminClient<Receipts>,
    options: AdminOptions,
}

impl Admin {
    fn new(config: &ClientConfig, timeout: Duration) -> Result<Self, Unready> {
        use rdkafka::config::FromClientConfigAndContext;
        let client = AdminClient::from_config_and_context(config, Receipts::default());
        let options =
            AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
        match client {
            Ok(client) => Ok(Self { client, options }),
            Err(error) => Err(Unready::Refused(broker_error("create an admin client", error))),
        }
    }

    /// Creates topics. One that is there by now has to be looked at again.
    fn create(&self, missing: &[&Arc<str>], plan: &TopicPlan) -> Result<(), Unready> {
        if missing.is_empty() {
            return Ok(());
        }
        let specs: Vec<_> = missing.iter().map(|name| (*name, plan.to_create(name))).collect();
        let topics: Vec<_> = specs
            .iter()
            .map(|(name, spec)| {
                let replication = TopicReplication::Fixed(spec.replication_to_create());
                let topic = NewTopic::new(name, spec.partitions_to_create(), replication);
                spec.properties().fold(topic, |topic, (property, value)| topic.set(property, value))
            })
            .collect();
        let results = block_on(self.client.create_topics(&topics, &self.options));
        let mut failures = Vec::new();
        let mut outcome = Ok(());
        for result in results.map_err(Unready::Failed)? {
            match result {
                Ok(topic) => tracing::info!(topic, "created the topic"),
                Err((_, Code::TopicAlreadyExists)) => outcome = Err(Unready::Changing),
                Err((topic, code)) => failures.push((topic, code)),
            }
        }
        // What does not get better by waiting is told first.
        failures.sort_by_key(|(_, code)| !is_permanent(*code));
        match failures.into_iter().next() {
            None => outcome,
            Some((topic, code)) if is_permanent(code) => {
                let (spec, advice) = (plan.to_create(&topic), advice(code, CREATE));
                let action = format!("create the topic {topic} with {spec}{advice}");
                let error = broker_error(action, KafkaError::AdminOp(code));
                Err(match code {
                    Code::InvalidReplicationFactor => Unready::TooFewBrokers(error),
                    _ => Unready::Refused(error),
                })
            }
            Some((_, code)) => Err(Unready::Failed(KafkaError::AdminOp(code))),
        }
    }

    /// Reads the configuration of topics.
    fn describe(
        &self,
        there: &[&Arc<str>],
        found: &mut HashMap<String, ActualTopic>,
    ) -> Result<(), Unready> {
        if there.is_empty() {
            return Ok(());
        }
        let resources: Vec<_> = there.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let results = block_on(self.client.describe_configs(&resources, &self.options));
        for result in results.map_err(Unready::Failed)? {
            let resource = match result {
                Ok(resource) => resource,
                Err(Code::UnknownTopicOrPartition) => return Err(Unready::Changing),
                Err(code) if is_permanent(code) => {
                    let names = there.iter().map(|name| &***name).collect::<Vec<_>>().join(", ");
                    let advice = advice(code, DESCRIBE);
                    let action = format!("read the configuration of the topics {names}{advice}");
                    return Err(Unready::Refused(broker_error(action, KafkaError::AdminOp(code))));
                }
                Err(code) => return Err(Unready::Failed(KafkaError::AdminOp(code))),
            };
            let OwnedResourceSpecifier::Topic(name) = resource.specifier else { continue };
            let Some(actual) = found.get_mut(&name) else { continue };
            let entries = resource.entries.into_iter();
            actual.config = entries.filter_map(|entry| Some((entry.name, entry.value?))).collect();
        }
        Ok(())
    }
}

const CREATE: &str = " (allow this program's user to create it, or create it beforehand and use \
                      TopicPolicy::Check)";
const DESCRIBE: &str = " (allow this program's user DescribeConfigs, or use TopicPolicy::Trust)";

/// What to do, where rights are missing.
fn advice(code: Code, missing_right: &'static str) -> &'static str {
    match code {
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => missing_right,
        _ => "",
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
    fn the_names_that_kafka_takes_are_known() {
        for name in ["a", "A.b_c-9", "...", &"x".repeat(249)] {
            assert_eq!(invalid_topic(name), None, "{name}");
        }
        for name in ["", ".", "..", "a b", "é", "a/b", "a\0", &"x".repeat(250)] {
            assert!(invalid_topic(name).is_some(), "{name}");
        }
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
