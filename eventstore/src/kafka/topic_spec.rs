//! What topics are to be like, and what to do where they are not. Pure.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{
    progress_record::ProgressRecord,
    topics::{self, topic_name},
};
use crate::error::Error;

/// How many partitions a topic gets when nothing is declared.
const PARTITIONS: u16 = 4;

/// The topic of the progress keeps the last record of each store, and little else. It gets a record for
/// each transaction, so it is compacted before it is large.
const PROGRESS: [(&str, &str); 2] =
    [("segment.bytes", "16777216"), ("min.cleanable.dirty.ratio", "0.1")];

/// Dead letters wait until somebody has looked at them, and any record that came from a topic fits.
const DEAD_LETTERS: [(&str, &str); 2] =
    [("retention.ms", "-1"), ("max.message.bytes", DEAD_LETTER_BYTES)];
/// As large as a dead letter may be.
pub const DEAD_LETTER_BYTES: &str = "10485760";

/// What a topic is to be like: what is declared here it is created with, and held to later.
///
/// ```
/// use std::time::Duration;
///
/// use annals_eventstore::kafka::TopicSpec;
///
/// let spec = TopicSpec::new()
///     .partitions(12)
///     .replication(3)
///     .keep_for(Duration::from_secs(30 * 24 * 3600))
///     .config("min.insync.replicas", "2");
/// ```
///
/// What is not declared is not looked at, with one exception: `cleanup.policy` is `delete` unless
/// declared, because compaction would leave but the last event of each stream. A topic that has to be
/// created gets 4 partitions where nothing is declared, and the broker's defaults for the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a specification does nothing until it is given to a publisher"]
pub struct TopicSpec {
    partitions: Option<u16>,
    replication: Option<u16>,
    config: BTreeMap<String, String>,
}

impl TopicSpec {
    /// Nothing is declared.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of partitions. It is fixed for life: another number would place keys elsewhere and
    /// so tear the order of streams apart.
    pub fn partitions(mut self, partitions: u16) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// The number of replicas of each partition.
    pub fn replication(mut self, replicas: u16) -> Self {
        self.replication = Some(replicas);
        self
    }

    /// For how long records are kept: `retention.ms`.
    pub fn keep_for(self, time: Duration) -> Self {
        self.config("retention.ms", time.as_millis().to_string())
    }

    /// Records are kept for ever: no limit of time and none of size.
    pub fn keep_forever(self) -> Self {
        self.config("retention.ms", "-1").config("retention.bytes", "-1")
    }

    /// The largest batch of records that the topic takes, in bytes: `max.message.bytes`.
    pub fn max_message_bytes(self, bytes: u32) -> Self {
        self.config("max.message.bytes", bytes.to_string())
    }

    /// Any property of a topic, by the name that Kafka gives it.
    pub fn config(mut self, property: impl Into<String>, value: impl ToString) -> Self {
        self.config.insert(property.into(), value.to_string());
        self
    }

    /// This specification, and for what it does not declare, another one.
    fn over(&self, general: &Self) -> Self {
        let mut config = general.config.clone();
        config.extend(self.config.clone());
        Self {
            partitions: self.partitions.or(general.partitions),
            replication: self.replication.or(general.replication),
            config,
        }
    }

    fn suggesting(properties: &[(&str, &str)]) -> Self {
        let new = Self::new();
        properties.iter().fold(new, |spec, (property, value)| spec.config(*property, value))
    }

    /// The number of partitions to create it with.
    pub(super) fn partitions_to_create(&self) -> i32 {
        self.partitions.unwrap_or(PARTITIONS).into()
    }

    /// The number of replicas to create it with; -1 leaves it to the broker.
    pub(super) fn replication_to_create(&self) -> i32 {
        self.replication.map_or(-1, i32::from)
    }

    /// The properties that are declared.
    pub(super) fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.config.iter().map(|(property, value)| (property.as_str(), value.as_str()))
    }

    fn check(&self) -> Result<(), Error> {
        if self.partitions == Some(0) || self.replication == Some(0) {
            let action = "declare a topic with 0 partitions or replicas".to_owned();
            return Err(Error::Broker { action, source: "use at least 1".into() });
        }
        Ok(())
    }

    /// Where a topic is not as declared.
    pub(super) fn differences(&self, topic: &str, actual: &ActualTopic) -> Vec<TopicDifference> {
        let mut differences = Vec::new();
        let mut compare = |property: &str, declared: &str, actual: Option<&str>| {
            if actual.is_none_or(|actual| !same(declared, actual)) {
                differences.push(TopicDifference::Property {
                    topic: topic.to_owned(),
                    property: property.to_owned(),
                    declared: declared.to_owned(),
                    actual: actual.map(str::to_owned),
                });
            }
        };
        for (property, declared, actual) in [
            (TopicDifference::PARTITIONS, self.partitions, actual.partitions),
            (TopicDifference::REPLICATION, self.replication, actual.replication),
        ] {
            if let Some(declared) = declared {
                compare(property, &declared.to_string(), Some(&actual.to_string()));
            }
        }
        for (property, declared) in self.properties() {
            compare(property, declared, actual.config.get(property).map(String::as_str));
        }
        differences
    }
}

/// What a topic is created with.
impl fmt::Display for TopicSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partitions={}", self.partitions_to_create())?;
        if let Some(replication) = self.replication {
            write!(f, ", replication={replication}")?;
        }
        self.properties().try_for_each(|(property, value)| write!(f, ", {property}={value}"))
    }
}

/// What the broker says of a topic.
#[derive(Debug, Default)]
pub(super) struct ActualTopic {
    pub(super) partitions: usize,
    pub(super) replication: usize,
    pub(super) config: BTreeMap<String, String>,
}

/// Whether two values of a property mean the same.
fn same(declared: &str, actual: &str) -> bool {
    // Such as `delete,compact`, whose order says nothing.
    let parts = |list: &str| {
        let mut parts: Vec<_> = list.split(',').map(|part| part.trim().to_lowercase()).collect();
        parts.sort_unstable();
        parts
    };
    parts(declared) == parts(actual)
        || matches!((declared.trim().parse::<f64>(), actual.parse::<f64>()), (Ok(a), Ok(b)) if a == b)
}

/// Who sees to the topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicPolicy {
    /// The publisher creates those that are missing, and holds those that exist to what is declared.
    #[default]
    Create,
    /// Operators create them. The publisher holds them to what is declared, and one that is missing
    /// is an error.
    Check,
    /// They are used as they are, and one that is missing is an error. The publisher needs no right
    /// but to write.
    Trust,
}

/// What topics a publisher needs, and what they are to be like.
#[derive(Clone, Debug, Default)]
pub(super) struct TopicPlan {
    pub(super) policy: TopicPolicy,
    pub(super) general: TopicSpec,
    pub(super) by_category: BTreeMap<String, TopicSpec>,
    pub(super) by_name: BTreeMap<String, TopicSpec>,
    /// The topic of the publisher's own records.
    progress: String,
    /// What all topics are created with where nothing is declared, and not held to.
    suggestions: TopicSpec,
}

impl TopicPlan {
    /// The plan of a context: categories become names of topics.
    pub(super) fn of(mut self, context: &str) -> Result<Self, Error> {
        self.progress = ProgressRecord::topic(context);
        for (category, spec) in std::mem::take(&mut self.by_category) {
            super::publication::check_category(&category)?;
            self.by_name.entry(topic_name(context, &category)).or_insert(spec);
        }
        for name in self.by_name.keys() {
            if let Some(reason) = topics::invalid_topic(name) {
                let action = format!("declare the topic {name:?}");
                return Err(Error::Broker { action, source: reason.into() });
            }
        }
        self.by_name.values().chain([&self.general]).try_for_each(TopicSpec::check)?;
        Ok(self)
    }

    /// The topics that are needed whatever is in the log.
    pub(super) fn declared(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The plan of a topic of dead letters, of a topic with so many partitions.
    pub(super) fn of_dead_letters(spec: TopicSpec, policy: TopicPolicy, partitions: i32) -> Self {
        let suggestions = TopicSpec::suggesting(&DEAD_LETTERS);
        let suggestions = TopicSpec { partitions: partitions.try_into().ok(), ..suggestions };
        Self { policy, general: spec, suggestions, ..Self::default() }
    }

    /// What a topic is created with: some of it is not held to.
    pub(super) fn to_create(&self, topic: &str) -> TopicSpec {
        let own = TopicSpec::suggesting(if topic == self.progress { &PROGRESS } else { &[] });
        self.spec(topic).over(&own).over(&self.suggestions)
    }

    /// What a topic is to be like.
    pub(super) fn spec(&self, topic: &str) -> TopicSpec {
        if topic == self.progress {
            // One order of records, of which the last one counts.
            let spec = TopicSpec::new().partitions(1).config("cleanup.policy", "compact");
            return TopicSpec { replication: self.general.replication, ..spec };
        }
        let general = self.general.over(&TopicSpec::new().config("cleanup.policy", "delete"));
        self.by_name.get(topic).map_or_else(|| general.clone(), |spec| spec.over(&general))
    }
}

/// Where a topic is not as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicDifference {
    /// There is no such topic.
    Missing {
        /// The topic.
        topic: String,
    },
    /// A property has another value.
    Property {
        /// The topic.
        topic: String,
        /// [`PARTITIONS`](Self::PARTITIONS), [`REPLICATION`](Self::REPLICATION), or a property by
        /// Kafka's name.
        property: String,
        /// The value that it is to have.
        declared: String,
        /// The value that it has; `None` if the broker knows no such property.
        actual: Option<String>,
    },
}

impl TopicDifference {
    /// The name of the number of partitions among the properties.
    pub const PARTITIONS: &'static str = "partitions";
    /// The name of the number of replicas among the properties.
    pub const REPLICATION: &'static str = "replication";
}

impl fmt::Display for TopicDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Property { topic, property, declared, actual } = self else {
            let Self::Missing { topic } = self else { return Ok(()) };
            return write!(
                f,
                "topic {topic} does not exist: create it as declared, or have it created \
                 (TopicPolicy::Create)"
            );
        };
        let Some(actual) = actual else {
            return write!(
                f,
                "topic {topic}: {property} is declared as {declared:?}, and the broker knows no such \
                 property: remove it from the declaration"
            );
        };
        write!(f, "topic {topic}: {property} is {actual:?}, declared as {declared:?}: ")?;
        match property.as_str() {
            Self::PARTITIONS => f.write_str(
                "the number is fixed for life, since a change tears streams apart; declare the one \
                 that it has, or publish to another topic",
            ),
            Self::REPLICATION => f.write_str(
                "reassign its replicas (kafka-reassign-partitions), or declare the number that it has",
            ),
            property => write!(
                f,
                "alter the topic (kafka-configs --alter --topic {topic} --add-config \
                 {property}={declared}), or the declaration"
            ),
        }
    }
}

/// All that differs. It is the source of the [`Error::Broker`] that a publisher ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDifferences(Vec<TopicDifference>);

impl TopicDifferences {
    /// `None` if there are none.
    pub(super) fn of(differences: Vec<TopicDifference>) -> Option<Self> {
        (!differences.is_empty()).then_some(Self(differences))
    }

    /// Each of them.
    pub fn as_slice(&self) -> &[TopicDifference] {
        &self.0
    }
}

impl fmt::Display for TopicDifferences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, difference) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{difference}")?;
        }
        Ok(())
    }
}

impl std::error::Error for TopicDifferences {}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(edit: impl FnOnce(&mut TopicPlan)) -> TopicPlan {
        let mut plan = TopicPlan::default();
        edit(&mut plan);
        plan.of("lending").unwrap()
    }

    #[test]
    fn what_is_said_of_a_topic_goes_before_what_is_said_of_all() {
        let plan = plan(|plan| {
            plan.general = TopicSpec::new().partitions(8).replication(3).keep_forever();
            let loans = TopicSpec::new().partitions(2).keep_for(Duration::from_secs(1));
            plan.by_category.insert("loan".into(), loans);
        });
        let loan = plan.spec("lending.loan.events.v1");
        assert_eq!((loan.partitions, loan.replication), (Some(2), Some(3)));
        let config =
            [("cleanup.policy", "delete"), ("retention.bytes", "-1"), ("retention.ms", "1000")];
        assert_eq!(loan.properties().collect::<Vec<_>>(), config);
        let other = plan.spec("lending.member.events.v1");
        assert_eq!(other.partitions, Some(8));
        assert_eq!(other.config["retention.ms"], "-1");
        let progress = plan.spec("lending.publisher.progress");
        assert_eq!((progress.partitions, progress.replication), (Some(1), Some(3)));
        let config = progress.properties().collect::<Vec<_>>();
        assert_eq!(config, [("cleanup.policy", "compact")]);
    }

    #[test]
    fn all_differences_are_found_and_nothing_undeclared_is_looked_at() {
        let actual = ActualTopic {
            partitions: 1,
            replication: 1,
            config: [("cleanup.policy", "compact, delete"), ("retention.ms", "5")]
                .map(|(property, value)| (property.to_owned(), value.to_owned()))
                .into(),
        };
        let none = TopicSpec::new().partitions(1).config("cleanup.policy", "delete,compact");
        assert_eq!(none.differences("t", &actual), []);
        let spec = TopicSpec::new().partitions(2).replication(3).keep_for(Duration::from_millis(6));
        let differences = spec.config("segment.bytez", 7).differences("t", &actual);
        assert_eq!(differences.len(), 4);
        let said = TopicDifferences::of(differences).unwrap().to_string();
        for part in [
            "topic t: partitions is \"1\", declared as \"2\": the number is fixed",
            "topic t: replication is \"1\", declared as \"3\": reassign",
            "topic t: retention.ms is \"5\", declared as \"6\": alter the topic",
            "topic t: segment.bytez is declared as \"7\", and the broker knows no such property",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert!(same("1000", "1000") && same("1e3", "1000") && same("Delete", "delete"));
        assert!(!same("1000", "1001") && !same("-1", "1") && !same("delete", "compact"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for spec in [TopicSpec::new().partitions(0), TopicSpec::new().replication(0)] {
            let plan = TopicPlan { general: spec, ..TopicPlan::default() };
            assert!(plan.of("lending").is_err());
        }
        let mut named = TopicPlan::default();
        named.by_name.insert("a b".into(), TopicSpec::new());
        assert!(named.of("lending").unwrap_err().to_string().contains("\"a b\""));
        let mut category = TopicPlan::default();
        category.by_category.insert("Loan".into(), TopicSpec::new());
        assert!(category.of("lending").unwrap_err().to_string().contains("\"Loan\""));
    }
}
