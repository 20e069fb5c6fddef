use proptest::{prelude::*, sample::Index};

use super::*;

fn at(position: i64, offset: i64) -> Entry<Option<()>> {
    Entry { position: Position::new(position), offset, bytes: 1, event: Some(()) }
}

fn positions(taken: Option<Taken<()>>) -> Option<(Vec<i64>, i64)> {
    let Taken { events, end } = taken?;
    Some((events.iter().map(|(_, entry)| entry.position.get()).collect(), end.get()))
}

fn all<E>(merge: &mut Merge<E>) -> Option<Taken<E>> {
    merge.take(usize::MAX, usize::MAX)
}

#[test]
fn an_event_waits_for_those_before_it_in_other_lanes() {
    let mut merge = Merge::after(Position::START);
    let (a, b) = (merge.add_lane(0), merge.add_lane(0));
    merge.know(Position::new(4), [(a, 2), (b, 1)]);
    merge.read(a, at(2, 0));
    assert_eq!(all(&mut merge), None, "b may still hold 1");
    merge.read(b, at(1, 0));
    assert_eq!(positions(all(&mut merge)), Some((vec![1, 2], 2)), "a may still hold 3");
    merge.read(a, at(4, 1));
    assert_eq!(positions(all(&mut merge)), Some((vec![4], 4)));
    assert!(!merge.is_behind());
}

#[test]
fn an_idle_lane_holds_nobody_up() {
    let mut merge = Merge::after(Position::new(10));
    let (a, b) = (merge.add_lane(5), merge.add_lane(7));
    merge.read(a, at(12, 5));
    assert_eq!(all(&mut merge), None, "nobody says that b holds nothing");
    merge.know(Position::new(15), [(a, 6)]);
    assert_eq!(positions(all(&mut merge)), Some((vec![12], 15)));
    merge.know(Position::new(20), []);
    assert_eq!(positions(all(&mut merge)), Some((vec![], 20)));
    assert_eq!((merge.resume(a), merge.resume(b)), (6, 7));
}

#[test]
fn records_without_events_count_as_read() {
    let mut merge = Merge::<()>::after(Position::START);
    let a = merge.add_lane(0);
    merge.know(Position::new(3), [(a, 9)]);
    assert_eq!((merge.is_behind(), merge.lag()), (true, 9));
    merge.reach(a, 9);
    assert_eq!(positions(all(&mut merge)), Some((vec![], 3)));
    assert_eq!((merge.is_behind(), merge.lag()), (false, 0));
}

#[test]
fn what_is_ahead_of_the_publishers_word_waits() {
    let mut merge = Merge::after(Position::START);
    let a = merge.add_lane(0);
    merge.know(Position::new(1), [(a, 1)]);
    merge.read(a, at(1, 0));
    // A topic that nobody has heard of may hold 2.
    merge.read(a, at(3, 1));
    assert_eq!(positions(all(&mut merge)), Some((vec![1], 1)));
    assert_eq!(all(&mut merge), None);
    assert_eq!(merge.resume(a), 1);
}

/// Where a lane's records lie, a log is published into lanes, and what the publisher says of it.
#[derive(Clone, Debug)]
struct Published {
    /// Of each lane, the positions in the order of offsets; `None` is a record without an event.
    lanes: Vec<Vec<Option<i64>>>,
    /// Up to which position all is published, and where each lane ended then.
    marks: Vec<(i64, Vec<i64>)>,
    log: Vec<i64>,
}

#[derive(Clone, Debug)]
enum Batch {
    /// So many events go to these lanes, with holes before them, and a mark follows.
    Whole(Vec<(u8, Index)>),
    /// The same, but the publisher is killed before the mark, and begins again behind the last one.
    Cut(Vec<(u8, Index)>),
    /// A record without an event in a lane, such as the end of a transaction.
    Control(Index),
}

fn published() -> impl Strategy<Value = Published> {
    let events = || prop::collection::vec((0_u8..3, any::<Index>()), 0..6);
    let batch = prop_oneof![
        4 => events().prop_map(Batch::Whole),
        1 => events().prop_map(Batch::Cut),
        1 => any::<Index>().prop_map(Batch::Control),
    ];
    (1_usize..5, prop::collection::vec(batch, 0..20)).prop_map(|(lanes, batches)| {
        let mut all = Published { lanes: vec![vec![]; lanes], marks: vec![], log: vec![] };
        let mut position = 0;
        // What was sent and not confirmed: it is sent again.
        let mut unconfirmed: Vec<(i64, usize)> = vec![];
        for batch in batches {
            let (events, is_cut) = match batch {
                Batch::Control(lane) => {
                    all.lanes[lane.index(lanes)].push(None);
                    continue;
                }
                Batch::Whole(events) => (events, false),
                Batch::Cut(events) => (events, true),
            };
            for (position, lane) in &unconfirmed {
                all.lanes[*lane].push(Some(*position));
            }
            for (hole, lane) in events {
                position += 1 + i64::from(hole);
                let lane = lane.index(lanes);
                all.log.push(position);
                all.lanes[lane].push(Some(position));
                unconfirmed.push((position, lane));
            }
            if !is_cut {
                unconfirmed.clear();
                let ends = all.lanes.iter().map(|lane| lane.len() as i64).collect();
                all.marks.push((position, ends));
            }
        }
        all
    })
}

/// A step of the reader.
#[derive(Clone, Debug)]
enum Step {
    Read(Index),
    Mark,
    Take(usize),
    /// It dies and begins again where it last took something.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<Index>().prop_map(Step::Read),
        2 => Just(Step::Mark),
        3 => (1_usize..9).prop_map(Step::Take),
        1 => Just(Step::Restart),
    ]
}

/// A reader of what was published, and what it has taken.
struct Reader<'a> {
    published: &'a Published,
    merge: Merge<()>,
    marks: usize,
    taken: Vec<i64>,
    resume: (Position, Vec<i64>),
}

impl<'a> Reader<'a> {
    fn new(published: &'a Published) -> Self {
        let resume = (Position::START, vec![0; published.lanes.len()]);
        let merge = Merge::after(Position::START);
        let mut reader = Self { published, merge, marks: 0, taken: vec![], resume };
        reader.restart();
        reader
    }

    fn restart(&mut self) {
        self.merge = Merge::after(self.resume.0);
        for offset in &self.resume.1 {
            self.merge.add_lane(*offset);
        }
        // It finds the last mark that there was.
        if let Some((known, ends)) = self.marks.checked_sub(1).map(|n| &self.published.marks[n]) {
            self.merge.know(Position::new(*known), ends.iter().copied().enumerate());
        }
    }

    fn read(&mut self, lane: usize) -> bool {
        let offset = self.merge.reached(lane);
        let Some(record) = self.published.lanes[lane].get(offset as usize) else { return false };
        match record {
            Some(position) => self.merge.read(lane, at(*position, offset)),
            None => self.merge.reach(lane, offset + 1),
        }
        true
    }

    fn mark(&mut self) -> bool {
        let Some((known, ends)) = self.published.marks.get(self.marks) else { return false };
        let before = self.marks.checked_sub(1).map(|n| &self.published.marks[n].1);
        // It names those lanes only that have moved.
        let moved = ends
            .iter()
            .enumerate()
            .filter(|(lane, end)| before.map_or(0, |before| before[*lane]) != **end);
        self.merge.know(Position::new(*known), moved.map(|(lane, end)| (lane, *end)));
        self.marks += 1;
        true
    }

    fn take(&mut self, limit: usize) -> Result<bool, TestCaseError> {
        let before = self.merge.end();
        let Some(Taken { events, end }) = self.merge.take(limit, usize::MAX) else {
            return Ok(false);
        };
        prop_assert!(end > before && events.len() <= limit);
        let positions: Vec<_> = events.iter().map(|(_, entry)| entry.position.get()).collect();
        let log = self.published.log.iter();
        let expected: Vec<_> =
            log.filter(|position| (before.get() + 1..=end.get()).contains(position)).collect();
        prop_assert_eq!(positions.iter().collect::<Vec<_>>(), expected, "up to {}", end);
        self.taken.extend(positions);
        let lanes = 0..self.merge.lanes();
        self.resume = (end, lanes.map(|lane| self.merge.resume(lane)).collect());
        Ok(true)
    }

    fn finish(&mut self) -> Result<(), TestCaseError> {
        while (0..self.merge.lanes()).any(|lane| self.read(lane)) || self.mark() {}
        while self.take(3)? {}
        let known = self.published.marks.last().map_or(0, |(known, _)| *known);
        let log = self.published.log.iter().filter(|position| **position <= known);
        prop_assert_eq!(&self.taken, &log.copied().collect::<Vec<_>>());
        prop_assert_eq!(self.merge.end().get(), known);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// However records, marks, takes and restarts follow each other: each page is exactly what the log
    /// holds between its ends, and nothing is taken twice.
    #[test]
    fn what_is_taken_is_the_log_in_order(
        published in published(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut reader = Reader::new(&published);
        for step in steps {
            match step {
                Step::Read(lane) => {
                    let lane = lane.index(reader.merge.lanes());
                    reader.read(lane);
                }
                Step::Mark => {
                    reader.mark();
                }
                Step::Take(limit) => {
                    reader.take(limit)?;
                }
                Step::Restart => reader.restart(),
            }
            let (events, bytes) = reader.merge.waiting();
            prop_assert_eq!(events, bytes, "each counts as one byte");
        }
        reader.finish()?;
    }
}
