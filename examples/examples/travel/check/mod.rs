//! The checker: what the four databases say of every booking, and what is wrong with it.
//!
//! It reads the logs, not what processes say of themselves, and folds them its own way. `read.rs` reads; the judgement here
//! is pure.

mod read;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    time::Duration,
};

use anyhow::Context;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{databases::Databases, kind::Kind, tally::Tally};

/// What the databases say.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) trips: BTreeMap<Uuid, Trip>,
    /// In the order of [`Kind::ALL`].
    pub(crate) services: [Service; 3],
    /// How many attempts at a call of the sagas failed.
    pub(crate) failed_attempts: u64,
    /// What the leaders counted, in the order in which they did.
    pub(crate) tallies: Vec<Tally>,
}

/// What they say of one booking.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trip {
    /// When it was requested. That there is a reservation for it does not mean that it was.
    pub(crate) requested: Vec<DateTime<Utc>>,
    pub(crate) confirmed: u32,
    /// How its saga ended, and when: once, if all is well.
    pub(crate) ended: Vec<(Ending, DateTime<Utc>)>,
    pub(crate) stuck: Option<String>,
    /// How many reservations are active, by service.
    pub(crate) active: [u32; 3],
}

/// How a saga ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    Booked,
    Compensated,
    Aborted,
}

/// What a service did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) reserved: u64,
    pub(crate) cancelled: u64,
    /// Cancelled before they were made.
    pub(crate) forestalled: u64,
}

/// What the checker found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) bookings: usize,
    /// How long bookings took from request to end, by ending, in ascending order.
    pub(crate) times: BTreeMap<Ending, Vec<Duration>>,
    pub(crate) findings: Vec<Finding>,
}

/// What is wrong with a booking, an answer or a tally.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Finding {
    #[error("unanswered: a request was given up: {0}")]
    Unanswered(String),
    #[error("wrong: {0}")]
    Wrong(String),
    #[error("tally: {0}")]
    Tally(String),
    #[error("lost: booking {0} was accepted, and nobody knows it")]
    Lost(Uuid),
    #[error("twice: booking {booking} was {what} {count} times")]
    Twice { booking: Uuid, what: &'static str, count: usize },
    #[error("stuck: booking {booking}: {reason}")]
    Stuck { booking: Uuid, reason: String },
    #[error("unfinished: booking {0} is neither booked nor compensated")]
    Unfinished(Uuid),
    #[error("half: booking {booking} is {ending}, with active reservations of {active}")]
    Half { booking: Uuid, ending: &'static str, active: Active },
    #[error("contradiction: booking {booking} is {ending}, and was confirmed {confirmed} times")]
    Contradiction { booking: Uuid, ending: &'static str, confirmed: u32 },
    #[error("orphaned: reservations of {active} for booking {booking}, which was never requested")]
    Orphaned { booking: Uuid, active: Active },
}

/// How many reservations are active, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Active(pub(crate) [u32; 3]);

impl fmt::Display for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = Kind::ALL.into_iter().zip(self.0);
        let counts: Vec<_> = counts.map(|(kind, count)| format!("{count} {kind}")).collect();
        f.write_str(&counts.join(", "))
    }
}

impl Ending {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Booked => "booked",
            Self::Compensated => "compensated",
            Self::Aborted => "aborted",
        }
    }
}

/// Reads the databases and judges them. None of the bookings that were accepted may be lost.
pub(crate) async fn check(
    databases: &Databases,
    accepted: &[Uuid],
) -> anyhow::Result<(Books, Verdict)> {
    let books = read::books(databases).await?;
    let verdict = judge(&books, accepted);
    Ok((books, verdict))
}

/// The ids in a file, one a line.
pub(crate) fn ids(path: &Path) -> anyhow::Result<Vec<Uuid>> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let ids = text.lines().map(|line| line.trim().parse());
    ids.collect::<Result<_, _>>().with_context(|| format!("{} holds no ids", path.display()))
}

pub(crate) fn judge(books: &Books, accepted: &[Uuid]) -> Verdict {
    let mut verdict = Verdict::default();
    let is_known = |id: &Uuid| books.trips.get(id).is_some_and(|trip| !trip.requested.is_empty());
    let accepted: BTreeSet<_> = accepted.iter().collect();
    let lost = accepted.into_iter().filter(|id| !is_known(id));
    verdict.findings.extend(lost.map(|id| Finding::Lost(*id)));
    for (booking, trip) in &books.trips {
        verdict.take(*booking, trip);
    }
    verdict.tally(&books.tallies);
    verdict.times.values_mut().for_each(|times| times.sort_unstable());
    verdict
}

impl Verdict {
    pub(crate) fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// Requests that were given up are findings as well: the gateway was to answer them in the end.
    pub(crate) fn unanswered(&mut self, reasons: &[String]) {
        self.findings.extend(reasons.iter().cloned().map(Finding::Unanswered));
    }

    /// Answers that were not what they must be.
    pub(crate) fn wrong(&mut self, answers: &[String]) {
        self.findings.extend(answers.iter().cloned().map(Finding::Wrong));
    }

    /// When each process that may lead was killed, more than one has led.
    pub(crate) fn led_by_turns(&mut self, books: &Books) {
        let epochs: BTreeSet<_> = books.tallies.iter().map(|tally| tally.epoch).collect();
        if epochs.len() < 2 {
            let led = format!("there was no second leader: the epochs were {epochs:?}");
            self.findings.push(Finding::Tally(led));
        }
    }

    /// Tallies are in the order of the leaders, and the last one counts what there is. It is none of a checker's business
    /// how often there was one.
    fn tally(&mut self, tallies: &[Tally]) {
        for (before, after) in tallies.iter().zip(tallies.iter().skip(1)) {
            if after.epoch < before.epoch {
                let late = format!("epoch {} counted after {}", after.epoch, before.epoch);
                self.findings.push(Finding::Tally(late));
            }
        }
        let count = |ending| self.times.get(&ending).map_or(0, |times| times.len() as u64);
        let [booked, undone] = [Ending::Booked, Ending::Compensated].map(count);
        if let Some(last) = tallies.last()
            && (last.booked, last.cancelled) != (booked, undone)
        {
            self.findings.push(Finding::Tally(format!(
                "{} booked and {} cancelled were counted, and there are {booked} and {undone}",
                last.booked, last.cancelled
            )));
        }
    }

    fn take(&mut self, booking: Uuid, trip: &Trip) {
        let active = Active(trip.active);
        let Some(requested) = trip.requested.first() else {
            // Reservations that were cancelled may be all that is left of a test by hand.
            if trip.active != [0; 3] {
                self.findings.push(Finding::Orphaned { booking, active });
            }
            return;
        };
        self.bookings += 1;
        for (what, count) in [("requested", trip.requested.len()), ("ended", trip.ended.len())] {
            if count > 1 {
                self.findings.push(Finding::Twice { booking, what, count });
            }
        }
        let Some((ending, at)) = trip.ended.first() else {
            self.findings.push(match &trip.stuck {
                Some(reason) => Finding::Stuck { booking, reason: reason.clone() },
                None => Finding::Unfinished(booking),
            });
            return;
        };
        let took = (*at - *requested).to_std().unwrap_or_default();
        self.times.entry(*ending).or_default().push(took);
        let (expected, confirmed) = match ending {
            Ending::Booked => ([1; 3], 1),
            // Whoever aborts a saga answers for what is left of it; here, nothing may be.
            Ending::Compensated | Ending::Aborted => ([0; 3], 0),
        };
        let ending = ending.name();
        if trip.active != expected {
            self.findings.push(Finding::Half { booking, ending, active });
        }
        if trip.confirmed != confirmed {
            let confirmed = trip.confirmed;
            self.findings.push(Finding::Contradiction { booking, ending, confirmed });
        }
    }
}

impl fmt::Display for Verdict {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bookings, findings, .. } = self;
        if self.is_sound() {
            write!(
                f,
                "SOUND: {bookings} bookings, each booked or fully compensated; none twice, none half, \
                 none stuck, none lost"
            )
        } else {
            write!(f, "BROKEN: {bookings} bookings, {} findings", findings.len())
        }
    }
}

#[cfg(test)]
mod tests;
