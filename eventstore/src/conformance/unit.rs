//! Units of work: several aggregates and appends, recorded together or not at all.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use annals_eventstore::{
    Aggregate, Append, Apply, Envelope, Error, EventStore, ExecuteError, ExpectedVersion, Metadata,
    NewEvent, Position, Version,
};
use futures::future::join_all;

use super::support::{
    assert_sound,
    counter::{BelowZero, Change, Counter, CounterEvent, counter, load},
    events, history, log, numbers, one, stream,
};

/// Another aggregate over the same streams.
#[derive(Aggregate, Default)]
#[aggregate(category = "counter", event = CounterEvent, error = BelowZero)]
struct Peak {
    total: i64,
    highest: i64,
}

impl Apply<CounterEvent> for Peak {
    fn apply(&mut self, event: &CounterEvent) {
        if let CounterEvent::Changed { by } = event {
            self.total += by;
            self.highest = self.highest.max(self.total);
        }
    }
}

fn changed(by: i64) -> NewEvent {
    NewEvent::of(&CounterEvent::Changed { by }).unwrap()
}

pub(crate) async fn commands_on_several_aggregates_are_recorded_together(store: &EventStore) {
    store.execute(Change::new("b", [7])).await.unwrap();
    let mut unit = store.begin().await.unwrap();
    let first = unit.execute(Change::new("a", [5, 1])).await.unwrap();
    let said = Envelope::new(Change::new("b", [-3])).metadata(Metadata::new().actor("clerk"));
    let second = unit.execute(said).await.unwrap();
    assert_eq!((first.stream, first.version, first.events), (counter("a"), Version::new(2), 2));
    assert_eq!((second.version, second.events, second.replayed), (Version::new(2), 1, false));
    assert_eq!(log(store).await.len(), 1, "nothing is recorded before the commit");
    let committed = unit.commit().await.unwrap();

    let log = log(store).await;
    assert_sound(&log);
    assert_eq!(committed.first_position, log[1].position);
    assert_eq!(committed.last_position, log[3].position);
    let streams: Vec<_> = log[1..].iter().map(|event| event.stream.key()).collect();
    assert_eq!(streams, ["a", "a", "b"]);
    assert_eq!(log[3].metadata.actor.as_deref(), Some("clerk"));
    let versions = [(counter("a"), Version::new(2)), (counter("b"), Version::new(2))];
    assert_eq!(committed.versions, versions);
    let positions: Vec<_> = committed.commands.iter().map(|command| command.position).collect();
    assert_eq!(positions, [log[2].position, log[3].position]);
    assert_eq!((load(store, "a").await.state.total, load(store, "b").await.state.total), (6, 4));
}

pub(crate) async fn a_unit_sees_its_own_events(store: &EventStore) {
    store.execute(Change::new("a", [5])).await.unwrap();
    let mut unit = store.begin().await.unwrap();
    unit.execute(Change::new("a", [-4])).await.unwrap();
    let rejected = unit.execute(Change::new("a", [-2])).await;
    assert!(matches!(rejected, Err(ExecuteError::Rejected(BelowZero { total: 1, by: -2 }))));
    let raw = Append::to(counter("a"), ExpectedVersion::Exact(Version::new(2)), [changed(20)]);
    unit.append(raw).await.unwrap();
    // Another aggregate over the same stream, and the one loaded before, see all of it.
    let peak = unit.load::<Peak>("a").await.unwrap().unwrap();
    assert_eq!((peak.state.highest, peak.version), (21, Version::new(3)));
    unit.execute(Change::new("a", [-21])).await.unwrap();
    let peak = unit.load::<Peak>("a").await.unwrap().unwrap();
    assert_eq!((peak.state.total, peak.state.highest), (0, 21));
    let outcomes = unit.commit().await.unwrap().commands;
    let versions: Vec<_> = outcomes.iter().map(|command| command.version.get()).collect();
    assert_eq!(versions, [2, 4], "a rejected command has no outcome");
    let loaded = load(store, "a").await;
    assert_eq!((loaded.state.total, loaded.version), (0, Version::new(4)));
}

pub(crate) async fn what_is_dropped_or_rolled_back_leaves_nothing(store: &EventStore) {
    for round in 0..3 {
        let mut unit = store.begin().await.unwrap();
        let said = Envelope::new(Change::new("a", [1])).idempotency_key("key");
        unit.execute(said).await.unwrap();
        unit.append(one(stream("b"), 1)).await.unwrap();
        assert_eq!(unit.idempotency_key("whole", &round).await.unwrap(), None);
        if round == 0 { drop(unit) } else { unit.rollback().await.unwrap() }
    }
    assert!(log(store).await.is_empty());
    let done = store.execute(Envelope::new(Change::new("a", [2])).idempotency_key("key")).await;
    assert!(!done.unwrap().replayed, "the key is free");
}

pub(crate) async fn a_unit_rests_on_all_that_it_loaded(store: &EventStore) {
    store.execute(Change::new("read", [1])).await.unwrap();
    for key in ["read", "not there"] {
        let mut unit = store.begin().await.unwrap();
        let seen = unit.load::<Counter>(key).await.unwrap().map(|loaded| loaded.state.total);
        assert_eq!(seen, (key == "read").then_some(1));
        unit.execute(Change::new("written", [1])).await.unwrap();
        store.execute(Change::new(key, [1])).await.unwrap();
        match unit.commit().await {
            Err(Error::Conflict { stream, actual, .. }) => {
                assert_eq!(stream, counter(key));
                assert_eq!(actual.get(), if key == "read" { 2 } else { 1 });
            }
            other => panic!("{key}: {other:?}"),
        }
        assert!(store.load::<Counter>("written").await.unwrap().is_none());
    }
    // Also what a rejected command and one without events looked at.
    for by in [-100, 0] {
        let mut unit = store.begin().await.unwrap();
        let by = if by == 0 { vec![] } else { vec![by] };
        drop(unit.execute(Change::new("read", by)).await);
        unit.execute(Change::new("written", [1])).await.unwrap();
        store.execute(Change::new("read", [1])).await.unwrap();
        assert!(matches!(unit.commit().await, Err(Error::Conflict { .. })));
    }
    // What was loaded past the unit is of no account.
    let mut unit = store.begin().await.unwrap();
    store.load::<Counter>("read").await.unwrap();
    unit.execute(Change::new("written", [1])).await.unwrap();
    store.execute(Change::new("read", [1])).await.unwrap();
    unit.commit().await.unwrap();
}

pub(crate) async fn a_unit_that_only_reads_holds_what_it_read(store: &EventStore) {
    let end = store.execute(Change::new("a", [1])).await.unwrap().position;
    let mut unit = store.begin().await.unwrap();
    unit.load::<Counter>("a").await.unwrap();
    unit.load::<Counter>("b").await.unwrap();
    let committed = unit.commit().await.unwrap();
    assert!(committed.commands.is_empty() && committed.versions.is_empty());
    assert_eq!(committed.first_position, Position::START);
    assert_eq!(committed.last_position, Position::START);
    assert_eq!(store.safe_position().await.unwrap(), end, "no position is drawn for it");
    let mut unit = store.begin().await.unwrap();
    unit.load::<Counter>("a").await.unwrap();
    store.execute(Change::new("a", [1])).await.unwrap();
    assert!(matches!(unit.commit().await, Err(Error::Conflict { .. })));
    store.begin().await.unwrap().commit().await.unwrap();
}

pub(crate) async fn expectations_are_of_what_the_unit_sees(store: &EventStore) {
    use ExpectedVersion::{Any, Exact, Exists, NoStream};
    store.append(one(stream("there"), 0)).await.unwrap();
    let exact = |version| Exact(Version::new(version));
    // Each: the stream, the expectations of two appends to it, and when a wrong one shows: at the
    // second append, at the commit, or never.
    for (number, (key, first, second, shows)) in [
        ("there", Any, exact(2), "never"),
        ("there", Any, exact(3), "commit"),
        ("there", Any, exact(0), "append"),
        ("there", Any, NoStream, "append"),
        ("there", exact(1), exact(2), "never"),
        ("there", exact(1), exact(1), "append"),
        ("there", exact(1), Exists, "never"),
        ("there", Exists, exact(1), "append"),
        ("there", Exists, exact(2), "never"),
        ("there", NoStream, Exists, "commit"),
        ("new", NoStream, exact(1), "never"),
        ("new", NoStream, NoStream, "append"),
        ("new", Any, exact(1), "never"),
        ("new", Any, Exists, "never"),
        ("new", Exists, Any, "commit"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{key} {number}");
        if key == "there" {
            store.append(one(stream(&name), 0)).await.unwrap();
        }
        let mut unit = store.begin().await.unwrap();
        unit.append(Append::to(stream(&name), first, events([1]))).await.unwrap();
        let appended = unit.append(Append::to(stream(&name), second, events([2]))).await;
        let shown = matches!(appended, Err(Error::Conflict { .. }));
        assert_eq!(shown, shows == "append", "{first}, {second}: {appended:?}");
        let committed = unit.commit().await;
        let is_conflict = matches!(committed, Err(Error::Conflict { .. }));
        assert_eq!(is_conflict, shows != "never", "{first}, {second}: {committed:?}");
        let expected = if is_conflict { vec![] } else { vec![1, 2] };
        let found = numbers(&history(store, &stream(&name)).await);
        assert_eq!(found[usize::from(key == "there")..], expected, "{first}, {second}");
    }
}

pub(crate) async fn a_bad_append_leaves_the_unit_as_it_was(store: &EventStore) {
    let mut unit = store.begin().await.unwrap();
    unit.append(one(stream("a"), 1)).await.unwrap();
    let empty = Append::to(stream("a"), ExpectedVersion::Any, []);
    assert!(matches!(unit.append(empty).await, Err(Error::InvalidAppend { .. })));
    let nul = Append::to(stream("a"), ExpectedVersion::Any, events([2])).and(
        stream("b"),
        ExpectedVersion::Any,
        [super::support::json(r#"{"text":"\u0000"}"#)],
    );
    assert!(matches!(unit.append(nul).await, Err(Error::InvalidAppend { .. })));
    unit.append(one(stream("b"), 3)).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!(numbers(&log(store).await), [1, 3]);
}

pub(crate) async fn keys_of_commands_count_in_a_unit(store: &EventStore) {
    let keyed = |by: i64, key: &str| Envelope::new(Change::new("a", [by])).idempotency_key(key);
    store.execute(keyed(1, "known")).await.unwrap();
    let mut unit = store.begin().await.unwrap();
    let known = unit.execute(keyed(1, "known")).await.unwrap();
    assert!(known.replayed);
    let first = unit.execute(keyed(2, "new")).await.unwrap();
    let again = unit.execute(keyed(2, "new")).await.unwrap();
    assert_eq!((first.replayed, again.replayed, again.version), (false, true, first.version));
    for (by, key) in [(9, "known"), (9, "new")] {
        let reused = unit.execute(keyed(by, key)).await;
        assert!(matches!(reused, Err(ExecuteError::Failed(Error::KeyReused { .. }))));
    }
    let append = one(stream("b"), 4).idempotency_key("append");
    unit.append(append.clone()).await.unwrap();
    let commands = unit.commit().await.unwrap().commands;
    let log = log(store).await;
    let positions: Vec<_> = commands.iter().map(|command| command.position).collect();
    assert_eq!(positions, [log[0].position, log[1].position, log[1].position]);
    assert_eq!(log.len(), 3);
    // And afterwards, in and out of units.
    assert_eq!(store.execute(keyed(2, "new")).await.unwrap().position, log[1].position);
    let appended = store.append(append.clone()).await.unwrap();
    assert_eq!((appended.replayed, appended.first_position), (true, log[2].position));
    let mut unit = store.begin().await.unwrap();
    unit.append(append).await.unwrap();
    unit.commit().await.unwrap();
    assert_eq!(super::support::log(store).await.len(), 3);
}

pub(crate) async fn a_unit_under_a_key_is_done_once(store: &EventStore) {
    let transfer = async |by: i64| {
        store
            .transact(async move |unit| {
                if let Some(position) = unit.idempotency_key("transfer", &by).await? {
                    return Ok(Some(position));
                }
                unit.execute(Change::new("a", [by])).await?;
                unit.append(one(stream("b"), by)).await?;
                Ok::<_, ExecuteError<BelowZero>>(None)
            })
            .await
    };
    let (done, committed) = transfer(5).await.unwrap();
    assert_eq!(done, None);
    let (again, nothing) = transfer(5).await.unwrap();
    assert_eq!(again, Some(committed.last_position));
    assert!(nothing.commands.is_empty());
    assert!(matches!(transfer(6).await, Err(ExecuteError::Failed(Error::KeyReused { .. }))));
    assert_eq!(log(store).await.len(), 2);
    // It must have something to hang on to.
    let mut unit = store.begin().await.unwrap();
    unit.idempotency_key("nothing", &()).await.unwrap();
    assert!(matches!(unit.commit().await, Err(Error::InvalidAppend { .. })));
}

pub(crate) async fn concurrent_units_under_one_key_are_recorded_once(store: &EventStore) {
    let tasks = (0..8).map(|_| {
        let (store, content) = (store.clone(), "content".to_owned());
        // In a task, where it must be Send: with `async move`, also with something captured.
        tokio::spawn(async move {
            let done = store.transact(async move |unit| {
                if unit.idempotency_key("key", &content).await?.is_none() {
                    unit.append(one(stream("a"), 1)).await?;
                }
                Ok::<_, Error>(())
            });
            done.await.unwrap();
        })
    });
    join_all(tasks).await.into_iter().for_each(Result::unwrap);
    assert_eq!(log(store).await.len(), 1);
}

pub(crate) async fn a_unit_that_was_overtaken_under_its_key_is_not_refused(store: &EventStore) {
    // It cannot be done twice.
    let empty = || Change::new("a", [-10]);
    store.execute(Change::new("a", [10])).await.unwrap();
    let begun = async || {
        let mut unit = store.begin().await.unwrap();
        assert!(unit.idempotency_key("empty a", &"all").await.unwrap().is_none());
        unit
    };
    let (mut first, mut second) = (begun().await, begun().await);
    first.execute(empty()).await.unwrap();
    first.commit().await.unwrap();
    let error = second.execute(empty()).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Failed(Error::KeyInFlight)), "{error:?}");
    drop(second);

    // Done again, it finds what the first has done.
    let (other, times) = (store.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = times.clone();
    store.execute(Change::new("b", [5])).await.unwrap();
    let (was_done, _) = store
        .transact(async move |unit| {
            if unit.idempotency_key("empty b", &"all").await?.is_some() {
                return Ok(true);
            }
            if counted.fetch_add(1, Ordering::Relaxed) == 0 {
                let mut first = other.begin().await?;
                assert!(first.idempotency_key("empty b", &"all").await?.is_none());
                first.execute(Change::new("b", [-5])).await?;
                first.commit().await?;
            }
            unit.execute(Change::new("b", [-5])).await?;
            Ok::<_, ExecuteError<BelowZero>>(false)
        })
        .await
        .unwrap();
    assert!(was_done);
    assert_eq!((times.load(Ordering::Relaxed), log(store).await.len()), (1, 4));
}

pub(crate) async fn concurrent_transfers_keep_the_sum(store: &EventStore) {
    const COUNTERS: i64 = 4;
    for key in 0..COUNTERS {
        store.execute(Change::new(key, [100])).await.unwrap();
    }
    let tasks = (0..6i64).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut moved = 0;
            for round in 0..15 {
                let (from, to) = ((task + round) % COUNTERS, (task + 3 * round + 1) % COUNTERS);
                if from == to {
                    continue;
                }
                let by = 10 + task;
                loop {
                    let result = store
                        .transact(async move |unit| {
                            unit.execute(Change::new(from, [-by])).await?;
                            unit.execute(Change::new(to, [by])).await
                        })
                        .await;
                    match result {
                        Ok(_) => moved += 1,
                        Err(ExecuteError::Rejected(_)) => {}
                        // Many at a time may lose more often than the store tries.
                        Err(ExecuteError::Failed(Error::Conflict { .. })) => continue,
                        Err(error) => panic!("{error:?}"),
                    }
                    break;
                }
            }
            moved
        })
    });
    let moved: i32 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    assert!(moved > 0);
    let log = log(store).await;
    assert_sound(&log);
    assert_eq!(log.len(), COUNTERS as usize + 2 * moved as usize);
    let mut sum = 0;
    for key in 0..COUNTERS {
        let total = load(store, &key.to_string()).await.state.total;
        assert!(total >= 0);
        sum += total;
    }
    assert_eq!(sum, 100 * COUNTERS);
    // The two halves of a transfer stand side by side.
    for pair in log[COUNTERS as usize..].chunks(2) {
        assert_eq!(pair[1].position.get(), pair[0].position.get() + 1);
    }
}

pub(crate) async fn a_unit_is_done_again_after_a_conflict_only(store: &EventStore) {
    tokio::spawn(done_again_after_a_conflict_only(store.clone())).await.unwrap();
}

async fn done_again_after_a_conflict_only(store: EventStore) {
    let tries = Arc::new(AtomicUsize::new(0));
    // Owned by the closures: only so are their futures known to be Send.
    let (tried, other) = (tries.clone(), store.clone());
    let (seen, committed) = store
        .transact(async move |unit| {
            let seen = unit.load::<Counter>("a").await?.map_or(0, |loaded| loaded.state.total);
            if tried.fetch_add(1, Ordering::Relaxed) < 2 {
                other.execute(Change::new("a", [1])).await?;
            }
            unit.execute(Change::new("b", [seen])).await?;
            Ok::<_, ExecuteError<BelowZero>>(seen)
        })
        .await
        .unwrap();
    assert_eq!((seen, tries.swap(0, Ordering::Relaxed)), (2, 3));
    assert_eq!(committed.commands.len(), 1);
    assert_eq!(load(&store, "b").await.state.total, 2);

    let tried = tries.clone();
    let rejected = store.transact(async move |unit| {
        tried.fetch_add(1, Ordering::Relaxed);
        unit.execute(Change::new("a", [1])).await?;
        unit.execute(Change::new("b", [-100])).await
    });
    assert!(matches!(rejected.await, Err(ExecuteError::Rejected(_))));
    assert_eq!(tries.swap(0, Ordering::Relaxed), 1);
    assert_eq!(load(&store, "a").await.state.total, 2, "the other command went with it");

    let (tried, other) = (tries.clone(), store.clone());
    let always = store.transact(async move |unit| {
        tried.fetch_add(1, Ordering::Relaxed);
        unit.load::<Counter>("a").await?;
        other.execute(Change::new("a", [1])).await?;
        Ok::<_, ExecuteError<BelowZero>>(())
    });
    assert!(matches!(always.await, Err(ExecuteError::Failed(Error::Conflict { .. }))));
    assert_eq!(tries.load(Ordering::Relaxed), 20, "as often as a command is tried");
}

pub(crate) async fn limits_hold_for_the_unit_as_a_whole(store: &EventStore) {
    let mut unit = store.begin().await.unwrap();
    for _ in 0..2 {
        let append = Append::to(stream("a"), ExpectedVersion::Any, events(0..40_000));
        unit.append(append).await.unwrap();
    }
    let more = Append::to(stream("b"), ExpectedVersion::Any, events(0..40_000));
    assert!(matches!(unit.append(more).await, Err(Error::InvalidAppend { .. })));
    let command = unit.execute(Change::new("c", vec![1; 20_001])).await;
    assert!(matches!(command, Err(ExecuteError::Failed(Error::InvalidAppend { .. }))));
    unit.rollback().await.unwrap();
}
