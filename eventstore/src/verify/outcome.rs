//! What a verification comes to.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::Finding;
use crate::ids::Position;

/// One kind of thing that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Check {
    /// The migrations, the functions, and the triggers and unique indexes that guard the events.
    Schema,
    /// What the order of the log rests on: the counter of positions, the registry of appends in
    /// flight, the mark of recoveries, and the readers' checkpoints.
    Registry,
    /// Each event in the log: its position, its time, its stream and its metadata.
    Log,
    /// Each event of a given aggregate: whether it can be decoded.
    Payloads,
    /// Each stream: its versions, from 1 without holes, and where its events are.
    Streams,
    /// Each idempotency key: whether the events that it led to are there.
    IdempotencyKeys,
    /// Each snapshot: whether it is of an event of its stream.
    Snapshots,
    /// Each snapshot of a given aggregate: whether it is the fold of its events.
    States,
}

impl Check {
    /// All checks, in the order in which they are made.
    pub const ALL: [Self; 8] = [
        Self::Schema,
        Self::Registry,
        Self::Log,
        Self::Payloads,
        Self::Streams,
        Self::IdempotencyKeys,
        Self::Snapshots,
        Self::States,
    ];

    /// A name that stays, for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Registry => "registry",
            Self::Log => "log",
            Self::Payloads => "payloads",
            Self::Streams => "streams",
            Self::IdempotencyKeys => "idempotency_keys",
            Self::Snapshots => "snapshots",
            Self::States => "states",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IdempotencyKeys => "idempotency keys",
            other => other.name(),
        })
    }
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The check.
    pub check: Check,
    /// How far it is: of [`Check::Log`], the position; of [`Check::Streams`], the number of the stream;
    /// else how many it has looked at.
    pub done: u64,
    /// Where it ends, in the same measure, where that is known.
    pub of: Option<u64>,
}

/// An append in flight, as the registry shows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Registration {
    /// The append draws only positions above this one, and readers wait here.
    pub position: Position,
    /// The process of the server that holds it; `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// The name of the prepared transaction that holds it.
    pub prepared: Option<String>,
    /// The application's name, if the role may see it.
    pub application: Option<String>,
    /// What the session is doing, as `pg_stat_activity` says, if the role may see it.
    pub state: Option<String>,
    /// How long it has been in this state, if the role may see it.
    pub age: Option<Duration>,
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registered at position {}", self.position)?;
        match (&self.pid, &self.prepared) {
            (Some(pid), _) => write!(f, " by pid {pid}")?,
            (None, Some(name)) => write!(f, " by the prepared transaction {name:?}")?,
            (None, None) => {}
        }
        if let Some(application) = &self.application {
            write!(f, " of {application:?}")?;
        }
        match (&self.state, self.age) {
            (Some(state), Some(age)) => write!(f, ", {state} for {} s", age.as_secs()),
            (None, Some(age)) => write!(f, ", for {} s", age.as_secs()),
            (Some(state), None) => write!(f, ", {state}"),
            (None, None) => Ok(()),
        }
    }
}

/// Something that was not looked at. It may be sound or not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unchecked {
    /// No aggregate of the category was given, so its payloads were not decoded.
    Payloads {
        /// The category.
        category: String,
        /// How many events it has.
        events: u64,
    },
    /// No aggregate was given whose snapshots these are.
    Snapshots {
        /// The category.
        category: String,
        /// Whose state they hold.
        name: String,
        /// How many there are.
        snapshots: u64,
    },
    /// The state has another shape now: these are ignored by loads, and replaced by and by.
    OutdatedSnapshots {
        /// The category.
        category: String,
        /// Whose state they hold.
        name: String,
        /// How many there are.
        snapshots: u64,
    },
    /// Events are missing or cannot be decoded, so a snapshot cannot be compared with their fold.
    Unfoldable {
        /// The category.
        category: String,
        /// Whose state they hold.
        name: String,
        /// How many there are.
        snapshots: u64,
    },
    /// The role may not see what there is to check.
    Denied {
        /// The check, or a part of it.
        check: Check,
        /// What the database said.
        reason: String,
    },
}

impl Unchecked {
    /// A name of this kind that stays, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Payloads { .. } => "payloads",
            Self::Snapshots { .. } => "snapshots",
            Self::OutdatedSnapshots { .. } => "outdated_snapshots",
            Self::Unfoldable { .. } => "unfoldable",
            Self::Denied { .. } => "denied",
        }
    }
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payloads { category, events } => write!(
                f,
                "the payloads of {} of the category {category:?}: no aggregate of it was given",
                counted(*events, "event")
            ),
            Self::Snapshots { category, name, snapshots } => write!(
                f,
                "{} of {name} in the category {category:?}: this aggregate was not \
                 given",
                counted(*snapshots, "snapshot")
            ),
            Self::OutdatedSnapshots { category, name, snapshots } => write!(
                f,
                "{} of {name} in the category {category:?}: they have another shape \
                 and are ignored",
                counted(*snapshots, "snapshot")
            ),
            Self::Unfoldable { category, name, snapshots } => write!(
                f,
                "{} of {name} in the category {category:?}: their events cannot be \
                 folded",
                counted(*snapshots, "snapshot")
            ),
            Self::Denied { check, reason } => write!(f, "a part of {check}: {reason}"),
        }
    }
}

/// So many of something.
pub(super) fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// How much a check has looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// The check.
    pub check: Check,
    /// How many: events, streams, keys, snapshots; of the schema and the registry, single facts.
    pub looked_at: u64,
    /// How many findings.
    pub findings: u64,
}

/// What a verification has come to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verification {
    /// The log was looked at up to this position.
    pub up_to: Position,
    /// The checks that were made.
    pub checked: Vec<Checked>,
    /// What is wrong, the first [so many](super::Verify::max_findings).
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub findings_left_out: u64,
    /// What was not looked at, and why.
    pub unchecked: Vec<Unchecked>,
    /// The appends that were in flight at the end.
    pub in_flight: Vec<Registration>,
}

impl Verification {
    /// True if nothing is wrong with what was looked at. What was not is in
    /// [`unchecked`](Self::unchecked).
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty() && self.findings_left_out == 0
    }
}

/// What is told how far a verification is.
pub(super) type Report = Box<dyn FnMut(Progress) + Send>;

/// Collects what a verification comes to, in bounded memory.
pub(crate) struct Recorder {
    verification: Verification,
    max_findings: usize,
    /// Never contended. It makes the recorder `Sync`, and so the verification's future `Send`.
    progress: Option<Mutex<Report>>,
}

impl Recorder {
    pub(super) fn new(max_findings: usize, progress: Option<Report>) -> Self {
        let verification = Verification {
            up_to: Position::START,
            checked: Vec::new(),
            findings: Vec::new(),
            findings_left_out: 0,
            unchecked: Vec::new(),
            in_flight: Vec::new(),
        };
        Self { verification, max_findings, progress: progress.map(Mutex::new) }
    }

    pub(crate) fn up_to(&mut self, position: Position) {
        self.verification.up_to = position;
    }

    /// Notes that a check has looked at so many more.
    pub(crate) fn looked_at(&mut self, check: Check, more: u64) {
        self.checked(check).looked_at += more;
    }

    pub(crate) fn found(&mut self, finding: Finding) {
        self.checked(finding.check()).findings += 1;
        if self.verification.findings.len() < self.max_findings {
            self.verification.findings.push(finding);
        } else {
            self.verification.findings_left_out += 1;
        }
    }

    pub(crate) fn unchecked(&mut self, unchecked: Unchecked) {
        self.verification.unchecked.push(unchecked);
    }

    pub(crate) fn in_flight(&mut self, registrations: Vec<Registration>) {
        self.verification.in_flight = registrations;
    }

    pub(crate) fn progress(&mut self, check: Check, done: u64, of: Option<u64>) {
        if let Some(report) = &mut self.progress {
            let report = report.get_mut().unwrap_or_else(PoisonError::into_inner);
            report(Progress { check, done, of });
        }
    }

    pub(super) fn finish(mut self) -> Verification {
        self.verification.checked.sort_by_key(|checked| checked.check);
        self.verification
    }

    fn checked(&mut self, check: Check) -> &mut Checked {
        let checks = &mut self.verification.checked;
        let index = checks.iter().position(|known| known.check == check).unwrap_or_else(|| {
            checks.push(Checked { check, looked_at: 0, findings: 0 });
            checks.len() - 1
        });
        &mut checks[index]
    }
}
