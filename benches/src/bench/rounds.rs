//! Rounds of a benchmark, and what they take of the processors.

use anyhow::Result;

use crate::{
    contestant::About,
    measure::{Round, Summary},
    report::Side,
    server::Server,
};

/// A round, with the processor time of each unit, in this process and in the server.
pub(super) type Measured = (Round, Option<[f64; 2]>);

/// Adds what a round takes of the processors.
pub(super) async fn measure(
    server: &Server,
    round: impl Future<Output = Result<Round>>,
) -> Result<Measured> {
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
pub(super) struct Rounds {
    pub(super) rounds: Vec<Round>,
    cpu: Vec<[f64; 2]>,
}

impl Rounds {
    pub(super) fn add(&mut self, (round, cpu): Measured) {
        self.rounds.push(round);
        self.cpu.extend(cpu);
    }

    pub(super) fn side(&self, about: About) -> Side {
        Side::of(about, Summary::of(&self.rounds)).cpu(&self.cpu)
    }
}
