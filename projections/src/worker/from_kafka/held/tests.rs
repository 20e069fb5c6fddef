use annals_eventstore::{Aggregate, Apply, Event, Payload, testkit::recorded};
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

fn event(position: i64) -> Recorded {
    let payload = Payload::from_json("1").unwrap();
    recorded::<Thing>("k", 1, position, Any::Happened).with_event(payload)
}

/// Where a page's offsets lead: of the first partition as many as its end says, the second stands still.
fn offsets(end: i64) -> Offsets {
    Offsets::from([(("t".to_owned(), 0), end), (("t".to_owned(), 1), 7)])
}

fn positions(events: &[Recorded]) -> Vec<i64> {
    events.iter().map(|event| event.position.get()).collect()
}

proptest! {
    /// Whatever is applied, undone and asked for again, each event is given once behind the checkpoint, in order, and
    /// the offsets that are kept are those of a page that is dealt with.
    #[test]
    fn parts_join_and_offsets_never_run_ahead(
        pages in prop::collection::vec((0_i64..4, 0_i64..3), 1..12),
        begun in 0_i64..8,
        steps in prop::collection::vec((1_usize..6, any::<bool>()), 1..60),
    ) {
        let mut held = Held::after(Position::new(begun));
        let (mut end, mut all) = (0, Vec::new());
        for (events, gap) in pages {
            let events: Vec<_> = (1..=events).map(|n| event(end + n)).collect();
            all.extend(positions(&events));
            end = events.last().map_or(end, |last| last.position.get()) + gap;
            held.put(events, Position::new(end), Some(offsets(end)), Vec::new());
        }
        all.retain(|position| *position > begun);
        let (mut checkpoint, mut applied, mut kept) = (begun, Vec::new(), Offsets::new());
        for (limit, succeeds) in steps {
            let Some(part) = held.part(Position::new(checkpoint), limit) else { break };
            prop_assert!(part.events.len() <= limit && part.to.get() > checkpoint);
            prop_assert_eq!(part.more, part.to.get() < end);
            // What is read ahead is not asked for again in the same way when what came before fails.
            let ahead = held.part(part.to, limit);
            if !succeeds {
                continue;
            }
            drop(ahead);
            applied.extend(positions(&part.events));
            checkpoint = part.to.get();
            if let Some(mark) = part.mark {
                prop_assert!(mark.position <= part.to);
                prop_assert!(mark.offsets.values().all(|next| *next <= mark.position.get().max(7)));
                kept.extend(mark.offsets);
            }
            held.passed(part.to);
            prop_assert!(!held.lacks(Position::new(checkpoint)));
        }
        let expected: Vec<_> =
            all.iter().copied().filter(|position| *position <= checkpoint).collect();
        prop_assert_eq!(applied, expected);
        if checkpoint == end.max(begun) && end > begun {
            prop_assert_eq!(kept, offsets(end), "all offsets are known, also those that stand still");
            prop_assert!(held.part(Position::new(checkpoint), 1).is_none());
            prop_assert_eq!(held.bytes, 0);
        }
    }
}

#[test]
fn what_was_read_before_is_left_out() {
    let mut held = Held::after(Position::new(5));
    assert!(held.lacks(Position::new(4)) && !held.lacks(Position::new(5)));
    held.put(vec![event(3), event(5)], Position::new(5), Some(offsets(5)), Vec::new());
    assert!(held.part(Position::new(5), 9).is_none());
    let origins = [7, 8].map(|offset| Origin { topic: "t".into(), partition: 0, offset });
    held.put(vec![event(4), event(6)], Position::new(6), Some(offsets(6)), origins.to_vec());
    let part = held.part(Position::new(5), 9).unwrap();
    assert_eq!(positions(&part.events), [6]);
    assert_eq!(held.origin(Position::new(6)).unwrap().offset, 8);
    assert_eq!(held.origin(Position::new(4)), None);
}
