//! Damage to what guards the events and to what their order rests on.

use annals_eventstore::{
    Error, EventStore, Position,
    verify::{Finding, Unchecked},
};

use super::{GUARDS, findings, store_of_three, texts, verify};
use crate::support::{TestDatabase, one, stream};

#[tokio::test]
async fn a_trigger_that_does_not_fire_is_found() {
    let (_database, store, client) = store_of_three().await;
    let guards = GUARDS.into_iter().chain([("checkpoints", "readers_begin")]);
    for (table, trigger) in guards {
        let alter = async |how: &str| {
            let sql = format!("alter table annals.{table} {how} trigger {trigger}");
            client.batch_execute(&sql).await.unwrap();
        };
        for how in ["disable", "enable", "enable replica"] {
            alter(how).await;
            let (table, trigger) = (table.to_owned(), trigger.to_owned());
            assert_eq!(
                findings(&store).await,
                [Finding::TriggerDisabled { table, trigger }],
                "{how}"
            );
        }
        alter("enable always").await;
        assert_eq!(findings(&store).await, []);
    }
}

#[tokio::test]
async fn a_trigger_that_is_gone_or_another_one_is_found() {
    let (_database, store, client) = store_of_three().await;
    let set = async |sql: &str| {
        client.batch_execute(&format!("set search_path = annals; {sql}")).await.unwrap();
    };
    set("drop trigger events_are_immutable on events").await;
    let missing = "the trigger events_are_immutable of the table events is missing";
    assert_eq!(texts(&store).await, [missing]);
    let other = "the trigger events_are_immutable of the table events is another one";
    for sql in [
        // Not truncate.
        "create trigger events_are_immutable before update on events
             for each statement execute function refuse_change()",
        // Not always.
        "create or replace trigger events_are_immutable before update or truncate on events
             for each statement when (false) execute function refuse_change()",
        // Another function.
        "create or replace trigger events_are_immutable before update or truncate on events
             for each statement execute function suppress_redundant_updates_trigger()",
    ] {
        set(sql).await;
        set("alter table events enable always trigger events_are_immutable").await;
        assert_eq!(texts(&store).await, [other], "{sql}");
    }
    set("create or replace trigger events_are_immutable before update or truncate on events
             for each statement execute function refuse_change();
         alter table events enable always trigger events_are_immutable")
    .await;
    assert_eq!(findings(&store).await, []);
    // The first inline projection brings its own.
    set("insert into inline_projections (name, categories) values ('p', '{thing}')").await;
    let missing = "the trigger inline_projections_see_all of the table events is missing";
    assert_eq!(texts(&store).await, [missing]);
    set("delete from inline_projections; select register_inline('p', 7, '{other}')").await;
    assert_eq!(findings(&store).await, []);
}

#[tokio::test]
async fn a_function_that_was_changed_is_found() {
    let (_database, store, client) = store_of_three().await;
    let set = async |body: &str| {
        let sql = format!(
            "create or replace function annals.refuse_change() returns trigger language plpgsql as $$ {body} $$"
        );
        client.batch_execute(&sql).await.unwrap();
    };
    set("begin return null; end").await;
    let function = "refuse_change".to_owned();
    assert_eq!(findings(&store).await, [Finding::FunctionChanged { function }]);
    client.batch_execute("drop function annals.reached").await.unwrap();
    let function = "reached".to_owned();
    assert_eq!(findings(&store).await.first(), Some(&Finding::FunctionChanged { function }));
}

#[tokio::test]
async fn an_index_that_is_gone_is_found() {
    let (_database, store, client) = store_of_three().await;
    client
        .batch_execute(
            "alter table annals.events drop constraint events_stream_id_version_key;
             create index on annals.events (stream_id, version)",
        )
        .await
        .unwrap();
    assert_eq!(texts(&store).await, ["events has no valid unique index on (stream_id, version)"]);
}

#[tokio::test]
async fn migrations_that_are_not_the_same_are_found() {
    let (_database, store, client) = store_of_three().await;
    client
        .batch_execute(
            "update annals.migrations set checksum = 'other' where number = 2;
             delete from annals.migrations where number = 3;
             insert into annals.migrations (number, checksum) values (99, 'later')",
        )
        .await
        .unwrap();
    assert_eq!(
        findings(&store).await,
        [
            Finding::MigrationChanged { number: 2 },
            Finding::MigrationMissing { number: 3 },
            Finding::MigrationUnknown { number: 99 },
        ]
    );
}

#[tokio::test]
async fn a_counter_that_was_set_back_is_found() {
    let (_database, store, client) = store_of_three().await;
    client.batch_execute("select setval('annals.positions', 7)").await.unwrap();
    // Nobody reads what is above it, and the log above it is not looked at.
    let (last, highest) = (Position::new(7), Position::new(12));
    assert_eq!(findings(&store).await, [Finding::CounterBehind { last, highest }]);
    // As a dump of the tables alone would leave it.
    client.batch_execute("alter sequence annals.positions restart").await.unwrap();
    let last = Position::START;
    assert_eq!(findings(&store).await, [Finding::CounterBehind { last, highest }]);
    client.batch_execute("select setval('annals.positions', 12)").await.unwrap();
    assert_eq!(findings(&store).await, []);
    store.append(one(stream("a"), 1)).await.unwrap();
    client.batch_execute("alter sequence annals.positions cache 20").await.unwrap();
    assert_eq!(findings(&store).await, [Finding::CounterCached { cache: 20 }]);
}

#[tokio::test]
async fn a_registry_that_nobody_can_use_is_found() {
    let (_database, store, client) = store_of_three().await;
    client.batch_execute("create table annals.kept as table annals.store").await.unwrap();
    client.batch_execute("delete from annals.store").await.unwrap();
    assert_eq!(findings(&store).await, [Finding::StoreRowMissing]);
    client.batch_execute("insert into annals.store table annals.kept").await.unwrap();
    client.batch_execute("alter sequence annals.recovered set logged").await.unwrap();
    assert_eq!(findings(&store).await, [Finding::RecoveryMarkLogged]);
}

/// After a crash, the mark is back at its beginning until the next append.
#[tokio::test]
async fn a_server_that_has_recovered_is_sound() {
    let (_database, store, client) = store_of_three().await;
    client.batch_execute("alter sequence annals.recovered restart").await.unwrap();
    assert_eq!(findings(&store).await, []);
    store.append(one(stream("a"), 1)).await.unwrap();
    assert_eq!(findings(&store).await, []);
}

#[tokio::test]
async fn a_reader_beyond_the_end_is_found() {
    let (_database, store, client) = store_of_three().await;
    client
        .batch_execute(
            "insert into annals.checkpoints (name, position) values ('behind', 3), ('at', 12), ('ahead', 13)",
        )
        .await
        .unwrap();
    let (reader, at, last) = ("ahead".to_owned(), Position::new(13), Position::new(12));
    assert_eq!(findings(&store).await, [Finding::CheckpointAhead { reader, at, last }]);
}

#[tokio::test]
async fn what_a_role_may_not_see_is_unchecked() {
    let (database, store, client) = store_of_three().await;
    // A role without a login, taken on by whoever connects.
    let role = format!("annals_verify_{}", std::process::id());
    let set_up = format!(
        "create role {role};
         grant usage on schema annals to {role};
         grant select on all tables in schema annals to {role};
         grant select on annals.positions to {role};
         revoke select on annals.idempotency, annals.checkpoints from {role}"
    );
    client.batch_execute(&set_up).await.unwrap();
    let url = format!("{} options='-c role={role}'", database.url());
    let reader = EventStore::connect(&url).await.unwrap();
    let verification = verify(&reader).await;
    assert_eq!(verification.findings, []);
    let mut denied: Vec<_> = (verification.unchecked.iter())
        .filter(|one| matches!(one, Unchecked::Denied { .. }))
        .map(ToString::to_string)
        .collect();
    denied.sort();
    assert_eq!(
        denied,
        [
            "a part of idempotency keys: permission denied for table idempotency",
            "a part of registry: permission denied for table checkpoints",
        ]
    );
    assert_eq!(findings(&store).await, []);
    let drop_role = format!("drop owned by {role}; drop role {role}");
    reader.close().await;
    client.batch_execute(&drop_role).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_not_to_be_migrated_must_be_there() {
    let database = TestDatabase::create().await;
    let url = database.url();
    let connect = || EventStore::options().without_migrating().connect(&url);
    let error = connect().await.unwrap_err();
    assert!(matches!(&error, Error::SchemaMissing { schema } if schema == "annals"), "{error:?}");
    let client = database.client().await;
    let sql = "select to_regnamespace('annals') is null";
    assert!(client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0), "nothing is created");

    let store = database.store().await;
    store.append(one(stream("a"), 1)).await.unwrap();
    assert_eq!(findings(&connect().await.unwrap()).await, []);

    let last =
        "delete from annals.migrations where number = (select max(number) from annals.migrations)
        returning number";
    let last: i32 = client.query_one(last, &[]).await.unwrap().get(0);
    let error = connect().await.unwrap_err();
    assert!(!error.is_retryable());
    let Error::SchemaOutdated { schema, found, needed } = &error else { panic!("{error:?}") };
    assert_eq!((schema.as_str(), *found, *needed), ("annals", last - 1, last));
}
