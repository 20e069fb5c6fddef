//! What a verification of topics comes to.

use std::collections::BTreeMap;

use super::{Finding, Place};
use crate::ids::Position;

/// How far a verification has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The position in the log.
    pub done: u64,
    /// Where the log ends.
    pub of: u64,
    /// How many records have been read.
    pub records: u64,
}

/// A topic that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many records were read: those of committed transactions only.
    pub records: u64,
}

/// What a verification of topics has come to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verification {
    /// Events up to here count as published: the progress that the publisher has noted.
    pub published: Position,
    /// Where the log ended when the topics had been looked up.
    pub log_end: Position,
    /// How many events have a record as it should be, or one that is a finding.
    pub events: u64,
    /// The topics of the context.
    pub topics: Vec<Topic>,
    /// How many records repeat an earlier one. Published exactly once, each is a finding too.
    pub repeated: u64,
    /// How many events are not there any more: they are older than the oldest record of a partition
    /// from which records were deleted, by its retention as a rule.
    pub expired: u64,
    /// How many events of archived streams are not there: they were archived before the first
    /// publisher began, which leaves them out.
    pub archived: u64,
    /// Where a transaction was open: what lies behind is hidden from consumers until it ends. While
    /// a publisher is at work this is as it should be.
    pub held_back: Vec<Place>,
    /// What is wrong, the first [so many](super::Verify::max_findings).
    pub findings: Vec<Finding>,
    /// How many findings of each [kind](Finding::kind) there are in all.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Verification {
    /// True if nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings_in_all() == 0
    }

    /// How many findings there are, those included that were counted only.
    pub fn findings_in_all(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// What is told how far a verification is.
pub(super) type Report = Box<dyn FnMut(Progress) + Send>;

/// Collects findings, in bounded memory.
pub(super) struct Recorder {
    max_findings: usize,
    pub(super) findings: Vec<Finding>,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl Recorder {
    pub(super) fn new(max_findings: usize) -> Self {
        Self { max_findings, findings: Vec::new(), counts: BTreeMap::new() }
    }

    pub(super) fn found(&mut self, finding: Finding) {
        *self.counts.entry(finding.kind()).or_default() += 1;
        if self.findings.len() < self.max_findings {
            self.findings.push(finding);
        }
    }

    /// Whether findings are only counted by now.
    pub(super) fn is_full(&self) -> bool {
        self.findings.len() >= self.max_findings
    }
}
