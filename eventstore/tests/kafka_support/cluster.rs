//! Kafka brokers of a test's own: one or several, to configure, kill, pause and start again.
//!
//! They run from the jar files that `cargo xtask services up` downloads, on the machine's Java.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rand::Rng;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);
/// The identity of every cluster: 16 bytes as Kafka writes them.
const CLUSTER_ID: &str = "YW5uYWxzLWNsdXN0ZXItMQ";
/// The listener of the brokers themselves, and of whoever wants nothing special.
pub(crate) const INTERNAL: &str = "INTERNAL";
const CONTROLLER: &str = "CONTROLLER";
/// As little as a broker for tests can do with, and a quick start.
const JVM: [&str; 4] = ["-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
/// Starts a program, says its number, and kills it with -9 as soon as nobody holds our input any
/// more: a test that is killed leaves no broker behind.
const KEEPER: &str = r#""$@" >>broker.log 2>&1 & echo $!; read -r _; kill -9 $!; wait $!"#;

/// How a cluster is made. Every node is broker and controller.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    nodes: u16,
    properties: Vec<(String, String)>,
    format_arguments: Vec<String>,
    listeners: Vec<Listener>,
}

/// A listener besides [`INTERNAL`], which speaks plain text.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    name: &'static str,
    protocol: &'static str,
    /// Where clients are told to find it on each node, if not where it is.
    advertised: Vec<u16>,
}

impl Listener {
    /// One of this name and protocol: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub(crate) fn new(name: &'static str, protocol: &'static str) -> Self {
        Self { name, protocol, advertised: Vec::new() }
    }

    /// Tells clients to connect to these ports, one a node: those of proxies.
    pub(crate) fn advertised(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.advertised = ports.into_iter().collect();
        self
    }
}

impl Plan {
    /// Of three nodes on, two must have what is acknowledged.
    pub(crate) fn of_nodes(nodes: u16) -> Self {
        let none = Vec::new();
        Self { nodes, properties: none, format_arguments: Vec::new(), listeners: Vec::new() }
    }

    /// Sets a property of every node. One that is set here comes last.
    pub(crate) fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((key.into(), value.into()));
        self
    }

    /// Adds an argument to `StorageTool format`, such as `--add-scram`.
    pub(crate) fn format_argument(mut self, argument: impl Into<String>) -> Self {
        self.format_arguments.push(argument.into());
        self
    }

    /// Adds a listener to every node.
    pub(crate) fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Starts the nodes and waits until all of them serve.
    pub(crate) async fn start(self) -> Cluster {
        let folder = tempfile::Builder::new().prefix("annals-kafka-").tempdir().unwrap();
        let mut ports = Ports::default();
        let names = || [INTERNAL].into_iter().chain(self.listeners.iter().map(|one| one.name));
        let node = |id: u16| Node {
            id,
            folder: folder.path().join(id.to_string()),
            controller: ports.free(),
            listeners: names().map(|name| (name, ports.free())).collect(),
            running: None,
        };
        let mut nodes: Vec<_> = (1..=self.nodes).map(node).collect();
        for node in &nodes {
            fs::create_dir(&node.folder).unwrap();
            fs::write(node.config(), self.config(node, &nodes)).unwrap();
        }
        // One after the other would take seconds each.
        let formatting = nodes.iter().map(|node| node.format(&self.format_arguments));
        let formatting: Vec<_> = formatting.collect();
        for (node, formatting) in nodes.iter().zip(formatting) {
            let output = formatting.wait_with_output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(output.status.success(), "cannot format node {}: {said}", node.id);
        }
        nodes.iter_mut().for_each(Node::run);
        let cluster = Cluster { nodes, _folder: folder };
        for node in &cluster.nodes {
            node.serves(self.nodes.into()).await;
        }
        cluster
    }

    /// The server.properties of a node.
    fn config(&self, node: &Node, nodes: &[Node]) -> String {
        let join = |parts: Vec<String>| parts.join(",");
        let voters = nodes.iter().map(|node| format!("{}@127.0.0.1:{}", node.id, node.controller));
        let at = |(name, port): &(&str, u16)| format!("{name}://127.0.0.1:{port}");
        let controller = (CONTROLLER, node.controller);
        let listeners = node.listeners.iter().chain([&controller]).map(at);
        let advertised = node.listeners.iter().map(|(name, port)| {
            let listener = self.listeners.iter().find(|listener| listener.name == *name);
            let place = usize::from(node.id) - 1;
            let told = listener.and_then(|listener| listener.advertised.get(place));
            at(&(*name, *told.unwrap_or(port)))
        });
        let protocols = self.listeners.iter().map(|l| format!("{}:{}", l.name, l.protocol));
        let plain = [INTERNAL, CONTROLLER].map(|name| format!("{name}:PLAINTEXT"));
        let replicas = self.nodes.min(3);
        let in_sync = if self.nodes < 3 { 1 } else { 2 };
        let mut config = format!(
            "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
controller.listener.names={CONTROLLER}
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map={protocols}
inter.broker.listener.name={INTERNAL}
log.dirs={data}
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=4
auto.create.topics.enable=false
log.retention.ms=-1
log.retention.bytes=-1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
replica.lag.time.max.ms=5000
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
",
            id = node.id,
            voters = join(voters.collect()),
            listeners = join(listeners.collect()),
            advertised = join(advertised.collect()),
            protocols = join(protocols.chain(plain).collect()),
            data = node.folder.join("data").display(),
        );
        // Of two lines with one key, Java takes the last.
        for (key, value) in &self.properties {
            config.push_str(&format!("{key}={}\n", value.replace('\n', "\\n")));
        }
        config
    }
}

/// Nodes that run until this is dropped, and their data with them.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    // The last field: the folder goes when the nodes are down.
    _folder: TempDir,
}

impl Cluster {
    /// The bootstrap addresses.
    pub(crate) fn brokers(&self) -> String {
        self.brokers_at(INTERNAL)
    }

    /// The same of a listener.
    pub(crate) fn brokers_at(&self, listener: &str) -> String {
        let addresses = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port(listener)));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// A node by its number, from 1.
    pub(crate) fn node(&mut self, id: i32) -> &mut Node {
        self.nodes.iter_mut().find(|node| i32::from(node.id) == id).expect("there is such a node")
    }
}

/// A node of a cluster.
pub(crate) struct Node {
    id: u16,
    folder: PathBuf,
    controller: u16,
    listeners: Vec<(&'static str, u16)>,
    running: Option<Running>,
}

struct Running {
    keeper: Child,
    broker: String,
}

impl Node {
    /// The port of a listener.
    pub(crate) fn port(&self, listener: &str) -> u16 {
        let found = self.listeners.iter().find(|(name, _)| *name == listener);
        found.expect("there is such a listener").1
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(Running { mut keeper, .. }) = self.running.take() {
            drop(keeper.stdin.take());
            keeper.wait().unwrap();
        }
    }

    /// SIGSTOP: it holds its connections and answers nobody.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    /// Starts a node that was killed, on the same ports with the same data, and waits until it
    /// serves.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.run();
        self.serves(1).await;
    }

    fn signal(&self, signal: &str) {
        let running = self.running.as_ref().expect("the node runs");
        let status = Command::new("kill").args([signal, &running.broker]).status();
        assert!(status.unwrap().success());
    }

    fn config(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn run(&mut self) {
        let java = java_command("kafka.Kafka");
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(java.get_program()).args(java.get_args());
        keeper.arg(self.config()).current_dir(&self.folder);
        keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = keeper.spawn().unwrap();
        let mut broker = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut broker).unwrap();
        self.running = Some(Running { keeper, broker: broker.trim().to_owned() });
    }

    fn format(&self, arguments: &[String]) -> Child {
        let mut command = java_command("kafka.tools.StorageTool");
        command.args(["format", "-t", CLUSTER_ID, "-c"]).arg(self.config()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits until it counts itself, and so many in all, among the brokers in service.
    async fn serves(&self, at_least: usize) {
        let start = Instant::now();
        loop {
            let asked = timeout(Duration::from_secs(2), brokers_known_at(self.port(INTERNAL)));
            if let Ok(Ok(known)) = asked.await
                && known.contains(&i32::from(self.id))
                && known.len() >= at_least
            {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "node {} does not serve\n{}", self.id, self.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The end of what it has logged.
    fn log(&self) -> String {
        let log = fs::read(self.folder.join("broker.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks for metadata (key 3, version 1) of no topic; the brokers come along.
async fn brokers_known_at(port: u16) -> io::Result<Vec<i32>> {
    const REQUEST: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0];
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(&REQUEST).await?;
    let (_size, _correlation) = (stream.read_i32().await?, stream.read_i32().await?);
    let mut known = Vec::new();
    for _ in 0..stream.read_i32().await? {
        known.push(stream.read_i32().await?);
        let host = stream.read_i16().await?;
        stream.read_exact(&mut vec![0; host as usize]).await?;
        let (_port, rack) = (stream.read_i32().await?, stream.read_i16().await?);
        stream.read_exact(&mut vec![0; rack.max(0) as usize]).await?;
    }
    Ok(known)
}

/// Ports that have been given out.
#[derive(Default)]
struct Ports(Vec<u16>);

impl Ports {
    /// A port that nobody listens on, below those that the system gives to clients: one of them could
    /// take it while the node is down.
    fn free(&mut self) -> u16 {
        loop {
            let port = rand::rng().random_range(12_000..32_000);
            if !self.0.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                self.0.push(port);
                return port;
            }
        }
    }
}

fn java_command(class: &str) -> Command {
    let mut command = Command::new(java());
    command.args(JVM).arg("-cp").arg(libraries().join("*")).arg(class);
    command
}

/// The Java that `cargo xtask test` names, else the machine's.
fn java() -> PathBuf {
    if let Some(named) = std::env::var_os("ANNALS_JAVA") {
        return named.into();
    }
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    home.filter(|java| java.is_file()).unwrap_or_else(|| "java".into())
}

/// The broker's jar files: those that `cargo xtask test` names, or has downloaded before.
fn libraries() -> PathBuf {
    if let Some(named) = std::env::var_os("ANNALS_KAFKA_LIBRARIES") {
        return named.into();
    }
    let user = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let caches = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).into_iter().chain(user);
    let found = caches.chain(["/var/cache".into()]).find_map(|cache| {
        let entries = fs::read_dir(cache.join("annals")).ok()?;
        entries.flatten().map(|entry| entry.path()).find(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("kafka-") && !name.ends_with(".unfinished")
        })
    });
    found.expect("this test starts brokers of its own: run `cargo xtask test`")
}
