//! Measuring: rounds of work by many workers at once, and what comes of several rounds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

/// Does one piece of work after the other.
pub(crate) trait Worker: Send + 'static {
    /// Does the next piece, and returns how many units of work it was.
    fn step(&mut self) -> impl Future<Output = Result<u64>> + Send;

    /// What the last piece was, of a worker that does two kinds of them.
    fn kind(&self) -> Kind {
        Kind::Main
    }
}

/// What a piece of work was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What the benchmark is about, or all there is.
    Main,
    /// A load among commands.
    Load,
}

/// What was done in a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub(crate) units: u64,
    pub(crate) elapsed: Duration,
    /// How long each piece took, in microseconds, in no order; without those in `loads`.
    pub(crate) latencies: Vec<u32>,
    /// The same of the loads among commands.
    pub(crate) loads: Vec<u32>,
}

impl Round {
    /// Units per second.
    pub(crate) fn rate(&self) -> f64 {
        self.units as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Lets all workers work for a while at once. The time counts until the last one has finished the
/// piece that it was at.
pub(crate) async fn drive<W: Worker>(workers: &mut Vec<W>, time: Duration) -> Result<Round> {
    let start = Instant::now();
    let deadline = start + time;
    let mut tasks = JoinSet::new();
    for mut worker in workers.drain(..) {
        tasks.spawn(async move {
            let mut units = 0;
            let (mut latencies, mut loads) = (Vec::with_capacity(1024), Vec::new());
            loop {
                let before = Instant::now();
                if before >= deadline {
                    break;
                }
                units += worker.step().await?;
                match worker.kind() {
                    Kind::Main => latencies.push(micros(before.elapsed())),
                    Kind::Load => loads.push(micros(before.elapsed())),
                }
            }
            anyhow::Ok((worker, units, latencies, loads))
        });
    }
    let mut round = Round::default();
    while let Some(done) = tasks.join_next().await {
        let (worker, units, latencies, loads) = done.context("a worker panicked")??;
        workers.push(worker);
        round.units += units;
        round.latencies.extend(latencies);
        round.loads.extend(loads);
    }
    round.elapsed = start.elapsed();
    Ok(round)
}

/// As latencies are kept.
pub(crate) fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// How long and how often to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Of one round of one contestant.
    pub(crate) time: Duration,
    /// Before the first round, not measured.
    pub(crate) warm_up: Duration,
    /// Events in the log that is replayed.
    pub(crate) replayed: u64,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        rounds: 7,
        time: Duration::from_secs(2),
        warm_up: Duration::from_secs(1),
        replayed: 1_000_000,
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        time: Duration::from_millis(350),
        warm_up: Duration::from_millis(200),
        replayed: 100_000,
    };
}

/// What several rounds of one contestant came to.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// The rates of the rounds, in their order.
    pub(crate) rates: Vec<f64>,
    /// Of all pieces of work.
    pub(crate) latency: Option<Latency>,
    /// Of commands and of the loads among them, if there were any.
    pub(crate) kinds: Option<Kinds>,
}

/// Latencies where two kinds of work were mixed.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Kinds {
    pub(crate) commands: Option<Latency>,
    pub(crate) loads: Option<Latency>,
}

impl Summary {
    pub(crate) fn of(rounds: &[Round]) -> Self {
        let sorted = |of: fn(&Round) -> &[u32]| {
            let mut micros: Vec<u32> = rounds.iter().flat_map(of).copied().collect();
            micros.sort_unstable();
            micros
        };
        let (commands, loads) = (sorted(|round| &round.latencies), sorted(|round| &round.loads));
        let mut all = [&commands[..], &loads].concat();
        all.sort_unstable();
        Self {
            rates: rounds.iter().map(Round::rate).collect(),
            latency: Latency::of_sorted(&all),
            kinds: (!loads.is_empty()).then(|| Kinds {
                commands: Latency::of_sorted(&commands),
                loads: Latency::of_sorted(&loads),
            }),
        }
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.rates)
    }

    pub(crate) fn lowest(&self) -> f64 {
        self.rates.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn highest(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// The median, its spread, and the latencies.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "value": self.median().round(),
            "min": self.lowest().round(),
            "max": self.highest().round(),
            "rounds": self.rates.iter().map(|rate| rate.round()).collect::<Vec<_>>(),
            "latency_ms": self.latency,
            "latency_ms_by_kind": self.kinds,
        })
    }
}

/// Latency in milliseconds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let Self { p50, p95, p99, max } = self;
        format!("p50 {p50:.2}, p95 {p95:.2}, p99 {p99:.2}, max {max:.2} ms")
    }

    fn of_sorted(micros: &[u32]) -> Option<Self> {
        let max = f64::from(*micros.last()?) / 1000.0;
        let at = |part: f64| {
            let index = (micros.len() as f64 * part).ceil() as usize;
            f64::from(micros[index.clamp(1, micros.len()) - 1]) / 1000.0
        };
        Some(Self { p50: at(0.50), p95: at(0.95), p99: at(0.99), max })
    }
}

/// The middle of the values; the mean of the two in the middle if they are even in number.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn percentiles_are_latencies_that_occurred() {
        let micros: Vec<u32> = (1..=1000).map(|n| n * 1000).collect();
        let latency = Latency::of_sorted(&micros).unwrap();
        assert_eq!(
            (latency.p50, latency.p95, latency.p99, latency.max),
            (500.0, 950.0, 990.0, 1000.0)
        );
        assert_eq!(Latency::of_sorted(&[2500]).unwrap().p50, 2.5);
        assert!(Latency::of_sorted(&[]).is_none());
    }

    #[test]
    fn loads_among_commands_have_latencies_of_their_own() {
        let commands = Round { latencies: vec![9_000, 8_000], ..Round::default() };
        let both = Round { loads: vec![1_000, 1_000, 2_000, 2_000], ..commands.clone() };
        assert!(Summary::of(&[commands]).kinds.is_none());
        let summary = Summary::of(&[both]);
        let p50 = |latency: Option<Latency>| latency.unwrap().p50;
        let kinds = summary.kinds.unwrap();
        assert_eq!((p50(kinds.commands), p50(kinds.loads), p50(summary.latency)), (8.0, 1.0, 2.0));
    }
}
