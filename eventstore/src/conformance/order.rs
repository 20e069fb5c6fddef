//! What readers see, and when, while others append.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use annals_eventstore::{Append, Error, EventStore, ExpectedVersion, Position, StreamId, Version};
use futures::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    history::{self, Filter, Recorder, check},
    support::{event, events, log, numbers, one, stream},
};

const CATEGORIES: [&str; 2] = ["thing", "other"];

/// Appends to a few streams that all writers share; some appends are refused.
async fn write(
    store: EventStore,
    writer: u64,
    mut recorder: Recorder<Vec<u8>>,
) -> Recorder<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(writer);
    for round in 0..30 {
        let stream = |number: u64| {
            let category = CATEGORIES[number as usize % 2];
            StreamId::new(category, number).unwrap()
        };
        let first = random.random_range(0..6);
        let expected = match random.random_range(0..4) {
            0 => ExpectedVersion::NoStream,
            1 => ExpectedVersion::Exact(Version::new(round)),
            _ => ExpectedVersion::Any,
        };
        let append = Append::to(stream(first), expected, events(0..random.random_range(1..5)));
        let append = match random.random_range(0..3) {
            0 => append.and(stream(first + 1), ExpectedVersion::Any, [event(9)]),
            _ => append,
        };
        let invoked = recorder.invoked(&append);
        let outcome = store.append(append).await;
        recorder.answered(invoked, &outcome);
        match outcome {
            Ok(_) | Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        tokio::task::yield_now().await;
    }
    recorder
}

/// Reads as workers do: page after page from a checkpoint up to the safe position, without pause.
async fn read(
    store: EventStore,
    filter: Filter,
    restarts: u32,
    mut recorder: Recorder<Vec<u8>>,
    all_written: Arc<AtomicBool>,
) -> Recorder<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(restarts.into());
    let categories = filter.categories().map(<[_]>::to_vec);
    let mut checkpoint = Position::START;
    recorder.started(checkpoint, &filter);
    loop {
        // Asked before the position: what was written by then is below it.
        let last_poll = all_written.load(Ordering::Relaxed);
        let safe = store.safe_position().await.unwrap();
        while checkpoint < safe {
            let limit = random.random_range(1..40);
            let page = store.read_page(categories.as_deref(), checkpoint, safe, limit).await;
            let page = page.unwrap();
            let up_to = match page.last() {
                Some(last) if page.len() == limit => last.position,
                _ => safe,
            };
            if restarts > 0 && random.random_ratio(1, 1 + restarts) {
                // What it has just read is forgotten before it is noted, as by a crash.
                recorder.started(checkpoint, &filter);
                continue;
            }
            recorder.page(checkpoint, up_to, &page);
            checkpoint = up_to;
        }
        if last_poll {
            return recorder;
        }
        tokio::task::yield_now().await;
    }
}

/// Ten writers against four readers, judged by the checker of histories.
pub(crate) async fn readers_see_every_event_once_and_in_order(store: &EventStore) {
    let start = Instant::now();
    let all_written = Arc::new(AtomicBool::new(false));
    let of = |name: &str| Filter::Categories(vec![name.to_owned()]);
    let filters = [(Filter::All, 0), (Filter::All, 3), (of("thing"), 0), (of("other"), 2)];
    let readers: Vec<_> = filters
        .into_iter()
        .enumerate()
        .map(|(number, (filter, restarts))| {
            let recorder = Recorder::new(format!("reader {number}"), start, Vec::new());
            let stop = Arc::clone(&all_written);
            tokio::spawn(read(store.clone(), filter, restarts, recorder, stop))
        })
        .collect();
    let writers = (0..10).map(|writer| {
        let recorder = Recorder::new(format!("writer {writer}"), start, Vec::new());
        tokio::spawn(write(store.clone(), writer, recorder))
    });
    let mut written = Vec::new();
    for writer in join_all(writers).await {
        written.extend(writer.unwrap().finish().unwrap());
    }
    all_written.store(true, Ordering::Relaxed);
    for reader in join_all(readers).await {
        written.extend(reader.unwrap().finish().unwrap());
    }
    let mut last = Recorder::new("log", start, Vec::new());
    last.log(&log(store).await);
    written.extend(last.finish().unwrap());
    let verdict = check(&history::read(&written[..]).unwrap());
    assert!(verdict.is_sound(), "{verdict}");
    assert!(verdict.acknowledged > 100 && verdict.refused > 30, "too little happened: {verdict}");
}

/// Refused appends may draw positions or not; readers pass them at once.
pub(crate) async fn a_refused_append_holds_no_reader_back(store: &EventStore) {
    for round in 0..20 {
        let refused = [
            Append::to(stream("a"), ExpectedVersion::Exact(Version::new(1000)), [event(-1)]),
            one(stream("b"), -1).and(stream("a"), ExpectedVersion::NoStream, [event(-1)]),
        ];
        let before = store.append(one(stream("a"), 2 * round)).await.unwrap();
        for append in refused {
            let outcome = store.append(append).await;
            assert!(matches!(outcome, Err(Error::Conflict { .. })), "{outcome:?}");
        }
        assert!(store.safe_position().await.unwrap() >= before.last_position);
        let after = store.append(one(stream("a"), 2 * round + 1)).await.unwrap();
        assert!(after.first_position > before.last_position);
        assert!(store.safe_position().await.unwrap() >= after.last_position);
        assert!(numbers(&log(store).await).into_iter().eq(0..2 * round + 2));
    }
}

pub(crate) async fn a_reader_of_one_category_passes_what_it_does_not_match(store: &EventStore) {
    let other = ["other".to_owned()];
    for number in 0..10 {
        store.append(one(stream("a"), number)).await.unwrap();
    }
    let safe = store.safe_position().await.unwrap();
    let page = store.read_page(Some(&other), Position::START, safe, 5).await.unwrap();
    assert!(page.is_empty(), "{page:?}");
    // From where it has come to, it finds what it waits for, and has no way to go again.
    let wanted = one(StreamId::new("other", "a").unwrap(), 10);
    let found = store.append(wanted).await.unwrap().last_position;
    store.append(one(stream("a"), 11)).await.unwrap();
    let next = store.safe_position().await.unwrap();
    let page = store.read_page(Some(&other), safe, next, 5).await.unwrap();
    assert_eq!(page.iter().map(|event| event.position).collect::<Vec<_>>(), [found]);
    assert!(next > found);
}

pub(crate) async fn a_reader_that_starts_again_repeats_and_skips_nothing(store: &EventStore) {
    let mut seen = Vec::new();
    let mut checkpoint = Position::START;
    for round in 0..25 {
        let first = round * 10;
        let streams = [stream(round % 3), StreamId::new("other", round % 2).unwrap()];
        let [a, b] = streams;
        let append = Append::to(a, ExpectedVersion::Any, events(first..first + 7)).and(
            b,
            ExpectedVersion::Any,
            events(first + 7..first + 10),
        );
        store.append(append).await.unwrap();
        // Each time a new reader, which stops within what there is to read.
        let safe = store.safe_position().await.unwrap();
        for limit in [1, 3, 4] {
            let page = store.read_page(None, checkpoint, safe, limit).await.unwrap();
            checkpoint = page.last().map_or(checkpoint, |last| last.position);
            seen.extend(numbers(&page));
        }
    }
    let safe = store.safe_position().await.unwrap();
    let rest = store.read_page(None, checkpoint, safe, 1000).await.unwrap();
    seen.extend(numbers(&rest));
    assert!(seen.into_iter().eq(0..250));
}
