//! Which events are published, as what, and where. Pure: the worker does what this says.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use super::{
    mapping::Mapping,
    progress_record::ProgressRecord,
    topics::{invalid_topic, topic_name},
};
use crate::{
    error::Error,
    event::Recorded,
    ids::{StreamId, invalid_category},
};

/// Names of topics that routes lead to. More of them are made anew each time.
const REMEMBERED: usize = 10_000;

pub(super) type Filter = Arc<dyn Fn(&Recorded) -> bool + Send + Sync>;
pub(super) type Route = Arc<dyn Fn(&StreamId) -> Option<String> + Send + Sync>;

/// What of the log is published. Everything, unless something is set.
#[derive(Clone, Default)]
pub(super) struct Publication {
    pub(super) categories: Option<Vec<String>>,
    pub(super) filters: Vec<Filter>,
    pub(super) route: Option<Route>,
    /// By category.
    pub(super) mappings: BTreeMap<String, Mapping>,
}

impl Publication {
    /// Refuses categories that there cannot be.
    pub(super) fn check(&self) -> Result<(), Error> {
        let named = self.categories.iter().flatten().chain(self.mappings.keys());
        named.map(String::as_str).try_for_each(check_category)
    }

    /// The categories that are read at all; `None` for all.
    pub(super) fn categories(&self) -> Option<&[String]> {
        self.categories.as_deref()
    }

    /// Those of these categories whose topic is known without looking at their events.
    pub(super) fn with_known_topics(&self, categories: Vec<String>) -> Vec<String> {
        if self.route.is_some() || !self.filters.is_empty() {
            return Vec::new();
        }
        let wanted =
            |category: &String| self.categories.as_ref().is_none_or(|only| only.contains(category));
        categories.into_iter().filter(wanted).collect()
    }

    /// The event as it is published; `None` if it is not.
    pub(super) fn publish<'e>(
        &self,
        stored: &'e Recorded,
    ) -> Result<Option<Cow<'e, Recorded>>, Error> {
        if !self.filters.iter().all(|wanted| wanted(stored)) {
            return Ok(None);
        }
        if self.mappings.is_empty() {
            return Ok(Some(Cow::Borrowed(stored)));
        }
        let Some(mapping) = self.mappings.get(stored.stream.category()) else {
            return Ok(Some(Cow::Borrowed(stored)));
        };
        match mapping.apply(stored) {
            Ok(public) => Ok(public.map(Cow::Owned)),
            Err(error) => Err(unpublished(stored, error)),
        }
    }
}

pub(super) fn check_category(category: &str) -> Result<(), Error> {
    let Some(reason) = invalid_category(category) else { return Ok(()) };
    let action = format!("publish the category {category:?}");
    Err(Error::Broker { action, source: reason.into() })
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publication")
            .field("categories", &self.categories)
            .field("filters", &self.filters.len())
            .field("routed", &self.route.is_some())
            .field("mapped", &self.mappings.keys())
            .finish()
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("context", &self.context).finish_non_exhaustive()
    }
}

/// Finds the topic of a stream, and makes each name once.
pub(super) struct Router {
    context: String,
    route: Option<Route>,
    by_category: HashMap<Arc<str>, Arc<str>>,
    routed: HashMap<String, Arc<str>>,
}

impl Router {
    pub(super) fn new(context: &str, publication: &Publication) -> Self {
        Self {
            context: context.to_owned(),
            route: publication.route.clone(),
            by_category: HashMap::new(),
            routed: HashMap::new(),
        }
    }

    /// The topic of an event's stream.
    pub(super) fn topic(&mut self, event: &Recorded) -> Result<Arc<str>, Error> {
        let Some(name) = self.route.as_ref().and_then(|route| route(&event.stream)) else {
            return Ok(self.of_category(event.stream.category()));
        };
        if let Some(topic) = self.routed.get(&name) {
            return Ok(topic.clone());
        }
        if let Some(reason) = invalid_topic(&name) {
            let reason = format!("its route leads to the topic {name:?}: {reason}");
            return Err(unpublished(event, reason));
        }
        if name == ProgressRecord::topic(&self.context) {
            let reason =
                format!("its route leads to {name}, where the publisher keeps its progress");
            return Err(unpublished(event, reason));
        }
        if self.routed.len() >= REMEMBERED {
            self.routed.clear();
        }
        let topic = Arc::from(name.as_str());
        self.routed.insert(name, Arc::clone(&topic));
        Ok(topic)
    }

    /// The topic of a category, where nothing else is said.
    pub(super) fn of_category(&mut self, category: &str) -> Arc<str> {
        if let Some(topic) = self.by_category.get(category) {
            return topic.clone();
        }
        let topic: Arc<str> = topic_name(&self.context, category).into();
        self.by_category.insert(category.into(), topic.clone());
        topic
    }
}

/// Says which event cannot be published.
fn unpublished(
    event: &Recorded,
    reason: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let Recorded { position, stream, version, event_type, schema_version, .. } = event;
    let action = format!(
        "publish event {version} of stream {stream}, at position {position}, of type \
         {event_type:?} version {schema_version}"
    );
    Error::Broker { action, source: reason.into() }
}

#[cfg(test)]
mod tests;
