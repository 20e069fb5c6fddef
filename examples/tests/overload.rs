//! The gateway under ten times the load that it can take: it says so at once, keeps its pace and its memory, and loses
//! nothing that it has acknowledged. And a database that is down, which is not asked again and again.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::HashSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use annals::{
    Aggregate, Apply, Command, Event, EventStore, Handle, Position,
    breaker::{BreakerOptions, CircuitBreaker},
    bus::{
        Bus, Policies,
        policy::{Breaking, Bulkhead, RateLimit},
    },
    gateway::Gateway,
    testkit::faults::{Delay, Link, Plan, Seed, Verdict, Way},
};
use futures::{TryStreamExt, future::join_all};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use support::Database;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// How many commands run in the bus, and how many wait there.
const RUNNING: usize = 8;
const WAITING: usize = 16;
/// How many clients there are in the overload.
const CLIENTS: usize = 300;
const TIMES: usize = 10;
const MEGABYTE: u64 = 1 << 20;

#[derive(Event, Serialize, Deserialize)]
enum NoteEvent {
    Written { number: u64, text: String },
}

#[derive(Aggregate, Default)]
#[aggregate(category = "note", event = NoteEvent)]
struct Note;

impl Apply<NoteEvent> for Note {
    fn apply(&mut self, _: &NoteEvent) {}
}

#[derive(Command, Serialize, Deserialize, Clone, JsonSchema)]
#[command(aggregate = Note)]
struct Write {
    #[command(id)]
    note: u64,
    text: String,
}

impl Handle<Write> for Note {
    fn handle(&self, command: Write) -> Result<Vec<NoteEvent>, Self::Error> {
        Ok(vec![NoteEvent::Written { number: command.note, text: command.text }])
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    content_type: Option<String>,
    retry_after: Option<u64>,
}

/// A client with a connection that is kept, as clients of HTTP have.
struct Client {
    port: u16,
    connection: Option<TcpStream>,
    text: String,
}

impl Client {
    fn new(port: u16) -> Self {
        Self { port, connection: None, text: "x".repeat(3000) }
    }

    /// Writes a note; over another connection where the server has closed this one.
    async fn write(&mut self, note: u64) -> Answer {
        let body = serde_json::json!({ "text": self.text }).to_string();
        let request = format!(
            "POST /notes/{note} HTTP/1.1\r\nhost: localhost\r\nidempotency-key: note-{note}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        for _ in 0..5 {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => match TcpStream::connect(("127.0.0.1", self.port)).await {
                    Ok(connection) => connection,
                    Err(_) => continue,
                },
            };
            if let Ok((answer, stays)) = exchange(&mut connection, &request).await {
                self.connection = stays.then_some(connection);
                return answer;
            }
        }
        panic!("the gateway does not answer");
    }
}

/// Sends a request and reads the answer; says also whether the connection stays.
async fn exchange(connection: &mut TcpStream, request: &str) -> io::Result<(Answer, bool)> {
    connection.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|found| found == b"\r\n\r\n") {
            break end + 4;
        }
        if connection.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
    };
    let length: usize =
        header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() < end + length {
        if connection.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let answer = Answer {
        status: head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0),
        content_type: header("content-type"),
        retry_after: header("retry-after").and_then(|seconds| seconds.parse().ok()),
    };
    Ok((answer, header("connection").as_deref() != Some("close")))
}

/// What came of many requests.
#[derive(Default)]
struct Outcomes {
    acknowledged: Vec<u64>,
    refused: Vec<u64>,
    /// How long each of the acknowledged took.
    times: Vec<Duration>,
}

impl Outcomes {
    fn note(&mut self, note: u64, answer: &Answer, time: Duration) {
        match answer.status {
            201 => {
                self.acknowledged.push(note);
                self.times.push(time);
            }
            503 => {
                assert_eq!(answer.content_type.as_deref(), Some("application/problem+json"));
                assert!(answer.retry_after.is_some_and(|seconds| seconds >= 1), "{answer:?}");
                self.refused.push(note);
            }
            _ => panic!("{answer:?}"),
        }
    }

    fn extend(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.refused.extend(other.refused);
        self.times.extend(other.times);
    }

    fn p99(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times[times.len() * 99 / 100]
    }
}

/// So many clients at once, each of which sends a number of notes: one after the other or, with a rate for all of
/// them, when it is time for the next.
async fn load(
    port: u16,
    notes: &AtomicU64,
    (clients, each): (usize, usize),
    per_second: Option<f64>,
) -> Outcomes {
    let sending = (0..clients).map(|client| async move {
        let (mut outcomes, mut client_of) = (Outcomes::default(), Client::new(port));
        let pause = per_second.map(|rate| Duration::from_secs_f64(clients as f64 / rate));
        let begin = tokio::time::Instant::now();
        for round in 0..each {
            if let Some(pause) = pause {
                // Spread out, and never slower because an answer was.
                let offset = client as f64 / clients as f64 + round as f64;
                tokio::time::sleep_until(begin + pause.mul_f64(offset)).await;
            }
            let note = notes.fetch_add(1, Ordering::Relaxed);
            let started = Instant::now();
            let answer = client_of.write(note).await;
            outcomes.note(note, &answer, started.elapsed());
        }
        outcomes
    });
    let mut all = Outcomes::default();
    for outcomes in join_all(sending).await {
        all.extend(outcomes);
    }
    all
}

/// A gateway of its own port, with a store behind a slow network, so that what it can take is little for any machine.
struct Server {
    port: u16,
    serving: JoinHandle<()>,
    link: Link,
    database: Database,
}

impl Server {
    async fn start() -> Self {
        let database = Database::create().await;
        let link = Link::postgres(&database.url()).await.unwrap();
        let store = EventStore::connect(link.url()).await.unwrap();
        link.follow(Plan::new(Seed::of(1)).delay(Delay::fixed(Duration::from_millis(20))));
        let policies = {
            let mut policies = Policies::default();
            policies.bulkhead = Bulkhead::per_command(RUNNING).waiting(WAITING);
            // All come from here.
            policies.rate_limit = RateLimit::per_second(1_000_000);
            policies
        };
        let router = Gateway::new(&store, Bus::with(policies, &store))
            .command::<Write>("/notes/{note}")
            .router();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, serving, link, database }
    }
}

/// For how long this machine ran nothing of this process meanwhile, in sum: no gateway could have answered then.
struct Stalls {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Stalls {
    const TICK: Duration = Duration::from_millis(20);

    fn count() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let thread = std::thread::spawn(move || {
            let (mut stalled, mut last) = (Duration::ZERO, Instant::now());
            while !until.load(Ordering::Relaxed) {
                std::thread::sleep(Self::TICK);
                let gap = last.elapsed();
                last += gap;
                stalled += if gap > 10 * Self::TICK { gap } else { Duration::ZERO };
            }
            stalled
        });
        Self { over, thread }
    }

    fn sum(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// What this process has in memory, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_the_load_that_it_can_take() {
    let server = Server::start().await;
    let (port, notes) = (server.port, AtomicU64::new(0));
    // No more clients than there are places, so nobody is refused: what it can take.
    let started = Instant::now();
    let calm = load(port, &notes, (RUNNING + WAITING / 2, 15), None).await;
    let capacity = calm.acknowledged.len() as f64 / started.elapsed().as_secs_f64();
    assert_eq!(calm.refused, [0; 0]);

    let rate = capacity * TIMES as f64;
    let each = |seconds: f64| ((rate * seconds / CLIENTS as f64).ceil() as usize).max(2);
    // With all connections and buffers that it will have.
    let mut all = load(port, &notes, (CLIENTS, each(1.0)), Some(rate)).await;
    let (before, peak, done) = (resident(), Arc::new(AtomicU64::new(0)), AtomicBool::new(false));
    let (watched, stalls, started) = (peak.clone(), Stalls::count(), Instant::now());
    let watching = async {
        while !done.load(Ordering::Relaxed) {
            watched.fetch_max(resident(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let loading = async {
        let outcomes = load(port, &notes, (CLIENTS, each(5.0)), Some(rate)).await;
        done.store(true, Ordering::Relaxed);
        outcomes
    };
    let ((), overload) = tokio::join!(watching, loading);
    let (elapsed, stalled) = (started.elapsed(), stalls.sum());
    let seconds = elapsed.saturating_sub(stalled).as_secs_f64();
    let offered = overload.acknowledged.len() + overload.refused.len();
    let grown = peak.load(Ordering::Relaxed).saturating_sub(before) / MEGABYTE;
    println!(
        "takes {capacity:.0}/s; of {:.0}/s offered, {:.0}/s done and the rest refused; p99 of what was done {:?} \
         against {:?}; {grown} MB more than before; the machine stood still for {stalled:?}",
        offered as f64 / seconds,
        overload.acknowledged.len() as f64 / seconds,
        overload.p99(),
        calm.p99(),
    );
    assert!(overload.refused.len() > offered / 2, "{} are refused", overload.refused.len());
    // It is busy with what it can do, not with refusing. A machine that is busy otherwise has less for it.
    assert!(overload.acknowledged.len() as f64 / seconds > capacity / 5.0);
    // Who gets in waits for no more than those that may wait.
    let bound = 5 * calm.p99() + Duration::from_millis(500) + stalled;
    assert!(overload.p99() < bound, "{:?} is above {bound:?}", overload.p99());
    assert!(grown < 32, "{grown} MB more than before");

    // What was acknowledged is there once; what was refused is not.
    all.extend(calm);
    all.extend(overload);
    let store = EventStore::connect(&server.database.url()).await.unwrap();
    let mut recorded = HashSet::new();
    let mut log = std::pin::pin!(store.read_all(Position::START));
    while let Some(event) = log.try_next().await.unwrap() {
        for event in event.decode::<NoteEvent>().unwrap() {
            let NoteEvent::Written { number, .. } = event.event;
            assert!(recorded.insert(number), "note {number} is there twice");
        }
    }
    assert!(all.acknowledged.iter().all(|note| recorded.contains(note)), "some are lost");
    assert!(all.refused.iter().all(|note| !recorded.contains(note)), "refused, and done");
    assert_eq!(recorded.len(), all.acknowledged.len());
    server.serving.abort();
    drop(server.link);
}

/// Without a budget in the store, each attempt of the bus would be up to twenty of the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_down_is_not_asked_much_more_often_than_there_are_commands() {
    const COMMANDS: u64 = 200;
    let database = Database::create().await;
    let link = Link::postgres(&database.url()).await.unwrap();
    let store = EventStore::connect(link.url()).await.unwrap();
    let policies = {
        let mut policies = Policies::default();
        policies.rate_limit = RateLimit::per_second(1_000_000);
        // The breaker would hide what is to be seen: what comes before it opens.
        let options = BreakerOptions::default().failures(u32::MAX);
        let circuit = CircuitBreaker::new("outage", options);
        policies.breaking = Breaking::new(circuit, Duration::from_secs(5));
        policies
    };
    let bus = Bus::with(policies, &store);
    let write = |note: u64| bus.send(Write { note, text: String::new() });
    write(0).await.unwrap();

    let (asked, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
    let (counted, is_down) = (asked.clone(), down.clone());
    link.judge(move |message| match is_down.load(Ordering::Relaxed) {
        true if message.way == Way::ToServer => {
            counted.fetch_add(1, Ordering::Relaxed);
            Verdict::Cut
        }
        _ => Verdict::Pass,
    });
    link.cut();
    let (began, mut asking) = (Instant::now(), 0);
    // One after the other: those that fail together learn it from one attempt to connect.
    for commands in 1..=COMMANDS {
        assert!(write(commands).await.is_err());
        asking = asked.load(Ordering::Relaxed);
        // A tenth more by the bus, and a tenth of that by the store; besides, 1 and 10 a second, of ten seconds at
        // once. The store's own connections for appends come back, too.
        let most = commands * 121 / 100 + 11 * (10 + began.elapsed().as_secs() + 1) + 10;
        assert!(asking <= most, "{commands} commands asked {asking} times, and {most} is the most");
    }
    println!("{COMMANDS} commands asked a database that is down {asking} times");
    assert!(asking > COMMANDS + 50, "nothing is tried again");

    down.store(false, Ordering::Relaxed);
    // What failed is sent again, and done.
    loop {
        if write(1).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
