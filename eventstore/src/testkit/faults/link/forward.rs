//! One connection: what comes is judged, held up, and passed on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, split},
    net::TcpStream,
    sync::mpsc,
    time::Instant,
};

use super::{
    Passage, Shared,
    frames::{Frames, Protocol, asks_for_encryption, is_unasked},
    lock,
    plan::{Fate, Plan},
};

/// How many pieces are held up at most, one way of a connection.
const HELD_UP: usize = 64;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// Something on its way.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Message<'a> {
    /// The number of the connection, from 0.
    pub connection: u64,
    /// Which way it goes.
    pub way: Way,
    /// The number of the message, this way of this connection, from 0.
    pub number: u64,
    /// All of it: of PostgreSQL's protocol with its type and its length.
    pub bytes: &'a [u8],
}

/// What is to become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It passes after this time; what comes behind it, too.
    Delay(Duration),
    /// It is lost, and the connection is closed.
    Cut,
    /// It is lost, as is all that comes behind it this way, and the connection stays open.
    Stall,
}

/// Whether a connection is closed before it has begun.
pub(super) fn is_refused(shared: &Shared, connection: u64) -> bool {
    let plan = lock(&shared.plan).clone();
    let refused = plan.is_some_and(|plan| plan.refuses_connection(connection));
    shared.disturbed.fetch_add(u64::from(refused), Ordering::Relaxed);
    refused
}

/// Passes on what comes, both ways, until one side ends or the connection is cut.
pub(super) async fn forward(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite + Send,
    shared: &Shared,
    connection: u64,
) {
    let (from_client, to_client) = split(client);
    let (from_server, to_server) = split(server);
    let passed = AtomicU64::new(0);
    let one_way = |way| OneWay { shared, connection, way, passed: &passed };
    let mut cut = shared.cut.subscribe();
    let mut passage = shared.passage.subscribe();
    // What the link itself has to say goes the way of the answers.
    let (reply, replies) = mpsc::channel(HELD_UP);
    let asking = one_way(Way::ToServer).pass(
        Frames::of_client(from_client, shared.protocol),
        to_server,
        mpsc::channel(HELD_UP),
        (shared.protocol == Protocol::Postgres).then(|| reply.clone()),
    );
    let answering = one_way(Way::ToClient).pass(
        Frames::of_server(from_server, shared.protocol),
        to_client,
        (reply, replies),
        None,
    );
    // Whichever ends first takes the other with it.
    tokio::select! {
        () = asking => {}
        () = answering => {}
        _ = cut.changed() => {}
        _ = passage.wait_for(|passage| *passage == Passage::Closed) => {}
    }
}

/// What waits to be passed on, and until when.
type Held = (Instant, Vec<u8>);
type Channel = (mpsc::Sender<Held>, mpsc::Receiver<Held>);

#[derive(Clone, Copy)]
struct OneWay<'a> {
    shared: &'a Shared,
    connection: u64,
    way: Way,
    /// How many bytes have come, both ways.
    passed: &'a AtomicU64,
}

impl OneWay<'_> {
    /// Passes pieces on, each when it may. What was held up before the end still passes.
    async fn pass(
        self,
        from: Frames<impl AsyncRead + Unpin>,
        mut to: impl AsyncWrite + Unpin,
        (sender, mut held): Channel,
        replies: Option<mpsc::Sender<Held>>,
    ) {
        let reading = self.read(from, sender, replies);
        let writing = async {
            let mut passage = self.shared.passage.subscribe();
            while let Some((at, piece)) = held.recv().await {
                tokio::time::sleep_until(at).await;
                let may_pass = passage.wait_for(|passage| self.may_pass(*passage)).await.is_ok();
                if !may_pass || to.write_all(&piece).await.is_err() {
                    return;
                }
            }
        };
        // It ends once nothing is held up and nothing more comes, or where it cannot go on.
        tokio::select! {
            () = writing => {}
            () = async {
                reading.await;
                std::future::pending().await
            } => {}
        }
    }

    fn may_pass(self, passage: Passage) -> bool {
        match self.way {
            Way::ToServer => matches!(passage, Passage::Open | Passage::Mute),
            Way::ToClient => passage == Passage::Open,
        }
    }

    async fn read(
        self,
        mut from: Frames<impl AsyncRead + Unpin>,
        sender: mpsc::Sender<Held>,
        mut replies: Option<mpsc::Sender<Held>>,
    ) {
        let mut number = 0;
        while let Some(piece) = from.next().await {
            if let Some(replies) = replies.as_ref().filter(|_| asks_for_encryption(&piece)) {
                // "No": what passes must be readable.
                if replies.send((Instant::now(), b"N".to_vec())).await.is_err() {
                    return;
                }
                continue;
            }
            // It is asked at the beginning only. The answers end without this one.
            replies = None;
            let at = match self.verdict(number, &piece) {
                Verdict::Pass => Instant::now(),
                Verdict::Delay(delay) => Instant::now() + delay,
                Verdict::Cut => return,
                // With both connections open.
                Verdict::Stall => std::future::pending().await,
            };
            number += 1;
            if sender.send((at, piece)).await.is_err() {
                return;
            }
        }
    }

    fn verdict(self, number: u64, piece: &[u8]) -> Verdict {
        let verdict = self.decide(number, piece);
        let is_disturbed = matches!(verdict, Verdict::Cut | Verdict::Stall);
        self.shared.disturbed.fetch_add(u64::from(is_disturbed), Ordering::Relaxed);
        verdict
    }

    fn decide(self, number: u64, piece: &[u8]) -> Verdict {
        let Self { shared, connection, way, passed } = self;
        let length = piece.len() as u64;
        let passed = passed.fetch_add(length, Ordering::Relaxed) + length;
        let is_unasked = shared.protocol == Protocol::Postgres && is_unasked(piece);
        let is_answer = way == Way::ToClient && !is_unasked;
        if is_answer && shared.losing.swap(false, Ordering::Relaxed) {
            return Verdict::Cut;
        }
        let plan: Option<Arc<Plan>> = lock(&shared.plan).clone();
        let fate = plan.map_or(Fate::Passes(None), |plan| {
            plan.fate(connection, way == Way::ToClient, number, passed)
        });
        let message = Message { connection, way, number, bytes: piece };
        let judged = lock(&shared.judge).as_mut().map_or(Verdict::Pass, |judge| judge(&message));
        match (fate, judged) {
            (Fate::Cut, _) => Verdict::Cut,
            (Fate::Stall, Verdict::Pass | Verdict::Delay(_)) => Verdict::Stall,
            (Fate::Passes(Some(delay)), Verdict::Pass) => Verdict::Delay(delay),
            (_, judged) => judged,
        }
    }
}
