//! Tables that come, go, and have to fit.

use annals_eventstore::{AsOf, EventStore, Position, Recorded};
use annals_projections::{Change, Project, ProjectionError, QueryReadModels, ReadModel, reset};
use tokio_postgres::Client;

use crate::support::{
    Running, catch_up,
    database::{TestDatabase, value},
    ledger::{Ledger, LedgerEvent, Tally, add},
    load::{Load, seeded},
    oracle::assert_exact,
    text, worker,
};

/// Read models of one table, as one release after the other might have them.
macro_rules! release {
    ($(#[$attribute:meta])* $name:ident { $($(#[$column:meta])* $field:ident: $type:ty = $value:expr),+ }) => {
        #[derive(ReadModel, Clone, Debug, PartialEq)]
        $(#[$attribute])*
        struct $name { $($(#[$column])* $field: $type),+ }

        impl Project<LedgerEvent> for $name {
            fn project(_: Option<Self>, event: &Recorded<LedgerEvent>) -> Change<Self> {
                let key = event.stream.key();
                Change::Set(Self { $($field: ($value)(key)),+ })
            }
        }
    };
}

release! {
    #[read_model(table = "shapes", from(Ledger))]
    Plain { #[read_model(key)] ledger: String = str::to_owned, note: i32 = |_| 1 }
}
release! {
    #[read_model(table = "shapes", from(Ledger), history)]
    WithHistory { #[read_model(key)] ledger: String = str::to_owned, note: i32 = |_| 1 }
}
release! {
    #[read_model(table = "shapes", from(Ledger))]
    OtherType { #[read_model(key)] ledger: String = str::to_owned, note: i64 = |_| 1 }
}
release! {
    #[read_model(table = "shapes", from(Ledger))]
    Optional { #[read_model(key)] ledger: String = str::to_owned, note: Option<i32> = |_| None }
}
release! {
    #[read_model(table = "shapes", from(Ledger))]
    OtherColumns { #[read_model(key)] ledger: String = str::to_owned, remark: i32 = |_| 1, more: bool = |_| true }
}
release! {
    #[read_model(table = "shapes", from(Ledger))]
    OtherOrder { note: i32 = |_| 1, #[read_model(key)] ledger: String = str::to_owned }
}
release! {
    #[read_model(table = "shapes", from(Ledger))]
    OtherKey { #[read_model(key)] ledger: String = str::to_owned, #[read_model(key)] note: i32 = |_| 1 }
}

async fn exists(client: &Client, relation: &str) -> bool {
    value(client, &format!("select to_regclass('public.{relation}') is not null")).await
}

async fn functions(client: &Client) -> i64 {
    value(client, "select count(*) from pg_proc where proname like 'shapes\\_%'").await
}

/// The difference that a worker stops with that is not to rebuild.
async fn refused<R: ReadModel>(store: &EventStore) -> (String, String) {
    let error = Running::start(worker::<R>(store).without_rebuilding()).failure().await;
    assert!(!error.is_retryable(), "{}", text(&error));
    let what_to_do = ["reset the projection", "rebuild the read model"];
    assert!(what_to_do.iter().any(|what| text(&error).contains(what)), "{}", text(&error));
    match error {
        ProjectionError::Outdated { table, difference }
        | ProjectionError::ShapeChanged { table, difference } => (table, difference),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_struct_is_told_from_its_table() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    catch_up::<Plain>(&store).await;

    let (table, difference) = refused::<OtherType>(&store).await;
    assert_eq!(table, "public.shapes");
    for part in ["note bigint not null", "note integer not null"] {
        assert!(difference.contains(part), "{difference}");
    }
    let (_, difference) = refused::<Optional>(&store).await;
    assert!(difference.contains("only the struct has note integer;"), "{difference}");
    let (_, difference) = refused::<OtherColumns>(&store).await;
    for part in ["remark integer", "more boolean", "only the table has note integer"] {
        assert!(difference.contains(part), "{difference}");
    }
    let (_, difference) = refused::<OtherOrder>(&store).await;
    assert!(difference.contains("another order"), "{difference}");
    let (_, difference) = refused::<OtherKey>(&store).await;
    assert!(difference.contains("note integer not null key"), "{difference}");

    // All that changed nothing.
    catch_up::<Plain>(&store).await;
    assert_exact::<Plain>(&store, &client).await;
    reset::<OtherType>(&store).await.unwrap();
    // Where the old code runs on, its statements are planned for the old columns.
    let store = database.store().await;
    catch_up::<OtherType>(&store).await;
    let rows: i64 = value(&client, "select sum(note)::bigint from shapes").await;
    assert_eq!(rows, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_begins_with_its_read_model() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    catch_up::<Plain>(&store).await;
    assert!(!exists(&client, "shapes_history").await);
    assert_eq!(functions(&client).await, 0);
    let query = store.query::<Plain>().as_of(AsOf::Position(Position::START));
    let error = query.all().await.unwrap_err();
    assert!(matches!(error, ProjectionError::NoHistory { projection: "shapes" }), "{error:?}");

    // Switched on later, it would know nothing of what was before.
    let (table, difference) = refused::<WithHistory>(&store).await;
    assert_eq!(table, "public.shapes");
    assert!(difference.contains("only the struct has valid_from bigint"), "{difference}");
    assert_eq!(functions(&client).await, 0);
    reset::<WithHistory>(&store).await.unwrap();
    catch_up::<WithHistory>(&store).await;
    assert_exact::<WithHistory>(&store, &client).await;
    assert_eq!(functions(&client).await, 7);

    // Switched off, its functions would go on answering with what was last.
    let (table, difference) = refused::<Plain>(&store).await;
    assert_eq!(table, "public.shapes");
    assert!(difference.contains("only the table has valid_from bigint"), "{difference}");
    reset::<Plain>(&store).await.unwrap();
    catch_up::<Plain>(&store).await;
    assert!(!exists(&client, "shapes_history").await);
    assert_eq!(functions(&client).await, 0);
    assert_exact::<Plain>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_checkpoint_belong_together() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    add(&store, "a", 1).await;
    add(&store, "b", 1).await;
    catch_up::<Tally>(&store).await;

    // Another store of the same database would fold its events into the first one's rows.
    let options = EventStore::options().schema("second");
    let second = database.store_with(options).await;
    add(&second, "a", 1).await;
    let (table, difference) = refused::<Tally>(&second).await;
    assert_eq!(table, "public.tallies");
    assert!(difference.contains("no checkpoint"), "{difference}");
    assert_exact::<Tally>(&store, &client).await;

    // A table that was dropped by hand would come back empty.
    client.batch_execute("drop function tallies_as_of(text)").await.unwrap();
    client.batch_execute("drop table tallies_history").await.unwrap_or_default();
    client.batch_execute("drop table tallies cascade").await.unwrap();
    let (table, difference) = refused::<Tally>(&store).await;
    assert_eq!(table, "public.tallies");
    assert!(difference.contains("position 2"), "{difference}");
    reset::<Tally>(&store).await.unwrap();
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_builds_one_anew_and_leaves_others_alone() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, _) = seeded();
    Load::start(&store, seed, 2, 40).done().await;
    catch_up::<Tally>(&store).await;
    catch_up::<WithHistory>(&store).await;
    let other = "select string_agg(h::text, ' ' order by h) from shapes_history h";
    let before: String = value(&client, other).await;

    client.batch_execute("update tallies set total = total + 1").await.unwrap();
    reset::<Tally>(&store).await.unwrap();
    assert!(!exists(&client, "tallies").await && !exists(&client, "tallies_history").await);
    let error = store
        .query::<Tally>()
        .wait_for(store.safe_position().await.unwrap(), std::time::Duration::ZERO)
        .await
        .unwrap_err();
    assert!(matches!(error, ProjectionError::TimedOut { .. }), "{error:?}");
    // Twice is as good as once, and one that was never there can be taken away.
    reset::<Tally>(&store).await.unwrap();
    catch_up::<Tally>(&store).await;
    assert_exact::<Tally>(&store, &client).await;
    let after: String = value(&client, other).await;
    assert_eq!(before, after);
    let left: i64 = value(
        &client,
        "select count(*) from annals.checkpoints where position = annals.safe_position()",
    )
    .await;
    assert_eq!(left, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_takes_no_table_that_only_has_the_name_of_a_history() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    client.batch_execute("create table public.shapes_history (mine text)").await.unwrap();
    add(&store, "a", 1).await;
    catch_up::<Plain>(&store).await;
    reset::<Plain>(&store).await.unwrap();
    assert!(exists(&client, "shapes_history").await && !exists(&client, "shapes").await);
    let (table, difference) = refused::<WithHistory>(&store).await;
    assert_eq!(table, "public.shapes_history");
    assert!(difference.contains("only the table has mine text"), "{difference}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_runs_meanwhile_builds_anew_too() {
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let (seed, _) = seeded();
    for round in 0..5 {
        let mut running = Running::start(worker::<Tally>(&store).batch_size(5));
        let load = Load::start(&store, seed + round, 2, 40);
        tokio::time::sleep(std::time::Duration::from_millis(20 * round)).await;
        reset::<Tally>(&store).await.unwrap();
        load.done().await;
        // It notices in its next batch; or it was just coming to work and failed.
        add(&store, "a", 1).await;
        if running.is_running() {
            running.caught_up::<Tally>(&store).await;
            running.stop().await;
        } else {
            running.failure().await;
            catch_up::<Tally>(&store).await;
        }
        assert_exact::<Tally>(&store, &client).await;
    }
}
