//! A way to the server that ends after a given message.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

pub(crate) use annals_eventstore::testkit::faults::Way;
use annals_eventstore::testkit::faults::{Link, Message, Verdict};

use crate::support::TestDatabase;

/// Which connection to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// One that is opened from now on.
    New,
    /// One that has prepared an append before.
    Used,
}

/// Where to cut: after this many messages this way.
#[derive(Clone, Copy, Debug)]
struct Cut {
    connection: Connection,
    way: Way,
    after: usize,
}

/// Stands between the store and the server, and cuts a connection after a given message.
pub(crate) struct Cutter {
    link: Link,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cut: Mutex<Option<Cut>>,
    announced: AtomicBool,
}

impl Cutter {
    pub(crate) async fn start(database: &TestDatabase) -> Self {
        let link = database.link().await;
        let shared = Arc::new(Shared::default());
        let (of_all, mut connections) = (shared.clone(), HashMap::new());
        link.judge(move |message| {
            let passed = connections.entry(message.connection).or_insert_with(|| Passed {
                is_new: of_all.cut.lock().unwrap().is_some(),
                append: false,
                answers: 0,
            });
            let is_last = of_all.is_last(passed, message.way);
            passed.note(message, &of_all);
            if is_last { Verdict::Cut } else { Verdict::Pass }
        });
        Self { link, shared }
    }

    /// The URL of the database this way.
    pub(crate) fn url(&self) -> &str {
        self.link.url()
    }

    /// Cuts such a connection when `after` messages this way have passed; the next is lost.
    pub(crate) fn cut(&self, connection: Connection, way: Way, after: usize) {
        *self.shared.cut.lock().unwrap() = Some(Cut { connection, way, after });
    }

    /// Cuts nothing any more. True if it had been waiting for its message in vain.
    pub(crate) fn disarm(&self) -> bool {
        self.shared.cut.lock().unwrap().take().is_some()
    }

    /// True once an append has been announced, after which a store is at rest.
    pub(crate) fn has_announced(&self) -> bool {
        self.shared.announced.load(Ordering::Relaxed)
    }
}

/// What has gone over a connection.
struct Passed {
    is_new: bool,
    append: bool,
    /// How many answers, from the announcement's statement on.
    answers: usize,
}

impl Passed {
    fn note(&mut self, message: &Message<'_>, shared: &Shared) {
        let bytes = message.bytes;
        let says = |text: &[u8]| bytes.windows(text.len()).any(|found| found == text);
        match message.way {
            Way::ToServer if says(b"append_batch") => self.append = true,
            Way::ToServer if says(b"pg_notify") => self.answers = 1,
            Way::ToClient if bytes[0] == b'Z' => self.answered(shared),
            _ => {}
        }
    }

    /// The server is ready for the next: once after the announcement is prepared, once after it is made.
    fn answered(&mut self, shared: &Shared) {
        if self.answers > 0 {
            self.answers += 1;
            if self.answers == 3 {
                shared.announced.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl Shared {
    /// Whether the next message this way is the one that does not pass.
    fn is_last(&self, passed: &Passed, way: Way) -> bool {
        let mut cut = self.cut.lock().unwrap();
        let concerned = |cut: &&mut Cut| {
            let connection = match cut.connection {
                Connection::New => passed.is_new,
                Connection::Used => passed.append,
            };
            connection && cut.way == way
        };
        match cut.as_mut().filter(concerned) {
            Some(Cut { after: 0, .. }) => {
                *cut = None;
                true
            }
            Some(cut) => {
                cut.after -= 1;
                false
            }
            None => false,
        }
    }
}
