//! Following the readers of a history.

use std::collections::HashMap;

use super::{Entry, Filter, Seen, Verdict, Violation, check::Appends};
use crate::ids::{Position, Version};

/// The readers, against the log as it is in the end.
pub(super) struct Readers<'a> {
    /// By position.
    log: Vec<&'a Seen>,
    appends: &'a Appends<'a>,
    by_name: HashMap<&'a str, Reader<'a>>,
}

struct Reader<'a> {
    checkpoint: Position,
    filter: &'a Filter,
}

impl<'a> Readers<'a> {
    pub(super) fn new(log: &'a [Seen], appends: &'a Appends<'a>) -> Self {
        let mut log: Vec<_> = log.iter().collect();
        log.sort_by_key(|event| event.place.position);
        Self { log, appends, by_name: HashMap::new() }
    }

    pub(super) fn follow(mut self, history: &'a [Entry], verdict: &mut Verdict) {
        for entry in history {
            match entry {
                Entry::Started { reader, after, filter } => {
                    let started = Reader { checkpoint: *after, filter };
                    if self.by_name.insert(reader, started).is_some() {
                        verdict.restarts += 1;
                    }
                }
                Entry::Page { reader, after, up_to, events } => {
                    verdict.seen += events.len();
                    self.page(reader, (*after, *up_to), events, &mut verdict.violations);
                }
                Entry::Stream { reader, stream, after, events } => {
                    verdict.seen += events.len();
                    self.stream((reader, stream), *after, events, &mut verdict.violations);
                }
                _ => {}
            }
        }
        let reached = self.by_name.iter();
        verdict.reached =
            reached.map(|(name, reader)| ((*name).to_owned(), reader.checkpoint)).collect();
    }

    fn page(
        &mut self,
        name: &'a str,
        (after, up_to): (Position, Position),
        events: &[Seen],
        violations: &mut Vec<Violation>,
    ) {
        let Some(reader) = self.by_name.get_mut(name) else {
            violations.push(Violation::Malformed(format!("{name} reads and never started")));
            return;
        };
        if reader.checkpoint != after || up_to < after {
            violations.push(Violation::Malformed(format!(
                "{name} was at {} and reads from {after} to {up_to}",
                reader.checkpoint
            )));
        }
        reader.checkpoint = up_to;
        let filter = reader.filter;
        let mut last = after;
        for event in events {
            let position = event.place.position;
            if position <= last || position > up_to || !filter.matches(&event.stream) {
                let (reader, event) = (name.to_owned(), event.clone());
                violations.push(Violation::OutOfTurn { reader, after: last, event });
            }
            last = last.max(position);
            violations.extend(self.not_as_recorded(name, event));
        }
        let start = self.log.partition_point(|event| event.place.position <= after);
        let end = self.log.partition_point(|event| event.place.position <= up_to);
        let mut seen: Vec<_> = events.iter().map(|event| event.id).collect();
        seen.sort_unstable();
        for event in self.log.get(start..end).unwrap_or_default() {
            if filter.matches(&event.stream) && seen.binary_search(&event.id).is_err() {
                let (reader, event) = (name.to_owned(), (*event).clone());
                violations.push(Violation::Skipped { reader, up_to, event });
            }
        }
    }

    /// A stream has an order of its own: its events come without gap, however far it is safe to read.
    fn stream(
        &self,
        (name, stream): (&str, &str),
        after: Version,
        events: &[Seen],
        violations: &mut Vec<Violation>,
    ) {
        let mut expected = after;
        for event in events {
            expected = expected.plus(1);
            if event.place.version != expected || event.stream != stream {
                let (expected, event) = (expected.get(), event.clone());
                violations.push(Violation::Versions { expected, event });
            }
            violations.extend(self.not_as_recorded(name, event));
        }
    }

    fn not_as_recorded(&self, name: &str, event: &Seen) -> Option<Violation> {
        if self.appends.refused(event) {
            return Some(Violation::Aborted(event.clone()));
        }
        let recorded = at(&self.log, event.place.position).contains(&event);
        let different = || Violation::Different { reader: name.to_owned(), event: event.clone() };
        (!recorded).then(different)
    }
}

/// The events at a position: one, in a log that is sound.
fn at<'b, 'a>(log: &'b [&'a Seen], position: Position) -> &'b [&'a Seen] {
    let start = log.partition_point(|event| event.place.position < position);
    let end = log.partition_point(|event| event.place.position <= position);
    &log[start..end]
}
