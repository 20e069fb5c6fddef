//! What a publisher is told of its events and topics.

use std::sync::Arc;

use super::{Builder, Disclosure, Security, TopicPolicy, TopicSpec, mapping::Mapping};
use crate::{
    event::{Event, Recorded},
    ids::StreamId,
};

/// Which events, as what, and where.
impl Builder {
    /// Publishes these categories and no others. The others are not even read; the publisher's position
    /// passes them.
    pub fn only_categories(
        mut self,
        categories: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.publication.categories = Some(categories.into_iter().map(Into::into).collect());
        self
    }

    /// Publishes what this says `true` of, as it is stored. Where several filters are set, an event has to
    /// pass all of them.
    ///
    /// An event that is left out is passed for good: a filter that is changed later reaches what comes
    /// later. Like everything that is said of events here it runs on the publisher's own thread, where it may
    /// take its time, and once or more often for each event, so it should answer the same each time.
    pub fn filter(mut self, filter: impl Fn(&Recorded) -> bool + Send + Sync + 'static) -> Self {
        self.publication.filters.push(Arc::new(filter));
        self
    }

    /// Publishes something else instead of the events of a category: events of a public type, which has
    /// names and versions of its own. `None` keeps an event private.
    ///
    /// ```
    /// use annals_eventstore::{Event, Recorded, kafka::Publisher};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Event, Serialize, Deserialize)]
    /// enum LoanEvent {
    ///     Submitted { amount: i64, ssn: String },
    ///     RiskScored { score: u8 },
    /// }
    ///
    /// /// What others may rely on. It changes when they are told, not when `LoanEvent` does.
    /// #[derive(Event, Serialize, Deserialize)]
    /// enum PublicLoan {
    ///     #[event(name = "submitted", version = 2)]
    ///     Submitted { cents: i64 },
    /// }
    ///
    /// let builder = Publisher::builder("localhost:9092", "lending").map(
    ///     "loan",
    ///     |loan: &Recorded<LoanEvent>| match &loan.event {
    ///         LoanEvent::Submitted { amount, .. } => {
    ///             Some(PublicLoan::Submitted { cents: amount * 100 })
    ///         }
    ///         LoanEvent::RiskScored { .. } => None,
    ///     },
    /// );
    /// ```
    ///
    /// Events are decoded first, with the upcasters of `E`. The record's type, schema version and value are
    /// those of the public event; id, stream, version, position, times and metadata stay those of the private
    /// one. So the versions of a stream have gaps where events are private. An event that is read as several
    /// (after a split) is one record all the same: at most one of them may have a public form.
    ///
    /// An event that cannot be decoded, or whose public form cannot be encoded, ends
    /// [`Publisher::run_until`](super::Publisher::run_until) with an error that names it. It is never skipped:
    /// repair the type or the mapping, and publishing goes on with that event.
    ///
    /// Categories that are not mapped are published byte for byte as they are stored.
    pub fn map<E: Event, P: Event>(
        mut self,
        category: impl Into<String>,
        map: impl Fn(&Recorded<E>) -> Option<P> + Send + Sync + 'static,
    ) -> Self {
        self.publication.mappings.insert(category.into(), Mapping::new(map));
        self
    }

    /// Chooses the topic of a stream; `None` leaves it in the topic of its category.
    ///
    /// ```
    /// # use annals_eventstore::kafka::Publisher;
    /// let builder = Publisher::builder("localhost:9092", "lending").route(|stream| {
    ///     let region = stream.key().split_once(':')?.0;
    ///     (stream.category() == "loan").then(|| format!("lending.loan.{region}.events.v1"))
    /// });
    /// ```
    ///
    /// It is asked for streams and not for events, because **a stream must stay in one topic**: there is no
    /// order between topics, and a consumer would see its events mixed up. For the same reason the answer has
    /// to be the same for ever: a route that is changed leaves the earlier events of a stream where they are,
    /// and puts later ones elsewhere. To choose by something that is not in the stream's name, leave the
    /// topics as they are and let consumers look at the headers.
    ///
    /// Several categories may share a topic. Readers that look for a category by the name of its topic have to
    /// be told the topics then.
    ///
    /// A name that Kafka does not take ends [`Publisher::run_until`](super::Publisher::run_until) with an error
    /// that names the event. Topics are created when the first event is on its way to them, or at the start, if
    /// they are declared ([`topic`](Self::topic)).
    pub fn route(
        mut self,
        route: impl Fn(&StreamId) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.publication.route = Some(Arc::new(route));
        self
    }

    /// Which metadata is published: [`Disclosure::Links`] unless set.
    pub fn metadata(mut self, disclosure: Disclosure) -> Self {
        self.disclosure = disclosure;
        self
    }

    /// Where the schemas of payloads are: records get the header `ce_dataschema`, which is this URL and
    /// `{category}.{type}.v{schema version}.json` behind it. There is no such header unless this is set.
    pub fn schemas(mut self, base: impl Into<String>) -> Self {
        self.schemas = Some(base.into());
        self
    }
}

/// What topics are to be like.
impl Builder {
    /// How many partitions each topic has. Short for [`topics`](Self::topics) with that and nothing else.
    pub fn partitions(mut self, partitions: u16) -> Self {
        self.plan.general = self.plan.general.partitions(partitions);
        self
    }

    /// How many replicas each topic has. Short for [`topics`](Self::topics) with that and nothing else.
    pub fn replication(mut self, replicas: u16) -> Self {
        self.plan.general = self.plan.general.replication(replicas);
        self
    }

    /// What all topics are to be like, where nothing is said of one of them.
    pub fn topics(mut self, spec: TopicSpec) -> Self {
        self.plan.general = spec;
        self
    }

    /// What the topic of a category is to be like. What is not declared here is as in
    /// [`topics`](Self::topics).
    pub fn topic_of(mut self, category: impl Into<String>, spec: TopicSpec) -> Self {
        self.plan.by_category.insert(category.into(), spec);
        self
    }

    /// What a topic is to be like that a [`route`](Self::route) leads to.
    pub fn topic(mut self, name: impl Into<String>, spec: TopicSpec) -> Self {
        self.plan.by_name.insert(name.into(), spec);
        self
    }

    /// Who creates topics, and whether they are looked at: [`TopicPolicy::Create`] unless set.
    pub fn topic_policy(mut self, policy: TopicPolicy) -> Self {
        self.plan.policy = policy;
        self
    }
}

/// The way to the brokers.
impl Builder {
    /// TLS and SASL. Properties that are set by it are refused in [`config`](Self::config).
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }
}
