//! How connections are disturbed at random.

use std::time::Duration;

use super::super::Seed;

/// How long something takes on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delay(Distribution);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Distribution {
    Fixed(Duration),
    Uniform(Duration, Duration),
    Exponential(Duration),
}

impl Delay {
    /// Always the same.
    pub const fn fixed(delay: Duration) -> Self {
        Self(Distribution::Fixed(delay))
    }

    /// Evenly distributed from the shorter one to the longer one.
    pub fn uniform(from: Duration, to: Duration) -> Self {
        Self(Distribution::Uniform(from.min(to), from.max(to)))
    }

    /// Exponentially distributed with this mean, as waiting times are: mostly short, rarely long. It ends at twenty times
    /// the mean.
    pub const fn exponential(mean: Duration) -> Self {
        Self(Distribution::Exponential(mean))
    }

    /// The delay for a number from 0 up to and without 1.
    fn of(self, drawn: f64) -> Duration {
        match self.0 {
            Distribution::Fixed(delay) => delay,
            Distribution::Uniform(from, to) => from + (to - from).mul_f64(drawn),
            Distribution::Exponential(mean) => mean.mul_f64((-(1.0 - drawn).ln()).min(20.0)),
        }
    }
}

/// What happens to the connections of a link, drawn from a seed, the number of the connection and that of the message.
///
/// The same seed has the same happen to the same message of the same connection. Which message that is, and when it comes, is
/// up to the program.
#[derive(Clone, Debug)]
pub struct Plan {
    seed: Seed,
    delay: Option<Delay>,
    cuts: f64,
    loses_answers: f64,
    stalls: f64,
    refuses: f64,
    cuts_after: Option<u64>,
}

/// What is to become of a message by a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    Passes(Option<Duration>),
    Cut,
    Stall,
}

impl Plan {
    /// Nothing happens, until the plan says so.
    pub fn new(seed: Seed) -> Self {
        Self {
            seed,
            delay: None,
            cuts: 0.0,
            loses_answers: 0.0,
            stalls: 0.0,
            refuses: 0.0,
            cuts_after: None,
        }
    }

    /// What passes takes so long, each way. What was sent together arrives together.
    #[must_use]
    pub fn delay(mut self, delay: Delay) -> Self {
        self.delay = Some(delay);
        self
    }

    /// So many of the messages do not arrive, and their connection is closed: 0 is none, 1 is all.
    #[must_use]
    pub fn cuts(mut self, rate: f64) -> Self {
        self.cuts = rate;
        self
    }

    /// The same of the server's answers alone: what was asked is done.
    #[must_use]
    pub fn loses_answers(mut self, rate: f64) -> Self {
        self.loses_answers = rate;
        self
    }

    /// At so many of the messages their connection falls silent, and stays open.
    #[must_use]
    pub fn stalls(mut self, rate: f64) -> Self {
        self.stalls = rate;
        self
    }

    /// So many of the connections are closed before they have begun.
    #[must_use]
    pub fn refuses(mut self, rate: f64) -> Self {
        self.refuses = rate;
        self
    }

    /// A connection is closed once so many bytes have passed it, both ways together.
    #[must_use]
    pub fn cuts_after(mut self, bytes: u64) -> Self {
        self.cuts_after = Some(bytes);
        self
    }

    pub(super) fn refuses_connection(&self, connection: u64) -> bool {
        self.seed.draw("refuse", connection) < self.refuses
    }

    /// What becomes of a message: the how manieth of its connection that way, and how many bytes have passed with it.
    pub(super) fn fate(&self, connection: u64, is_answer: bool, number: u64, passed: u64) -> Fate {
        if self.cuts_after.is_some_and(|most| passed > most) {
            return Fate::Cut;
        }
        let way = if is_answer { "answer" } else { "question" };
        let draw = |what: &str| self.seed.draw(&format!("{what} {way} {connection}"), number);
        if draw("cut") < self.cuts || is_answer && draw("lose") < self.loses_answers {
            return Fate::Cut;
        }
        if draw("stall") < self.stalls {
            return Fate::Stall;
        }
        Fate::Passes(self.delay.map(|delay| delay.of(draw("delay"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_distributed_as_said() {
        let (seed, ten) = (Seed::of(1), Duration::from_millis(10));
        let mean = |delay: Delay| {
            let all = (0..4000).map(|number| delay.of(seed.draw("delay", number)).as_secs_f64());
            all.sum::<f64>() / 4000.0 * 1000.0
        };
        assert!((9.9..10.1).contains(&mean(Delay::fixed(ten))));
        assert!((14.0..16.0).contains(&mean(Delay::uniform(ten, 2 * ten))));
        assert!((9.0..11.0).contains(&mean(Delay::exponential(ten))));
    }

    #[test]
    fn a_plan_is_the_same_each_time() {
        let plan = Plan::new(Seed::of(3)).cuts(0.01).loses_answers(0.02).stalls(0.01);
        let fates = |plan: &Plan| -> Vec<_> {
            (0..2000).map(|number| plan.fate(number % 7, number % 2 == 0, number, 0)).collect()
        };
        let all = fates(&plan);
        assert_eq!(all, fates(&plan.clone()));
        let cut = all.iter().filter(|fate| **fate == Fate::Cut).count();
        assert!((20..60).contains(&cut), "{cut} of 2000 are cut");
        assert_ne!(all, fates(&Plan { seed: Seed::of(4), ..plan }));
        let short = Plan::new(Seed::of(1)).cuts_after(100);
        assert_eq!(short.fate(0, true, 0, 100), Fate::Passes(None));
        assert_eq!(short.fate(0, true, 1, 101), Fate::Cut);
    }
}
