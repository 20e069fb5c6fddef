//! The breaker as a machine of states, without a clock and without I/O.

use std::time::{Duration, Instant};

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerOptions {
    /// So many failures with no success in between open it: 5 unless set.
    pub failures: u32,
    /// How long it is open at first: a second unless set. Each trial that fails doubles that.
    pub first: Duration,
    /// How long at most: a minute unless set.
    pub most: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 5, first: Duration::from_secs(1), most: Duration::from_secs(60) }
    }
}

impl BreakerOptions {
    /// Sets how many failures in a row open it, one at least.
    #[must_use]
    pub fn failures(mut self, failures: u32) -> Self {
        self.failures = failures.max(1);
        self
    }

    /// Sets how long it is open: at first, and at most.
    #[must_use]
    pub fn cool_down(mut self, first: Duration, most: Duration) -> Self {
        (self.first, self.most) = (first, most.max(first));
        self
    }
}

/// The states of a circuit breaker and the steps between them. [`CircuitBreaker`](super::CircuitBreaker) is
/// one to share, with a clock.
#[derive(Debug)]
pub struct Breaker {
    options: BreakerOptions,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Everything is tried.
    Closed { failures: u32 },
    /// Nothing is tried before then.
    Open { until: Instant, cool_down: Duration },
    /// One attempt is under way, after a cool-down of this length.
    Trial { cool_down: Duration },
}

/// What a breaker does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CircuitState {
    /// Everything goes through.
    Closed,
    /// One attempt is due, or under way.
    HalfOpen,
    /// Nothing goes through.
    Open,
}

/// Leave to make one attempt. What comes of it is to be reported.
#[must_use = "what comes of the attempt is to be reported"]
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    trial: bool,
}

impl Permit {
    /// True if it is the one attempt that decides if the breaker closes.
    pub fn is_trial(&self) -> bool {
        self.trial
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What is behind the breaker works.
    Success,
    /// It does not.
    Failure,
    /// It was not made after all, or says nothing.
    None,
}

impl Breaker {
    /// A closed one.
    pub fn new(options: BreakerOptions) -> Self {
        Self { options, state: State::Closed { failures: 0 } }
    }

    /// Closed, as at the beginning.
    pub fn reset(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// Open, with a trial that is due.
    pub fn open(&mut self, now: Instant) {
        self.state = State::Open { until: now, cool_down: self.options.first };
    }

    /// True if everything is tried.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Until when nothing is tried, if that is so.
    pub fn open_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed { .. } | State::Trial { .. } => None,
        }
    }

    /// What it does at a time.
    pub fn state(&self, now: Instant) -> CircuitState {
        match self.state {
            State::Closed { .. } => CircuitState::Closed,
            State::Open { until, .. } if now < until => CircuitState::Open,
            State::Open { .. } | State::Trial { .. } => CircuitState::HalfOpen,
        }
    }

    /// Asks for leave to make an attempt.
    pub fn ask(&mut self, now: Instant) -> Option<Permit> {
        match self.state {
            State::Closed { .. } => Some(Permit { trial: false }),
            State::Open { until, cool_down } if until <= now => {
                self.state = State::Trial { cool_down };
                Some(Permit { trial: true })
            }
            State::Open { .. } | State::Trial { .. } => None,
        }
    }

    /// Takes note of what came of an attempt. Those that began before it opened say nothing new.
    pub fn report(&mut self, permit: Permit, outcome: Outcome, now: Instant) {
        let Permit { trial } = permit;
        let open = |cool_down| State::Open { until: now + cool_down, cool_down };
        self.state = match (self.state, outcome) {
            (State::Closed { .. }, Outcome::Success) => State::Closed { failures: 0 },
            (State::Closed { failures }, Outcome::Failure) => match failures + 1 {
                failures if failures < self.options.failures => State::Closed { failures },
                _ => open(self.options.first),
            },
            (State::Trial { .. }, Outcome::Success) if trial => State::Closed { failures: 0 },
            (State::Trial { cool_down }, Outcome::Failure) if trial => {
                open((cool_down * 2).min(self.options.most))
            }
            (State::Trial { cool_down }, Outcome::None) if trial => {
                State::Open { until: now, cool_down }
            }
            (state, _) => state,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Ask,
        /// Reports one of the attempts under way: which, and what came of it.
        Report(usize, Outcome),
        Pass(Duration),
    }

    fn step() -> impl Strategy<Value = Step> {
        let outcomes =
            [Outcome::Success, Outcome::Failure, Outcome::Failure, Outcome::Failure, Outcome::None];
        prop_oneof![
            Just(Step::Ask),
            (0..8usize, proptest::sample::select(outcomes.to_vec()))
                .prop_map(|(which, outcome)| Step::Report(which, outcome)),
            (0..3000u64).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        ]
    }

    const OPTIONS: BreakerOptions =
        BreakerOptions { failures: 3, first: Duration::from_secs(1), most: Duration::from_secs(5) };

    proptest! {
        /// Told again from what is said about it, not from how it is done.
        #[test]
        fn it_tries_nothing_while_it_is_open_and_one_thing_then(steps in vec(step(), 0..200)) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(OPTIONS);
            let mut under_way: Vec<Permit> = Vec::new();
            let (mut in_a_row, mut trial_runs) = (0, false);
            // Since when it is open, and for how long.
            let mut open: Option<(Instant, Duration)> = None;
            for step in steps {
                match step {
                    Step::Pass(time) => now += time,
                    Step::Ask => {
                        let permit = breaker.ask(now);
                        let may = match open {
                            None => true,
                            Some((since, cool_down)) => !trial_runs && since + cool_down <= now,
                        };
                        prop_assert_eq!(permit.is_some(), may);
                        if let Some(permit) = permit {
                            prop_assert_eq!(permit.is_trial(), open.is_some());
                            trial_runs |= permit.is_trial();
                            under_way.push(permit);
                        }
                    }
                    Step::Report(_, _) if under_way.is_empty() => {}
                    Step::Report(which, outcome) => {
                        let permit = under_way.swap_remove(which % under_way.len());
                        let trial = permit.is_trial();
                        breaker.report(permit, outcome, now);
                        match (open, outcome) {
                            (None, Outcome::Success) => in_a_row = 0,
                            (None, Outcome::Failure) => {
                                in_a_row += 1;
                                if in_a_row == OPTIONS.failures {
                                    open = Some((now, OPTIONS.first));
                                }
                            }
                            (Some(_), Outcome::Success) if trial => {
                                (open, in_a_row, trial_runs) = (None, 0, false);
                            }
                            (Some((_, cool_down)), Outcome::Failure) if trial => {
                                open = Some((now, (cool_down * 2).min(OPTIONS.most)));
                                trial_runs = false;
                            }
                            (Some((since, cool_down)), Outcome::None) if trial => {
                                // Another may be tried at once.
                                open = Some((since, cool_down));
                                trial_runs = false;
                            }
                            _ => {}
                        }
                    }
                }
                prop_assert_eq!(breaker.is_closed(), open.is_none());
            }
        }
    }
}
