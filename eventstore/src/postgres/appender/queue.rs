//! What waits to be appended: bounded in number and in bytes, each with a time until when.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{failure::Failure, writer::Writer};
use crate::{
    backend::{Outcome, Request},
    error::Error,
    ids::StreamId,
    metrics::Depth,
    store::Options,
};

/// In what the bytes of waiting appends are counted.
const UNIT: usize = 1024;

/// What an event takes besides its payload and metadata.
const EVENT_OVERHEAD: usize = 256;

/// The place where callers wait: for room, and then for the outcome.
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<Pending>,
    appends: Arc<Semaphore>,
    units: Arc<Semaphore>,
    max_appends: usize,
    max_units: usize,
    queue_timeout: Duration,
    append_timeout: Duration,
    /// No more appends.
    pub(super) closing: CancellationToken,
    /// No more waiting for those that are accepted.
    pub(super) cut: CancellationToken,
    cut_off: AtomicUsize,
    depth: Arc<Depth>,
}

impl Queue {
    pub(super) fn new(options: &Options) -> (Self, mpsc::UnboundedReceiver<Pending>) {
        // The semaphores bound it.
        let (sender, receiver) = mpsc::unbounded_channel();
        let max_appends = options.queue_appends.clamp(1, Semaphore::MAX_PERMITS);
        let max_units = (options.queue_bytes / UNIT).clamp(1, u32::MAX as usize);
        let queue = Self {
            sender,
            appends: Arc::new(Semaphore::new(max_appends)),
            units: Arc::new(Semaphore::new(max_units.min(Semaphore::MAX_PERMITS))),
            max_appends,
            max_units,
            queue_timeout: options.queue_timeout,
            append_timeout: options.append_timeout,
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
            cut_off: AtomicUsize::new(0),
            depth: Arc::new(Depth::new()),
        };
        (queue, receiver)
    }

    pub(super) async fn append(&self, request: Request) -> Result<Outcome, Error> {
        let started = Instant::now();
        let place = self.place(&request).await?;
        let (reply, outcome) = oneshot::channel();
        let stage = Arc::new(Stage::default());
        let pending = Pending { request, reply, stage: stage.clone(), _place: place };
        // It fails once the queue is closed; then nobody will ever see the append.
        self.sender.send(pending).map_err(|_| Error::Closed)?;
        match timeout_at(started + self.append_timeout, outcome).await {
            Ok(Ok(result)) => result,
            // No task answers any more, so nobody will take it, or has it.
            Ok(Err(_)) if stage.give_up() => Err(Error::Closed),
            Err(_) if stage.give_up() => {
                Err(Error::TimedOut { action: "append", waited: self.append_timeout })
            }
            Ok(Err(error)) => Err(Error::Indeterminate { source: Box::new(error) }),
            Err(elapsed) => Err(Error::Indeterminate { source: Box::new(elapsed) }),
        }
    }

    /// Room for a request, for as long as it is held.
    async fn place(&self, request: &Request) -> Result<Place, Error> {
        // One that is larger than all the room there is travels when there is nothing else.
        let bytes = size(request);
        let units = (bytes / UNIT + 1).min(self.max_units) as u32;
        let both = async {
            let append = self.appends.clone().acquire_owned().await?;
            let units = self.units.clone().acquire_many_owned(units).await?;
            self.depth.joined(bytes);
            let depth = self.depth.clone();
            Ok::<_, tokio::sync::AcquireError>(Place {
                _append: append,
                _units: units,
                bytes,
                depth,
            })
        };
        match timeout(self.queue_timeout, both).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::Overloaded {
                appends: self.max_appends - self.appends.available_permits(),
                bytes: (self.max_units - self.units.available_permits()) * UNIT,
                waited: self.queue_timeout,
            }),
        }
    }

    pub(super) fn close(&self) {
        self.closing.cancel();
        self.appends.close();
        self.units.close();
    }

    /// Answers an append that failed, or is not sent any more.
    pub(super) fn fail(&self, pending: Pending, failure: &Failure) {
        if matches!(failure, Failure::Closed | Failure::CutOff) {
            self.cut_off.fetch_add(1, Ordering::Relaxed);
        }
        let error = failure.to_error(&pending.request);
        pending.answer(Err(error));
    }

    /// How many accepted appends were given up.
    pub(super) fn cut_off(&self) -> usize {
        self.cut_off.load(Ordering::Relaxed)
    }
}

fn size(request: &Request) -> usize {
    let events = request.events.iter();
    events.map(|(_, event)| event.bytes + EVENT_OVERHEAD).sum()
}

/// Room in the queue. It is free again when dropped.
pub(super) struct Place {
    _append: OwnedSemaphorePermit,
    _units: OwnedSemaphorePermit,
    bytes: usize,
    depth: Arc<Depth>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.depth.left(self.bytes);
    }
}

/// An append that waits.
pub(super) struct Pending {
    pub(super) request: Request,
    reply: oneshot::Sender<Result<Outcome, Error>>,
    stage: Arc<Stage>,
    _place: Place,
}

impl Pending {
    /// Takes it to be sent; false if its caller has given up, so that it must not be.
    pub(super) fn take(&self) -> bool {
        self.stage.change(WAITING, TAKEN)
    }

    /// Puts it back: it was not recorded, and is not being sent.
    fn put_back(&self) {
        self.stage.change(TAKEN, WAITING);
    }

    pub(super) fn answer(self, outcome: Result<Outcome, Error>) {
        // A caller that went away does not need its answer.
        drop(self.reply.send(outcome));
    }
}

/// Who decides on an append: its caller may give it up as long as no task has taken it.
#[derive(Default)]
struct Stage(AtomicU8);

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Stage {
    /// True if it surely is not and will not be recorded.
    fn give_up(&self) -> bool {
        self.change(WAITING, GIVEN_UP)
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Where appends wait whose streams other transactions hold, so that nobody waits behind them.
#[derive(Clone)]
pub(super) struct Lane {
    sender: mpsc::UnboundedSender<Pending>,
    /// The streams that were held when last tried.
    held: Arc<Mutex<HashSet<StreamId>>>,
}

/// Streams beyond these are tried with all others again first.
const MAX_HELD: usize = 10_000;

impl Lane {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Pending>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, held: Arc::default() }, receiver)
    }

    /// True if one of the streams is known to be held.
    pub(super) fn holds(&self, request: &Request) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        !held.is_empty() && request.streams.iter().any(|(stream, _)| held.contains(stream))
    }

    /// Lets an append wait that a batch could not take along.
    pub(super) fn divert(&self, pending: Pending) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() < MAX_HELD {
            held.extend(pending.request.streams.iter().map(|(stream, _)| stream.clone()));
        }
        drop(held);
        pending.put_back();
        // The lane outlives those who divert to it.
        drop(self.sender.send(pending));
    }

    /// Sends them, one by one. Ends when nobody diverts any more.
    pub(super) async fn run(
        self,
        mut waiting: mpsc::UnboundedReceiver<Pending>,
        writer: Writer,
        patience: Duration,
    ) {
        let Self { sender, held } = self;
        drop(sender);
        while let Some(pending) = waiting.recv().await {
            if !pending.take() {
                continue;
            }
            let result = writer.record(&[&pending.request], patience).await;
            if !matches!(&result, Err(Failure::Locked { .. })) {
                let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                for (stream, _) in &pending.request.streams {
                    held.remove(stream);
                }
            }
            match result {
                Ok(mut outcomes) => pending.answer(Ok(outcomes.remove(0))),
                Err(failure) => writer.queue.fail(pending, &failure),
            }
        }
    }
}
