//! A way to the server that can lose its answers, or stand still.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};
use tokio_postgres::config::Host;

/// Stands between the store and the server. On demand it swallows the next answer and cuts that
/// connection: what was asked has been done, and who asked does not know.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    swallow: Arc<AtomicBool>,
    stalled: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: tokio_postgres::Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let swallow = Arc::new(AtomicBool::new(false));
        let armed = Arc::clone(&swallow);
        let (stalled, stalling) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let port = server.get_ports().first().copied().unwrap_or(5432);
                let (armed, stalling) = (Arc::clone(&armed), stalling.clone());
                match &server.get_hosts()[0] {
                    Host::Tcp(host) => {
                        let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
                        tokio::spawn(forward(client, server, armed, stalling));
                    }
                    Host::Unix(folder) => {
                        let socket = folder.join(format!(".s.PGSQL.{port}"));
                        let server = UnixStream::connect(socket).await.unwrap();
                        tokio::spawn(forward(client, server, armed, stalling));
                    }
                }
            }
        });
        Self { port, swallow, stalled, accepting }
    }

    /// The next answer of the server, on whichever connection, does not arrive.
    pub(crate) fn swallow_next_answer(&self) {
        self.swallow.store(true, Ordering::Relaxed);
    }

    /// From now on nothing is passed on, either way, and no connection is closed: neither those that
    /// are there nor those that come.
    pub(crate) fn stall(&self) {
        self.stalled.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn forward(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite + Send,
    swallow: Arc<AtomicBool>,
    mut stalling: watch::Receiver<bool>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = split(server);
    let asking = copy(&mut from_client, &mut to_server);
    let answering = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            let cut = swallow.swap(false, Ordering::Relaxed);
            if cut || to_client.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    };
    let ended = async {
        // Whichever side ends first takes the other with it.
        tokio::select! {
            _ = asking => {}
            () = answering => {}
        }
    };
    let stalled = async {
        let is_stalled = stalling.wait_for(|stalled| *stalled).await.is_ok();
        if !is_stalled {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        // With both connections open.
        () = stalled => std::future::pending().await,
        () = ended => {}
    }
}
