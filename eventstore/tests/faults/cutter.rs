//! A way to the server that ends after a given message.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_postgres::config::Host;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

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
    pub(crate) port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    cut: Mutex<Option<Cut>>,
    announced: AtomicBool,
}

impl Cutter {
    pub(crate) async fn start(server: tokio_postgres::Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let of_all = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                client.set_nodelay(true).unwrap();
                let port = server.get_ports().first().copied().unwrap_or(5432);
                let shared = Arc::clone(&of_all);
                match &server.get_hosts()[0] {
                    Host::Tcp(host) => {
                        let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
                        server.set_nodelay(true).unwrap();
                        tokio::spawn(forward(client, server, shared));
                    }
                    Host::Unix(folder) => {
                        let socket = folder.join(format!(".s.PGSQL.{port}"));
                        let server = UnixStream::connect(socket).await.unwrap();
                        tokio::spawn(forward(client, server, shared));
                    }
                }
            }
        });
        Self { port, shared, accepting }
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

impl Drop for Cutter {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What has gone over a connection.
struct Passed {
    is_new: bool,
    append: AtomicBool,
    /// How many answers, from the announcement's statement on.
    answers: AtomicUsize,
}

async fn forward(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite + Send,
    shared: Arc<Shared>,
) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = split(server);
    let passed = Passed {
        is_new: shared.cut.lock().unwrap().is_some(),
        append: AtomicBool::new(false),
        answers: AtomicUsize::new(0),
    };
    // Whichever side ends first takes the other with it.
    tokio::select! {
        () = pass(from_client, to_server, Way::ToServer, &shared, &passed) => {}
        () = pass(from_server, to_client, Way::ToClient, &shared, &passed) => {}
    }
}

/// Passes message by message. A client's first has no type, only a length.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    shared: &Shared,
    passed: &Passed,
) {
    let mut has_type = way == Way::ToClient;
    loop {
        let mut message = vec![0; if has_type { 5 } else { 4 }];
        if from.read_exact(&mut message).await.is_err() {
            return;
        }
        let length: [u8; 4] = message[message.len() - 4..].try_into().unwrap();
        let header = message.len();
        message.resize(header + u32::from_be_bytes(length) as usize - 4, 0);
        if from.read_exact(&mut message[header..]).await.is_err() {
            return;
        }
        has_type = true;
        let is_last = shared.is_last(passed, way);
        passed.note(&message, way, shared);
        if is_last || to.write_all(&message).await.is_err() {
            return;
        }
    }
}

impl Passed {
    fn note(&self, message: &[u8], way: Way, shared: &Shared) {
        let says = |text: &[u8]| message.windows(text.len()).any(|found| found == text);
        match way {
            Way::ToServer if says(b"append_batch") => self.append.store(true, Ordering::Relaxed),
            Way::ToServer if says(b"pg_notify") => self.answers.store(1, Ordering::Relaxed),
            Way::ToClient if message[0] == b'Z' => self.answered(shared),
            _ => {}
        }
    }

    /// The server is ready for the next: once after the announcement is prepared, once after it is made.
    fn answered(&self, shared: &Shared) {
        let begun = self.answers.load(Ordering::Relaxed) > 0;
        if begun && self.answers.fetch_add(1, Ordering::Relaxed) == 2 {
            shared.announced.store(true, Ordering::Relaxed);
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
                Connection::Used => passed.append.load(Ordering::Relaxed),
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
