//! Commands from four processes at once, against the same number of clients in one process.

use std::{
    io::{BufRead, Write},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{
    client::Client,
    contestant::{About, Annals, Contestant},
    measure::{Effort, Round, Summary, drive},
    report::{Entry, Side},
    server::Server,
};

const PROCESSES: usize = 4;
const CLIENTS: usize = 16;

pub(crate) async fn run(server: &Server, effort: Effort) -> Result<Entry> {
    let url = server.database("processes").await?;
    let alone: Arc<dyn Contestant> = Arc::new(Annals::connect(&url).await?);
    let mut clients = Client::many(&alone, PROCESSES * CLIENTS, 0);
    let mut processes = Vec::new();
    for _ in 0..PROCESSES {
        processes.push(Process::start(&url)?);
    }
    server.checkpoint().await?;
    drive(&mut clients, effort.warm_up).await?;
    together(&mut processes, effort.warm_up).await?;
    let (mut many, mut one) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        many.push(together(&mut processes, effort.time).await?);
        one.push(drive(&mut clients, effort.time).await?);
    }
    for process in processes {
        process.end().await?;
    }
    let annals = About {
        name: "annals, 4 processes",
        version: env!("CARGO_PKG_VERSION"),
        setup: "16 commands at once in each, on one database",
    };
    let other = About {
        name: "annals, 1 process",
        version: env!("CARGO_PKG_VERSION"),
        setup: "64 commands at once",
    };
    Ok(Entry::new(
        "processes",
        "commands/s",
        Side::of(annals, Summary::of(&many)),
        vec![Side::of(other, Summary::of(&one))],
    ))
}

/// All processes work for a while.
async fn together(processes: &mut [Process], time: Duration) -> Result<Round> {
    for process in &mut *processes {
        process.go(time).await?;
    }
    let mut all = Round::default();
    for process in processes {
        let round = process.done().await?;
        all.units += round.units;
        all.elapsed = all.elapsed.max(Duration::from_micros(round.micros));
        all.latencies.extend(round.latencies);
    }
    Ok(all)
}

/// What a child says of a round, in one line.
#[derive(Serialize, Deserialize)]
struct Line {
    units: u64,
    micros: u64,
    latencies: Vec<u32>,
}

struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(url: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--child-of", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start another process")?;
        let input = child.stdin.take().context("the child has no input")?;
        let output = child.stdout.take().context("the child has no output")?;
        Ok(Self { child, input, output: BufReader::new(output).lines() })
    }

    async fn go(&mut self, time: Duration) -> Result<()> {
        let line = format!("{}\n", time.as_millis());
        self.input.write_all(line.as_bytes()).await?;
        Ok(self.input.flush().await?)
    }

    async fn done(&mut self) -> Result<Line> {
        let line = self.output.next_line().await?.context("a child ended early")?;
        Ok(serde_json::from_str(&line)?)
    }

    async fn end(mut self) -> Result<()> {
        drop(self.input);
        let status = self.child.wait().await?;
        ensure!(status.success(), "a child failed: {status}");
        Ok(())
    }
}

/// What a child does: for each line of its input, works for so many milliseconds.
pub(crate) async fn child(url: &str) -> Result<()> {
    let annals: Arc<dyn Contestant> = Arc::new(Annals::connect(url).await?);
    let mut clients = Client::many(&annals, CLIENTS, 0);
    for line in std::io::stdin().lock().lines() {
        let time = Duration::from_millis(line?.trim().parse()?);
        let Round { units, elapsed, latencies, .. } = drive(&mut clients, time).await?;
        let micros = u64::try_from(elapsed.as_micros())?;
        let line = serde_json::to_string(&Line { units, micros, latencies })?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    Ok(())
}
