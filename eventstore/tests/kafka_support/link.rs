//! A way to a broker that can be cut.

use std::{net::Ipv4Addr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OnceCell, watch},
    task::JoinHandle,
};

/// What passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Everything.
    Open,
    /// Nothing, and no connection is closed: packets are lost.
    Stalled,
    /// What is asked, and no answer: what was asked is done, and who asked does not know.
    Mute,
    /// Nothing: connections are closed, those that are there and those that come.
    Closed,
}

/// Stands between clients and a broker.
pub(crate) struct Link {
    pub(crate) port: u16,
    broker: Arc<OnceCell<u16>>,
    passage: watch::Sender<Passage>,
    accepting: JoinHandle<()>,
}

impl Link {
    /// One that leads nowhere yet: its port has to be known before the broker starts.
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (passage, passing) = watch::channel(Passage::Open);
        let broker = Arc::new(OnceCell::new());
        let leads_to = Arc::clone(&broker);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Some(port) = leads_to.get() {
                    tokio::spawn(forward(client, *port, passing.clone()));
                }
            }
        });
        Self { port, broker, passage, accepting }
    }

    /// Leads to a broker's port from now on.
    pub(crate) fn lead_to(&self, port: u16) {
        self.broker.set(port).expect("it leads nowhere yet");
    }

    pub(crate) fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn forward(client: TcpStream, port: u16, mut passing: watch::Receiver<Passage>) {
    // The broker may be down.
    let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let asking = passing.clone();
    let answering = passing.clone();
    let passes_answers = |passage: &Passage| *passage == Passage::Open;
    let passes_questions = |passage: &Passage| matches!(passage, Passage::Open | Passage::Mute);
    // Whichever ends first takes the other with it.
    tokio::select! {
        () = pass(from_client, to_broker, asking, passes_questions) => {}
        () = pass(from_broker, to_client, answering, passes_answers) => {}
        _ = passing.wait_for(|passage| *passage == Passage::Closed) => {}
    }
}

/// Passes what comes, when it may.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut passing: watch::Receiver<Passage>,
    may_pass: impl Fn(&Passage) -> bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let passes = passing.wait_for(&may_pass).await.is_ok();
        if !passes || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
