use annals_eventstore::{Aggregate, Apply, Event, Payload, StreamId, testkit::recorded};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Event, Serialize, Deserialize)]
enum Any {
    Happened,
}

#[derive(Aggregate, Default)]
#[aggregate(category = "a", event = Any)]
struct Thing;

impl Apply<Any> for Thing {
    fn apply(&mut self, _: &Any) {}
}

fn event(position: i64, category: &str, size: usize) -> Recorded {
    let payload = Payload::from_json(format!("\"{}\"", "x".repeat(size))).unwrap();
    let mut event = recorded::<Thing>("k", 1, position, Any::Happened).with_event(payload);
    event.stream = StreamId::new(category, "k").unwrap();
    event
}

/// Adds events as the feed does: pages of so many.
fn filled(events: &[Recorded], from: i64, end: i64, page: usize) -> Latest {
    let mut latest = Latest::begin(Position::new(from));
    let mut rest = events;
    while latest.to() < Position::new(end) {
        let (taken, more) = rest.split_at(page.min(rest.len()));
        latest.add(Part::read(taken.to_vec(), page, Position::new(end)));
        rest = more;
    }
    latest
}

proptest! {
    /// Read part by part from wherever it can be, it is what is there of the categories, each once.
    #[test]
    fn parts_join_without_gap_and_overlap(
        gaps in prop::collection::vec((1_i64..4, 0_usize..3), 0..40),
        from in 1_i64..20,
        page in 1_usize..7,
        limit in 1_usize..7,
        wanted in prop::collection::vec(0_usize..3, 0..3),
    ) {
        const CATEGORIES: [&str; 3] = ["a", "b", "c"];
        let mut position = from;
        let events: Vec<_> = gaps.iter().map(|(gap, category)| {
            position += gap;
            event(position, CATEGORIES[*category], 1)
        }).collect();
        let end = position + 2;
        let latest = filled(&events, from, end, page);
        let categories: Vec<_> = wanted.iter().map(|n| CATEGORIES[*n].to_owned()).collect();
        prop_assert!(latest.part(&categories, Position::new(from - 1), limit).is_none());
        for start in from..=end {
            let (mut after, mut found) = (Position::new(start), Vec::new());
            loop {
                let part = latest.part(&categories, after, limit).unwrap();
                prop_assert!(part.events.len() <= limit);
                prop_assert_eq!(part.more, part.to < Position::new(end));
                found.extend(part.events);
                if !part.more { break }
                prop_assert!(part.to > after, "it stands still");
                after = part.to;
            }
            let expected: Vec<_> = events.iter().filter(|event| {
                event.position.get() > start
                    && categories.iter().any(|category| category == event.stream.category())
            }).cloned().collect();
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn what_is_kept_is_bounded_in_events() {
    let events: Vec<_> = (1..=KEPT as i64 + 500).map(|n| event(n, "a", 1)).collect();
    let latest = filled(&events, 0, KEPT as i64 + 500, 100);
    assert_eq!((latest.events.len(), latest.after), (KEPT, Position::new(500)));
    assert!(latest.part(&["a".to_owned()], Position::new(499), 1).is_none());
    assert_eq!(latest.part(&["a".to_owned()], Position::new(500), 1).unwrap().to.get(), 501);
}

#[test]
fn what_is_kept_and_what_is_taken_is_bounded_in_bytes() {
    const LARGE: usize = 1 << 20;
    let events: Vec<_> = (1..=100).map(|n| event(n, "a", LARGE)).collect();
    let latest = filled(&events, 0, 100, 4);
    assert!(latest.bytes <= KEPT_BYTES);
    assert_eq!(latest.bytes, latest.events.iter().map(size).sum::<usize>());
    let after = latest.after;
    assert!(after.get() >= 68, "{after}");
    let part = latest.part(&["a".to_owned()], after, 1000).unwrap();
    assert!(size_of(&part.events) < PAGE_BYTES + LARGE + 2);
    assert!(part.more && part.to == part.events.last().unwrap().position);
    // One that is larger than all that may be taken is taken alone.
    let latest = filled(&[event(1, "a", PAGE_BYTES), event(2, "a", 1)], 0, 2, 1);
    let part = latest.part(&["a".to_owned()], Position::START, 1000).unwrap();
    assert_eq!((part.events.len(), part.to.get(), part.more), (1, 1, true));
}
