//! Sharing partitions out among processes, by a consumer group of Kafka.
//!
//! The group decides who reads what, and nothing else: its members fetch nothing. Reading is done by a
//! [`Subscription`](super::Subscription) with the partitions that were assigned.

mod member;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::Thread,
    time::Duration,
};

use tokio::sync::mpsc::UnboundedReceiver;

use self::member::{Member, Shared};
use super::{
    error::FeedError,
    offsets::{Offsets, Partitions},
    source::{Source, spawn},
};

/// A membership in a group, to be started. Get it from [`Source::group`].
#[derive(Clone, Debug)]
#[must_use = "it does nothing until join"]
pub struct Join {
    source: Source,
    name: String,
    categories: Vec<String>,
    instance: Option<String>,
    session_timeout: Duration,
    handover: Duration,
}

impl Join {
    pub(super) fn new(source: Source, name: String, categories: Vec<String>) -> Self {
        Self {
            source,
            name,
            categories,
            instance: None,
            session_timeout: Duration::from_secs(10),
            handover: Duration::from_secs(10),
        }
    }

    /// Makes it a static member, by a name that no other member has. One that leaves and comes back under
    /// its name within the session timeout keeps its partitions, and nothing is moved meanwhile.
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// After which time without a sign of life its partitions go to others: 10 seconds unless set. The
    /// broker's `group.min.session.timeout.ms` (6 seconds by default) is the least.
    pub fn session_timeout(mut self, time: Duration) -> Self {
        self.session_timeout = time;
        self
    }

    /// How long the owner has for handing partitions over before they go to others: 10 seconds unless set.
    pub fn handover(mut self, time: Duration) -> Self {
        self.handover = time;
        self
    }

    /// Joins. It returns at once: what does not work is said by [`Group::next`].
    ///
    /// # Errors
    /// [`FeedError::Option`] if an option is out of range.
    pub fn join(self) -> Result<Group, FeedError> {
        let Self { source, name, categories, instance, session_timeout, handover } = self;
        let millis = |time: Duration| time.as_millis().to_string();
        let group = format!("{}.{name}", source.context);
        let mut more = vec![
            ("group.id", group),
            ("partition.assignment.strategy", "cooperative-sticky".to_owned()),
            ("session.timeout.ms", millis(session_timeout)),
            ("heartbeat.interval.ms", millis(session_timeout / 10)),
            // The owner is waited for without a poll.
            ("max.poll.interval.ms", millis((handover * 3).max(Duration::from_secs(300)))),
            // Nothing is read. It must not matter where.
            ("auto.offset.reset", "latest".to_owned()),
        ];
        more.extend(instance.map(|instance| ("group.instance.id", instance)));
        let (events, changes) = tokio::sync::mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let (running, ended) = tokio::sync::oneshot::channel();
        let topics = source.topics_of(&categories);
        let member = Member::new(&source, &more, topics, events, shared.clone(), handover)?;
        let work = move || {
            member.run();
            // Told by its end.
            drop(running);
        };
        let thread = spawn("annals-kafka-group", work)?.thread().clone();
        Ok(Group { changes, shared, thread, ended: Some(ended), failure: None })
    }
}

/// A membership in a consumer group: which partitions are this process's.
///
/// Partitions are numbers, for all topics of the group at once: number 3 stands for partition 3 of each.
/// They move one by one (cooperative-sticky): while some go to another member, the others stay.
///
/// Dropping it leaves the group, without waiting; [`leave`](Self::leave) waits.
#[derive(Debug)]
pub struct Group {
    changes: UnboundedReceiver<Result<Change, FeedError>>,
    shared: Arc<Shared>,
    thread: Thread,
    ended: Option<tokio::sync::oneshot::Receiver<()>>,
    failure: Option<FeedError>,
}

/// What changes for a member of a group.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change {
    /// These partitions are its own from now on, besides those that were before.
    /// [`Partitions::All`]: there is no topic yet, and whatever comes is its own.
    Assigned(Partitions),
    /// These are to be given up.
    Revoked(Revoked),
}

/// Partitions that are to be given up.
///
/// They go to another member once this is [`done`](Self::done) or dropped, or when the time for a handover
/// is over.
#[derive(Debug)]
#[non_exhaustive]
pub struct Revoked {
    /// Which ones.
    pub partitions: Partitions,
    /// Whether others have them already, since this member was not heard of for too long.
    pub is_lost: bool,
    _done: mpsc::SyncSender<()>,
}

impl Revoked {
    /// They are given up: what was applied is committed, and nothing more is read.
    pub fn done(self) {}
}

impl Group {
    /// The next change. At first there is none: wait for the first assignment, which may be empty-handed
    /// for as long as there are more members than partitions.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    /// What does not get better by waiting: [`FeedError::NotPublished`], or a broker that refuses. It is
    /// returned again by later calls. A broker that does not answer is no error; the group then revokes
    /// what others may have by now.
    pub async fn next(&mut self) -> Result<Change, FeedError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let change = self.changes.recv().await.unwrap_or_else(|| {
            Err(FeedError::Broker {
                action: "go on as a member of the group".to_owned(),
                source: Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("it has ended")),
                retryable: true,
            })
        });
        if let Err(failure) = &change {
            self.failure = Some(failure.clone());
        }
        change
    }

    /// Notes in Kafka how far partitions were dealt with, for those who look at lag with Kafka's tools.
    /// Nothing is read from there again. It is done about once a second, and when the group is left;
    /// what fails is done the next time.
    pub fn commit(&self, offsets: &Offsets) {
        let mut commit = self.shared.commit.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, partition, next) in offsets.iter() {
            commit.set(topic, partition, next);
        }
    }

    /// Leaves the group, and waits until the partitions are given back. Stop reading before. A static
    /// member keeps them until its session is over.
    pub async fn leave(mut self) {
        self.stop();
        if let Some(ended) = self.ended.take() {
            // It ends with an error, since nothing is ever sent.
            let _ = ended.await;
        }
    }

    fn stop(&self) {
        self.shared.stop();
        self.thread.unpark();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The numbers in a list of partitions.
fn numbers(partitions: impl IntoIterator<Item = i32>) -> Partitions {
    Partitions::These(partitions.into_iter().collect::<BTreeSet<_>>())
}

/// The offsets that are to be committed.
type Commit = Mutex<Offsets>;
