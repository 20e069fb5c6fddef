//! Histories made by hand, each with one thing wrong.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{Entry, Filter, Place, Seen, Verdict, Violation, Written, check, read};
use crate::ids::{Position, Version};

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn place(position: i64, version: i64) -> Place {
    Place { position: Position::new(position), version: Version::new(version) }
}

/// An event as seen; its id is its number.
fn seen(number: u128, stream: &str, position: i64, version: i64) -> Seen {
    Seen {
        id: id(number),
        stream: stream.to_owned(),
        place: place(position, version),
        recorded_at: time(position),
    }
}

/// An append; its id is a hundred times that of its first event.
fn invoked(at: u64, stream: &str, numbers: &[u128]) -> Entry {
    let written = |number: &u128| Written { id: id(*number), stream: stream.to_owned() };
    Entry::Invoked {
        writer: "w".to_owned(),
        append: id(100 * numbers[0]),
        at,
        events: numbers.iter().map(written).collect(),
    }
}

fn acknowledged(at: u64, number: u128, places: &[(i64, i64)]) -> Entry {
    let places = places.iter().map(|(position, version)| place(*position, *version)).collect();
    Entry::Acknowledged { append: id(100 * number), at, places }
}

fn started(after: i64, filter: Filter) -> Entry {
    Entry::Started { reader: "r".to_owned(), after: Position::new(after), filter }
}

fn page(after: i64, up_to: i64, events: &[Seen]) -> Entry {
    let (after, up_to) = (Position::new(after), Position::new(up_to));
    Entry::Page { reader: "r".to_owned(), after, up_to, events: events.to_vec() }
}

fn log(events: &[Seen]) -> Entry {
    Entry::Log { events: events.to_vec() }
}

/// Two streams, a hole at 3, an append that was refused, one that is recorded although nobody knows.
fn good() -> (Vec<Entry>, Vec<Seen>) {
    let events = vec![
        seen(1, "a-1", 1, 1),
        seen(2, "a-1", 2, 2),
        seen(3, "b-1", 4, 1),
        seen(6, "a-1", 5, 3),
        seen(7, "a-1", 6, 4),
    ];
    let writers = vec![
        invoked(1, "a-1", &[1, 2]),
        acknowledged(2, 1, &[(1, 1), (2, 2)]),
        invoked(3, "b-1", &[3]),
        invoked(3, "a-1", &[5]),
        Entry::Refused { append: id(500) },
        acknowledged(6, 3, &[(4, 1)]),
        invoked(7, "a-1", &[6, 7]),
        Entry::Indeterminate { append: id(600) },
        invoked(8, "b-1", &[8]),
    ];
    (writers, events)
}

/// The good history with a reader that saw these pages, and the log.
fn with(reader: Vec<Entry>, events: &[Seen]) -> Verdict {
    let mut history = good().0;
    history.extend(reader);
    history.push(log(events));
    check(&history)
}

fn only(verdict: Verdict) -> Violation {
    assert_eq!(verdict.violations.len(), 1, "{verdict}");
    assert!(!verdict.is_sound());
    verdict.violations.into_iter().next().unwrap()
}

#[test]
fn a_good_history_is_sound() {
    let (_, events) = good();
    let reader = vec![
        started(0, Filter::All),
        page(0, 2, &events[..2]),
        page(2, 3, &[]),
        // Restarted: what came after 2 comes again.
        started(2, Filter::All),
        page(2, 5, &events[2..4]),
        page(5, 6, &events[4..]),
        page(6, 6, &[]),
    ];
    let verdict = with(reader, &events);
    assert!(verdict.is_sound(), "{verdict}");
    assert_eq!((verdict.acknowledged, verdict.refused, verdict.indeterminate), (2, 1, 2));
    assert_eq!((verdict.events, verdict.seen, verdict.restarts), (5, 5, 1));
    assert_eq!(verdict.reached["r"], Position::new(6));
    assert!(verdict.to_string().starts_with("SOUND"));
}

#[test]
fn a_filtered_reader_passes_what_it_does_not_match() {
    let (_, events) = good();
    let filter = || Filter::Categories(vec!["b".to_owned()]);
    let verdict = with(vec![started(0, filter()), page(0, 6, &events[2..3])], &events);
    assert!(verdict.is_sound(), "{verdict}");
    let not_asked_for = with(vec![started(0, filter()), page(0, 6, &events[1..3])], &events);
    assert!(matches!(only(not_asked_for), Violation::OutOfTurn { .. }));
    let skipped = with(vec![started(0, filter()), page(0, 6, &[])], &events);
    assert!(matches!(only(skipped), Violation::Skipped { .. }));
}

#[test]
fn an_acknowledged_event_that_is_not_in_the_log_is_lost() {
    let (_, mut events) = good();
    events.remove(2);
    let violation = only(with(vec![], &events));
    assert!(matches!(violation, Violation::Lost { id: lost, .. } if lost == id(3)), "{violation}");
}

#[test]
fn an_event_in_the_log_twice_is_found() {
    let (_, mut events) = good();
    events.push(seen(3, "b-1", 7, 2));
    let violation = only(with(vec![], &events));
    assert!(matches!(violation, Violation::RecordedTwice { .. }), "{violation}");
}

#[test]
fn an_event_that_nobody_wrote_is_found() {
    let (_, mut events) = good();
    events.push(seen(99, "c-1", 7, 1));
    assert!(matches!(only(with(vec![], &events)), Violation::Invented(_)));
    let (_, mut events) = good();
    events[2].stream = "c-1".to_owned();
    assert!(matches!(only(with(vec![], &events)), Violation::Invented(_)));
}

#[test]
fn a_refused_event_is_found_in_the_log_and_with_a_reader() {
    let (_, mut events) = good();
    let aborted = seen(5, "a-1", 7, 5);
    let reader = vec![
        started(0, Filter::All),
        page(0, 6, &events),
        page(6, 7, std::slice::from_ref(&aborted)),
    ];
    let dirty = only(with(reader, &events));
    assert_eq!(dirty, Violation::Aborted(aborted.clone()));
    events.push(aborted.clone());
    assert_eq!(only(with(vec![], &events)), Violation::Aborted(aborted));
}

#[test]
fn half_an_append_is_torn() {
    let (_, mut events) = good();
    events.pop();
    let violation = only(with(vec![], &events));
    assert_eq!(violation, Violation::Torn { append: id(600), recorded: 1, of: 2 });
}

#[test]
fn an_event_elsewhere_than_acknowledged_is_misplaced() {
    let (_, mut events) = good();
    events[2].place.position = Position::new(3);
    assert!(matches!(only(with(vec![], &events)), Violation::Misplaced { .. }));
}

#[test]
fn a_log_that_is_not_in_order_is_found() {
    let (_, mut events) = good();
    events.swap(1, 2);
    events[1].recorded_at = time(2);
    assert!(matches!(only(with(vec![], &events)), Violation::Disordered { .. }));
}

#[test]
fn versions_with_a_gap_are_found() {
    let (_, mut events) = good();
    for event in &mut events[3..] {
        event.place.version = event.place.version.plus(1);
    }
    let violation = only(with(vec![], &events));
    assert!(matches!(violation, Violation::Versions { expected: 3, .. }), "{violation}");
}

#[test]
fn time_that_goes_back_is_found() {
    let (_, mut events) = good();
    events[4].recorded_at = time(4);
    assert!(matches!(only(with(vec![], &events)), Violation::TimeWentBack { .. }));
}

#[test]
fn an_append_whose_events_changed_places_is_found() {
    let (_, mut events) = good();
    events[3] = seen(7, "a-1", 5, 3);
    events[4] = seen(6, "a-1", 6, 4);
    assert_eq!(only(with(vec![], &events)), Violation::Reordered { append: id(600) });
}

#[test]
fn what_began_later_stands_later() {
    let history = [
        invoked(1, "a-1", &[1]),
        acknowledged(2, 1, &[(2, 1)]),
        invoked(3, "b-1", &[2]),
        acknowledged(4, 2, &[(1, 1)]),
        log(&[seen(2, "b-1", 1, 1), seen(1, "a-1", 2, 1)]),
    ];
    let violation = only(check(&history));
    assert_eq!(violation, Violation::OutOfTime { earlier: id(100), later: id(200) });
}

#[test]
fn an_event_behind_a_reader_is_skipped() {
    let (_, events) = good();
    // It reads to 4 while 4 is still in flight, and finds 5 and 6.
    let reader = vec![started(0, Filter::All), page(0, 4, &events[..2]), page(4, 6, &events[3..])];
    let violation = only(with(reader, &events));
    let Violation::Skipped { up_to, event, .. } = violation else { panic!("{violation}") };
    assert_eq!((up_to.get(), event.place.position.get()), (4, 4));
}

#[test]
fn a_late_event_is_skipped_where_it_should_have_been_and_out_of_turn_where_it_comes() {
    let (_, events) = good();
    let late = [events[2].clone(), events[3].clone(), events[4].clone()];
    let reader = vec![started(0, Filter::All), page(0, 4, &events[..2]), page(4, 6, &late)];
    let violations = with(reader, &events).violations;
    assert!(
        matches!(&violations[..], [Violation::Skipped { .. }, Violation::OutOfTurn { .. }]),
        "{violations:?}"
    );
}

#[test]
fn an_event_seen_twice_or_out_of_order_is_out_of_turn() {
    let (_, events) = good();
    let twice = [&events[..2], &events[1..]].concat();
    let mut swapped = events.clone();
    swapped.swap(1, 2);
    for pages in [twice, swapped] {
        let verdict = with(vec![started(0, Filter::All), page(0, 6, &pages)], &events);
        assert!(matches!(only(verdict), Violation::OutOfTurn { .. }));
    }
}

#[test]
fn an_event_seen_otherwise_than_it_is_recorded_is_different() {
    let (_, events) = good();
    let mut other = events.clone();
    other[3].place.version = Version::new(9);
    let verdict = with(vec![started(0, Filter::All), page(0, 6, &other)], &events);
    assert!(matches!(only(verdict), Violation::Different { .. }));
}

#[test]
fn a_stream_is_read_without_gap() {
    let (_, events) = good();
    let read = |after: i64, events: &[&Seen]| Entry::Stream {
        reader: "r".to_owned(),
        stream: "a-1".to_owned(),
        after: Version::new(after),
        events: events.iter().copied().cloned().collect(),
    };
    let (one, two, three) = (&events[0], &events[1], &events[3]);
    let good = [read(0, &[one, two]), read(2, &[]), read(1, &[two, three])];
    let verdict = with(good.to_vec(), &events);
    assert!(verdict.is_sound(), "{verdict}");
    for bad in [read(0, &[one, three]), read(0, &[two]), read(0, &[&events[2]])] {
        assert!(matches!(only(with(vec![bad], &events)), Violation::Versions { .. }));
    }
    let aborted = seen(5, "a-1", 7, 4);
    let dirty = with(vec![read(3, &[&aborted])], &events);
    assert_eq!(only(dirty), Violation::Aborted(aborted));
    let gone = with(vec![read(0, &[&seen(1, "a-1", 9, 1)])], &events);
    assert!(matches!(only(gone), Violation::Different { .. }));
}

#[test]
fn a_history_that_makes_no_sense_is_not_sound() {
    let (writers, events) = good();
    let whole = [writers.clone(), vec![log(&events)]].concat();
    assert!(check(&whole).is_sound());
    let malformed = |entry: Entry| only(check(&[whole.clone(), vec![entry]].concat()));
    for entry in [
        invoked(9, "a-1", &[1]),
        acknowledged(9, 77, &[]),
        Entry::Refused { append: id(500) },
        page(0, 0, &[]),
        log(&events),
    ] {
        // An append that is invoked again also brings its events again.
        let verdict = check(&[whole.clone(), vec![entry.clone()]].concat());
        let malformed = |violation: &Violation| matches!(violation, Violation::Malformed(_));
        assert!(verdict.violations.iter().any(malformed), "{entry:?}: {verdict}");
    }
    let gap = vec![started(0, Filter::All), page(1, 6, &events[1..])];
    assert!(matches!(only(with(gap, &events)), Violation::Malformed(_)));
    assert!(matches!(malformed(page(0, 0, &[])), Violation::Malformed(_)));
    assert!(matches!(only(check(&writers)), Violation::Malformed(_)), "without the log");
}

#[test]
fn a_history_is_read_back_line_by_line() {
    let (mut history, events) = good();
    history.extend([started(0, Filter::Categories(vec!["a".to_owned()])), page(0, 6, &events)]);
    history.push(log(&events));
    let mut lines = Vec::new();
    for entry in &history {
        serde_json::to_writer(&mut lines, entry).unwrap();
        lines.push(b'\n');
    }
    assert_eq!(read(&lines[..]).unwrap(), history);
    // The last line was cut off.
    assert_eq!(read(&lines[..lines.len() - 5]).unwrap(), history[..history.len() - 1]);
    assert!(read(&b"{\"entry\":\"unheard of\"}\n"[..]).is_err());
}
