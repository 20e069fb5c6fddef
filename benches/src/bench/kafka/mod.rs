//! Publishing to Kafka, and projecting from there.

mod bare;
pub(crate) mod consume;
pub(crate) mod end_to_end;
pub(crate) mod publish;

use std::time::Duration;

use annals::kafka::Progress;
use anyhow::{Context, Result};
use tokio::{sync::watch, time::timeout};

use crate::{
    contestant::About,
    measure::{Round, Summary},
    report::Side,
    server::Server,
};

/// Of each topic.
const PARTITIONS: u16 = 4;
/// A publisher that has not come to the end of the log by then has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until a publisher has come so far.
async fn reaches(
    progress: &mut watch::Receiver<Progress>,
    is_there: impl FnMut(&Progress) -> bool,
) -> Result<()> {
    let reached = timeout(PATIENCE, progress.wait_for(is_there)).await;
    reached.context("the publisher takes too long")?.context("the publisher has ended")?;
    Ok(())
}

/// A round, with the processor time of each unit, in this process and in the server.
type Measured = (Round, Option<[f64; 2]>);

/// Adds what a round takes of the processors.
async fn measure(server: &Server, round: impl Future<Output = Result<Round>>) -> Result<Measured> {
    let before = [server.own_cpu(), server.backends_cpu().await?];
    let round = round.await?;
    let now = [server.own_cpu(), server.backends_cpu().await?];
    let of_each = |micros: f64| micros / round.units.max(1) as f64;
    let cpu = match [now[0].since(&before[0]), now[1].since(&before[1])] {
        [Some(client), Some(backends)] => Some([client, backends].map(of_each)),
        _ => None,
    };
    Ok((round, cpu))
}

/// What several rounds came to.
#[derive(Default)]
struct Rounds {
    rounds: Vec<Round>,
    cpu: Vec<[f64; 2]>,
}

impl Rounds {
    fn add(&mut self, (round, cpu): Measured) {
        self.rounds.push(round);
        self.cpu.extend(cpu);
    }

    fn side(&self, about: About) -> Side {
        Side::of(about, Summary::of(&self.rounds)).cpu(&self.cpu)
    }
}
