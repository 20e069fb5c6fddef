//! A way to a server that can be disturbed.

mod forward;
mod frames;
mod plan;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};
use tokio_postgres::config::Host;
use tokio_util::task::AbortOnDropHandle;

pub use self::{
    forward::{Message, Verdict, Way},
    plan::{Delay, Plan},
};
use self::{
    forward::{forward, is_refused},
    frames::Protocol,
};

/// What passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Passage {
    /// Everything.
    Open,
    /// Nothing, and no connection is closed: packets are lost.
    Stalled,
    /// What is asked, and no answer: what was asked is done, and who asked does not know.
    Mute,
    /// Nothing: connections are closed, those that are there and those that come.
    Closed,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The URL of the database cannot be read.
    #[error("this is no URL of PostgreSQL")]
    Url(#[source] tokio_postgres::Error),
    /// No port of this machine can be listened at.
    #[error("no port can be listened at")]
    Listen(#[source] io::Error),
}

/// Stands between a program and a server, on a port of this machine. It ends, with its connections, when it is dropped.
///
/// ```no_run
/// use std::time::Duration;
///
/// use annals_eventstore::{
///     EventStore,
///     testkit::faults::{Delay, Link, Passage, Plan, Seed},
/// };
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let link = Link::postgres("postgres://localhost/bank").await?;
/// let store = EventStore::connect(link.url()).await?;
/// // A slow network that breaks now and then:
/// link.follow(Plan::new(Seed::any()).delay(Delay::exponential(Duration::from_millis(2))).cuts(0.001));
/// // A server that freezes for a second:
/// link.set(Passage::Stalled);
/// tokio::time::sleep(Duration::from_secs(1)).await;
/// link.set(Passage::Open);
/// # Ok(()) }
/// ```
///
/// It reads what passes as messages of PostgreSQL's protocol where it was made by [`postgres`](Self::postgres), and passes it
/// on message by message; elsewhere, as it comes. A client is told that the server has no TLS.
///
/// Clients of Kafka connect to what a broker says that its address is, so a broker behind a link must advertise the link's:
/// make the link with [`unbound`](Self::unbound), start the broker, and [`lead_to`](Self::lead_to) it. What TCP
/// carries is never carried twice; a record that is delivered again is a matter of the broker's clients.
#[derive(Debug)]
pub struct Link {
    port: u16,
    url: String,
    shared: Arc<Shared>,
    _accepting: AbortOnDropHandle<()>,
}

/// What all connections of a link share.
struct Shared {
    protocol: Protocol,
    target: OnceLock<Target>,
    passage: watch::Sender<Passage>,
    /// Counts how often all connections were cut.
    cut: watch::Sender<u64>,
    plan: Mutex<Option<Arc<Plan>>>,
    /// The next answer is to be lost.
    losing: std::sync::atomic::AtomicBool,
    judge: Mutex<Option<Judge>>,
    connections: AtomicU64,
    disturbed: AtomicU64,
}

type Judge = Box<dyn FnMut(&Message<'_>) -> Verdict + Send>;

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Where a link leads.
#[derive(Clone, Debug)]
enum Target {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Link {
    /// To the PostgreSQL server of a URL, or of a connection string of keys and values. Of several hosts, to the first.
    ///
    /// # Errors
    /// If the URL cannot be read, or no port can be listened at.
    pub async fn postgres(url: &str) -> Result<Self, LinkError> {
        let config: tokio_postgres::Config = url.parse().map_err(LinkError::Url)?;
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let target = match config.get_hosts().first() {
            Some(Host::Unix(folder)) => Target::Unix(folder.join(format!(".s.PGSQL.{port}"))),
            Some(Host::Tcp(host)) => Target::Tcp(host.clone(), port),
            None => Target::Tcp("localhost".to_owned(), port),
        };
        let mut link = Self::listen(Protocol::Postgres).await?;
        link.url = through(&config, link.port);
        // It leads nowhere yet.
        let _ = link.shared.target.set(target);
        Ok(link)
    }

    /// To any server.
    ///
    /// # Errors
    /// If no port can be listened at.
    pub async fn to(host: impl Into<String>, port: u16) -> Result<Self, LinkError> {
        let link = Self::listen(Protocol::Any).await?;
        let _ = link.shared.target.set(Target::Tcp(host.into(), port));
        Ok(link)
    }

    /// One that leads nowhere yet, and closes connections: for a server that has to know the link's port before it starts.
    ///
    /// # Errors
    /// If no port can be listened at.
    pub async fn unbound() -> Result<Self, LinkError> {
        Self::listen(Protocol::Any).await
    }

    async fn listen(protocol: Protocol) -> Result<Self, LinkError> {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = bound.map_err(LinkError::Listen)?;
        let port = listener.local_addr().map_err(LinkError::Listen)?.port();
        let shared = Arc::new(Shared {
            protocol,
            target: OnceLock::new(),
            passage: watch::Sender::new(Passage::Open),
            cut: watch::Sender::new(0),
            plan: Mutex::default(),
            losing: Default::default(),
            judge: Mutex::default(),
            connections: AtomicU64::new(0),
            disturbed: AtomicU64::new(0),
        });
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, shared.clone())));
        Ok(Self { port, url: format!("127.0.0.1:{port}"), shared, _accepting: accepting })
    }

    /// Leads to a port of this machine. Only the first call counts.
    pub fn lead_to(&self, port: u16) {
        let _ = self.shared.target.set(Target::Tcp(Ipv4Addr::LOCALHOST.to_string(), port));
    }

    /// The port of this machine that it listens at.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address that it listens at.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The URL of the database through the link; of another server, its address as text.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Lets pass from now on, on all connections.
    pub fn set(&self, passage: Passage) {
        self.shared.passage.send_replace(passage);
    }

    /// Disturbs connections at random from now on, or no more with `None`.
    pub fn follow(&self, plan: impl Into<Option<Plan>>) {
        *lock(&self.shared.plan) = plan.into().map(Arc::new);
    }

    /// The next answer of the server, on whichever connection, does not arrive, and that connection is cut: what was asked is
    /// done, and who asked does not know. What PostgreSQL says unasked is no answer.
    pub fn lose_next_answer(&self) {
        self.shared.losing.store(true, Ordering::Relaxed);
    }

    /// Cuts all connections that there are. Those that come are let through.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|cut| *cut += 1);
    }

    /// Has every message judged, in the place of an earlier judge, beside all else.
    pub fn judge(&self, judge: impl FnMut(&Message<'_>) -> Verdict + Send + 'static) {
        *lock(&self.shared.judge) = Some(Box::new(judge));
    }

    /// How often something was disturbed by the plan, by a judge, or by an answer that was lost.
    pub fn disturbed(&self) -> u64 {
        self.shared.disturbed.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it holds is whole whenever nobody has it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // They end with the link.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // A client that is gone before it was let in is no reason to end.
        let Ok((client, _)) = listener.accept().await else { continue };
        let Some(target) = shared.target.get().cloned() else { continue };
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        if is_refused(&shared, number) {
            continue;
        }
        let shared = shared.clone();
        connections.spawn(async move {
            // Without delays of the machine's own.
            let _ = client.set_nodelay(true);
            // The server may be down.
            match target {
                Target::Tcp(host, port) => {
                    let Ok(server) = TcpStream::connect((host.as_str(), port)).await else {
                        return;
                    };
                    let _ = server.set_nodelay(true);
                    forward(client, server, &shared, number).await;
                }
                Target::Unix(socket) => {
                    let Ok(server) = UnixStream::connect(socket).await else { return };
                    forward(client, server, &shared, number).await;
                }
            }
        });
    }
}

/// The connection string of the same database by way of a port of this machine.
fn through(config: &tokio_postgres::Config, port: u16) -> String {
    let text = |value: Option<&str>| value.map(str::to_owned);
    let password = config.get_password().map(|it| String::from_utf8_lossy(it).into_owned());
    let options = [
        ("host", Some(Ipv4Addr::LOCALHOST.to_string())),
        ("port", Some(port.to_string())),
        // What stands in between reads the messages.
        ("sslmode", Some("disable".to_owned())),
        ("dbname", text(config.get_dbname())),
        ("user", text(config.get_user())),
        ("password", password),
        ("application_name", text(config.get_application_name())),
        ("options", text(config.get_options())),
    ];
    let quoted = |value: String| value.replace('\\', r"\\").replace('\'', r"\'");
    let options = options.into_iter().filter_map(|(name, value)| Some((name, quoted(value?))));
    options.map(|(name, value)| format!("{name}='{value}'")).collect::<Vec<_>>().join(" ")
}
