//! Judging a history.

use std::collections::{BTreeMap, HashMap, hash_map};

use uuid::Uuid;

use super::{Entry, Place, Seen, Verdict, Violation, Written, readers::Readers};
use crate::ids::Position;

/// Judges a history. The entries of one writer or reader are in its order; writers and readers may
/// come in any order.
///
/// It proves of the log: nothing acknowledged is lost or elsewhere than said, nothing is there twice,
/// nothing refused is there, each append is there as a whole and in its order, positions rise, each
/// stream's versions are 1, 2, 3, the recording time does not go back, and an append that began
/// after another was acknowledged stands behind it. And of each reader: what it saw between two of
/// its checkpoints is exactly what the log has there, so it read nothing too early and saw all once;
/// what it saw of a stream comes version by version and is what the log has.
pub fn check(history: &[Entry]) -> Verdict {
    let mut verdict = Verdict::default();
    let appends = Appends::of(history, &mut verdict);
    let mut logs = history.iter().filter_map(|entry| match entry {
        Entry::Log { events } => Some(events.as_slice()),
        _ => None,
    });
    let Some(log) = logs.next() else {
        let reason = "it does not end with the log, so nobody can say what was lost";
        verdict.violations.push(Violation::Malformed(reason.to_owned()));
        return verdict;
    };
    if logs.next().is_some() {
        verdict.violations.push(Violation::Malformed("it has the log twice".to_owned()));
    }
    verdict.events = log.len();
    sound(log, &mut verdict.violations);
    let by_id = appends.against(log, &mut verdict.violations);
    appends.in_time(&by_id, &mut verdict.violations);
    Readers::new(log, &appends).follow(history, &mut verdict);
    verdict
}

/// What holds of every log, whoever wrote it.
fn sound(log: &[Seen], violations: &mut Vec<Violation>) {
    let mut versions = HashMap::new();
    let mut last: Option<&Seen> = None;
    for event in log {
        if let Some(last) = last {
            if event.place.position <= last.place.position {
                let after = last.place.position;
                violations.push(Violation::Disordered { after, event: event.clone() });
            }
            if event.recorded_at < last.recorded_at {
                violations.push(Violation::TimeWentBack { event: event.clone() });
            }
        }
        let expected = versions.entry(event.stream.as_str()).or_insert(0);
        *expected += 1;
        if event.place.version.get() != *expected {
            violations.push(Violation::Versions { expected: *expected, event: event.clone() });
            // One gap is one violation, not one for each event behind it.
            *expected = event.place.version.get();
        }
        last = Some(event);
    }
}

/// What a writer knows of an append.
#[derive(Debug, PartialEq)]
enum Answer<'a> {
    Acknowledged { at: u64, places: &'a [Place] },
    Refused,
    Unknown,
}

#[derive(Debug)]
struct Invocation<'a> {
    at: u64,
    events: &'a [Written],
    answer: Answer<'a>,
}

/// All appends, in an order that does not depend on chance.
pub(super) struct Appends<'a> {
    by_id: BTreeMap<Uuid, Invocation<'a>>,
    /// The append and the stream of each event.
    events: HashMap<Uuid, (Uuid, &'a str)>,
}

impl<'a> Appends<'a> {
    fn of(history: &'a [Entry], verdict: &mut Verdict) -> Self {
        let mut appends = Self { by_id: BTreeMap::new(), events: HashMap::new() };
        let mut malformed = |what: String| verdict.violations.push(Violation::Malformed(what));
        for entry in history {
            let Entry::Invoked { append, at, events, .. } = entry else { continue };
            let invocation = Invocation { at: *at, events, answer: Answer::Unknown };
            if appends.by_id.insert(*append, invocation).is_some() {
                malformed(format!("append {append} was invoked twice"));
            }
            for event in events {
                if appends.events.insert(event.id, (*append, &event.stream)).is_some() {
                    malformed(format!("event {} is in two appends", event.id));
                }
            }
        }
        let mut answered = std::collections::HashSet::new();
        for entry in history {
            let (append, answer) = match entry {
                Entry::Acknowledged { append, at, places } => {
                    (append, Answer::Acknowledged { at: *at, places })
                }
                Entry::Refused { append } => (append, Answer::Refused),
                Entry::Indeterminate { append } => (append, Answer::Unknown),
                _ => continue,
            };
            if !answered.insert(append) {
                malformed(format!("append {append} was answered twice"));
            }
            match (appends.by_id.get_mut(append), &answer) {
                (None, _) => malformed(format!("append {append} was answered and not invoked")),
                (Some(invocation), Answer::Acknowledged { places, .. })
                    if places.len() != invocation.events.len() =>
                {
                    malformed(format!("append {append} has another number of places than events"));
                }
                (Some(invocation), _) => invocation.answer = answer,
            }
        }
        for invocation in appends.by_id.values() {
            match invocation.answer {
                Answer::Acknowledged { .. } => verdict.acknowledged += 1,
                Answer::Refused => verdict.refused += 1,
                Answer::Unknown => verdict.indeterminate += 1,
            }
        }
        appends
    }

    /// True if the event belongs to an append that was refused.
    pub(super) fn refused(&self, event: &Seen) -> bool {
        let append = self.events.get(&event.id).and_then(|(append, _)| self.by_id.get(append));
        append.is_some_and(|invocation| invocation.answer == Answer::Refused)
    }

    /// Compares what the writers know with the log; returns the log by event.
    fn against(&self, log: &'a [Seen], violations: &mut Vec<Violation>) -> HashMap<Uuid, &'a Seen> {
        let mut recorded: HashMap<Uuid, &Seen> = HashMap::with_capacity(log.len());
        for event in log {
            match recorded.entry(event.id) {
                hash_map::Entry::Vacant(free) => {
                    free.insert(event);
                }
                hash_map::Entry::Occupied(taken) => violations.push(Violation::RecordedTwice {
                    id: event.id,
                    first: taken.get().place.position,
                    second: event.place.position,
                }),
            }
            match self.events.get(&event.id) {
                Some((_, stream)) if *stream == event.stream => {}
                _ => violations.push(Violation::Invented(event.clone())),
            }
            if self.refused(event) {
                violations.push(Violation::Aborted(event.clone()));
            }
        }
        for (append, invocation) in &self.by_id {
            let found: Vec<_> =
                invocation.events.iter().filter_map(|event| recorded.get(&event.id)).collect();
            if found.windows(2).any(|pair| pair[0].place.position >= pair[1].place.position) {
                violations.push(Violation::Reordered { append: *append });
            }
            match &invocation.answer {
                Answer::Acknowledged { places, .. } => {
                    for (event, place) in std::iter::zip(invocation.events, *places) {
                        match recorded.get(&event.id) {
                            None => violations.push(Violation::Lost {
                                id: event.id,
                                stream: event.stream.clone(),
                                place: *place,
                            }),
                            Some(seen) if seen.place != *place => {
                                let (acknowledged, recorded) = (*place, (*seen).clone());
                                violations.push(Violation::Misplaced { acknowledged, recorded });
                            }
                            Some(_) => {}
                        }
                    }
                }
                Answer::Unknown if (1..invocation.events.len()).contains(&found.len()) => {
                    let (recorded, of) = (found.len(), invocation.events.len());
                    violations.push(Violation::Torn { append: *append, recorded, of });
                }
                Answer::Refused | Answer::Unknown => {}
            }
        }
        recorded
    }

    /// Checks that what began after something was acknowledged stands behind it.
    fn in_time(&self, recorded: &HashMap<Uuid, &Seen>, violations: &mut Vec<Violation>) {
        let positions = |invocation: &Invocation<'_>| {
            let events = invocation.events.iter().filter_map(|event| recorded.get(&event.id));
            events.map(|event| event.place.position).collect::<Vec<_>>()
        };
        let mut begun = Vec::new();
        let mut acknowledged = Vec::new();
        for (append, invocation) in &self.by_id {
            let positions = positions(invocation);
            let (Some(first), Some(last)) = (positions.iter().min(), positions.iter().max()) else {
                continue;
            };
            begun.push((invocation.at, *first, *append));
            if let Answer::Acknowledged { at, .. } = invocation.answer {
                acknowledged.push((at, *last, *append));
            }
        }
        begun.sort_unstable();
        acknowledged.sort_unstable();
        let mut acknowledged = acknowledged.into_iter().peekable();
        let mut highest = (Position::START, Uuid::nil());
        for (at, first, append) in begun {
            while let Some((_, last, earlier)) = acknowledged.next_if(|(then, ..)| *then < at) {
                highest = highest.max((last, earlier));
            }
            if first < highest.0 {
                let earlier = highest.1;
                violations.push(Violation::OutOfTime { earlier, later: append });
            }
        }
    }
}
