//! A way to the server that can lose its answers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split},
    net::{TcpListener, TcpStream, UnixStream},
};
use tokio_postgres::config::Host;

/// Stands between the store and the server. On demand it swallows the next answer and cuts that
/// connection: what was asked has been done, and who asked does not know.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    swallow: Arc<AtomicBool>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: tokio_postgres::Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let swallow = Arc::new(AtomicBool::new(false));
        let armed = Arc::clone(&swallow);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let port = server.get_ports().first().copied().unwrap_or(5432);
                let armed = Arc::clone(&armed);
                match &server.get_hosts()[0] {
                    Host::Tcp(host) => {
                        let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
                        tokio::spawn(forward(client, server, armed));
                    }
                    Host::Unix(folder) => {
                        let socket = folder.join(format!(".s.PGSQL.{port}"));
                        let server = UnixStream::connect(socket).await.unwrap();
                        tokio::spawn(forward(client, server, armed));
                    }
                }
            }
        });
        Self { port, swallow, accepting }
    }

    /// The next answer of the server, on whichever connection, does not arrive.
    pub(crate) fn swallow_next_answer(&self) {
        self.swallow.store(true, Ordering::Relaxed);
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
    // Whichever side ends first takes the other with it.
    tokio::select! {
        _ = asking => {}
        () = answering => {}
    }
}
