//! A worker rebuilds what is not up to date, while the one before it goes on.

use std::time::Duration;

use annals_eventstore::{EventStore, Recorded};
use annals_projections::{Change, ProjectionError, QueryReadModels, control};

use super::{append_many, rebuild};
use crate::support::{
    Running, catch_up,
    database::{TestDatabase, value},
    eventually,
    ledger::{Ledger, LedgerEvent, add},
    load::{Load, seeded},
    oracle::assert_exact,
    worker,
};

/// Programs of different times, with the same table.
macro_rules! release {
    ($name:ident, $by:expr, { $($column:ident: $type:ty),* }, $($attributes:tt)*) => {
        mod $name {
            use annals_projections::{Project, ReadModel};
            use super::*;

            #[derive(ReadModel, Clone, Debug, PartialEq)]
            #[read_model(table = "sums", from(Ledger), $($attributes)*)]
            pub(super) struct Sum {
                #[read_model(key)]
                pub(super) ledger: String,
                pub(super) events: i64,
                $(pub(super) $column: $type,)*
            }

            impl Project<LedgerEvent> for Sum {
                fn project(row: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
                    let ledger = event.stream.key().to_owned();
                    let row = row.unwrap_or(Self { ledger, events: 0, $($column: 0),* });
                    let position = event.position.get();
                    $(let $column = row.$column + <$type>::try_from(position).unwrap();)*
                    Change::Set(Self { events: row.events + $by, $($column,)* ..row })
                }
            }
        }
    };
}
release!(first, 1, { trail: i64 }, version = 1);
release!(recounted, 2, { trail: i64 }, version = 2);
release!(more_columns, 1, { trail: i64, extra: i64 }, version = 1);
release!(renamed, 1, { footprint: i64 }, version = 1);
release!(retyped, 1, { trail: i32 }, version = 1);
release!(with_history, 1, { trail: i64 }, version = 1, history);
release!(in_slices, 1, { trail: i64 }, version = 1, slices = 3);
release!(all_at_once, 2, { trail: i64, extra: i64 }, version = 3, slices = 2, history);
type First = first::Sum;

macro_rules! is_rebuilt_from {
    ($test:ident, $old:ident, $new:ident) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            let database = TestDatabase::create().await;
            let (store, client) = (database.store().await, database.client().await);
            let (seed, mut rng) = seeded();
            append_many(&store, &mut rng, 40).await;
            let mut old = Running::start(worker::<$old::Sum>(&store));
            old.caught_up::<$old::Sum>(&store).await;
            let load = Load::start(&store, seed, 2, 100);
            let mut new = Running::start(worker::<$new::Sum>(&store));
            // Two at once: one of them does it.
            let mut other = Running::start(worker::<$new::Sum>(&store));
            let swapped = || async {
                let replaced = "select count(*) from annals.replaced_projections";
                value::<i64>(&client, replaced).await == 1
            };
            eventually("it is swapped", swapped).await;
            load.done().await;
            new.caught_up::<$new::Sum>(&store).await;
            other.caught_up::<$new::Sum>(&store).await;
            assert_exact::<$new::Sum>(&store, &client).await;
            // The old one stands by; it does not rebuild its own back.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            add(&store, "a", 1).await;
            new.caught_up::<$new::Sum>(&store).await;
            assert_exact::<$new::Sum>(&store, &client).await;
            assert!(old.is_running() && new.is_running() && other.is_running());
            let rebuilds = "select epoch from annals.leases where name = 'rebuild:sums'";
            assert!(value::<i64>(&client, rebuilds).await <= 3, "it was rebuilt again and again");
            for running in [new, other] {
                running.stop().await;
            }
            // Rolled back by the program of that time, it goes on.
            rebuild::<$old::Sum>(&store).rollback().await.unwrap();
            add(&store, "a", 1).await;
            old.caught_up::<$old::Sum>(&store).await;
            assert_exact::<$old::Sum>(&store, &client).await;
            old.stop().await;
        }
    };
}
is_rebuilt_from!(another_version, first, recounted);
is_rebuilt_from!(more_of_columns, first, more_columns);
is_rebuilt_from!(fewer_of_columns, more_columns, first);
is_rebuilt_from!(a_column_with_another_name, first, renamed);
is_rebuilt_from!(a_column_of_another_type, first, retyped);
is_rebuilt_from!(a_history, first, with_history);
is_rebuilt_from!(no_history_any_more, with_history, first);
is_rebuilt_from!(more_slices, first, in_slices);
is_rebuilt_from!(fewer_slices, in_slices, first);
is_rebuilt_from!(everything, in_slices, all_at_once);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_not_to_rebuild_refuses() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    catch_up::<First>(&store).await;
    let refusing = worker::<more_columns::Sum>(&store).without_rebuilding();
    let refused = Running::start(refusing).failure().await;
    assert!(matches!(refused, ProjectionError::Outdated { .. }), "{refused:?}");
    assert!(refused.to_string().contains("extra bigint"), "{refused}");
    let refusing = worker::<recounted::Sum>(&store).without_rebuilding();
    let refused = Running::start(refusing).failure().await;
    assert!(refused.to_string().contains("version 1"), "{refused}");
    assert_exact::<First>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_version_that_starts_later_is_refused() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    catch_up::<recounted::Sum>(&store).await;
    let refused = Running::start(worker::<First>(&store)).failure().await;
    assert!(matches!(refused, ProjectionError::Superseded { version: 2, .. }), "{refused:?}");
    assert_exact::<recounted::Sum>(&store, &client).await;
}

/// Its checkpoint would let it go on, with the code of the version before.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_come_exactly_as_far_is_fenced_too() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    let mut old = Running::start(worker::<First>(&store));
    old.caught_up::<First>(&store).await;
    rebuild::<recounted::Sum>(&store).run().await.unwrap();
    add(&store, "a", 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    catch_up::<recounted::Sum>(&store).await;
    assert_exact::<recounted::Sum>(&store, &client).await;
    assert!(old.is_running());
    old.stop().await;
}

/// It meets a row that it does not know yet, and would have to load it by columns that are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_columns_are_gone_stands_by() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    let mut old = Running::start(worker::<First>(&store));
    old.caught_up::<First>(&store).await;
    rebuild::<renamed::Sum>(&store).run().await.unwrap();
    add(&store, "b", 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    catch_up::<renamed::Sum>(&store).await;
    assert_exact::<renamed::Sum>(&store, &client).await;
    assert!(old.is_running());
    old.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stays() {
    let database = TestDatabase::create().await;
    let store: EventStore = database.store().await;
    add(&store, "a", 1).await;
    catch_up::<First>(&store).await;
    control::pause(&store, "sums", "for a test").await.unwrap();
    let running = Running::start(worker::<recounted::Sum>(&store));
    let rebuilt = || async {
        let row = store.query::<recounted::Sum>().get(&"a".to_owned()).await.unwrap();
        row.is_some_and(|row| row.events == 2)
    };
    eventually("it is rebuilt", rebuilt).await;
    add(&store, "a", 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(rebuilt().await, "it goes on although it is paused");
    running.stop().await;
}
