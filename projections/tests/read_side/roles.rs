//! Each role does its job, and is refused the rest.

use annals_eventstore::{
    Aggregate, Apply, AsOf, Error as StoreError, EventStore, ExpectedVersion, Position, StreamId,
    postgres::Roles,
};
use annals_projections::{
    Consistency, InlineProjections, ProjectionError, QueryReadModels, Rebuild, reset,
};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, NoTls};

use crate::support::{
    PATIENCE, Running, catch_up,
    database::{TestDatabase, refusal, value},
    ledger::{Add, Ledger, LedgerEvent, Tally, add},
    text, worker,
};

/// Roles are the whole server's, so each test has its own.
struct TestRoles {
    names: [String; 5],
    // It goes before the roles: what they have there keeps them.
    database: Option<TestDatabase>,
}

const OWNER: usize = 0;
const WRITER: usize = 1;
const READER: usize = 2;
const PROJECTOR: usize = 3;
/// Anybody else who can connect.
const STRANGER: usize = 4;

const PASSWORD: &str = "no secret";

impl TestRoles {
    async fn create(name: &str) -> Self {
        let database = TestDatabase::create().await;
        let names = ["owner", "writer", "reader", "projector", "stranger"]
            .map(|role| format!("annals-{name}-{role}-{}", std::process::id()));
        Self { names, database: Some(database) }
    }

    fn database(&self) -> &TestDatabase {
        self.database.as_ref().unwrap()
    }

    fn sql(&self) -> Roles {
        let [owner, writer, reader, projector, _] = self.names.clone();
        Roles::new().owner(owner).writer(writer).reader(reader).projector(projector)
    }

    /// Runs the script that creates them, as the administrator.
    async fn set_up(&self) {
        let admin = self.database().client().await;
        let stranger = format!(
            "do $$ begin if to_regrole('\"{0}\"') is null then create role \"{0}\" login; end if; end $$",
            self.names[STRANGER]
        );
        admin.batch_execute(&stranger).await.unwrap();
        admin.batch_execute(&self.sql().create_sql().unwrap()).await.unwrap();
        for name in &self.names {
            let password = format!("alter role \"{name}\" password '{PASSWORD}'");
            admin.batch_execute(&password).await.unwrap();
        }
    }

    /// Runs the script that gives them their rights, as the owner.
    async fn grant(&self) {
        let owner = self.client(OWNER).await;
        owner.batch_execute(&self.sql().grant_sql().unwrap()).await.unwrap();
    }

    fn url(&self, role: usize) -> String {
        let url = self.database().url_as("annals");
        format!("{url} user='{}' password='{PASSWORD}'", self.names[role])
    }

    async fn store(&self, role: usize) -> EventStore {
        EventStore::connect(&self.url(role)).await.unwrap()
    }

    async fn client(&self, role: usize) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(role), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// The roles, at work: set up, migrated by the owner, and with a read model that has rows.
    async fn at_work(name: &str) -> Self {
        let roles = Self::create(name).await;
        roles.set_up().await;
        drop(roles.store(OWNER).await);
        roles.grant().await;
        add(&roles.store(WRITER).await, "a", 5).await;
        catch_up::<Tally>(&roles.store(PROJECTOR).await).await;
        roles
    }
}

impl Drop for TestRoles {
    fn drop(&mut self) {
        drop(self.database.take());
        let names = self.names.clone();
        let dropping = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = std::env::var("DATABASE_URL").unwrap();
                let (client, connection) = tokio_postgres::connect(&server, NoTls).await.unwrap();
                tokio::spawn(connection);
                for name in names {
                    let sql = format!("drop role if exists \"{name}\"");
                    client.batch_execute(&sql).await.unwrap();
                }
            });
        });
        if dropping.join().is_err() && !std::thread::panicking() {
            panic!("the test's roles were not dropped");
        }
    }
}

fn is_refused(error: &StoreError) -> bool {
    matches!(error, StoreError::Database { retryable: false, .. })
        && text(error).contains("permission denied")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_can_do_its_job() {
    let roles = TestRoles::create("jobs").await;
    roles.set_up().await;
    // The owner makes the schema; until then nobody else has a store there.
    assert!(EventStore::connect(&roles.url(WRITER)).await.is_err());
    drop(roles.store(OWNER).await);
    roles.grant().await;

    let writer = roles.store(WRITER).await;
    let command = || {
        let command = Add { ledger: "a".to_owned(), amount: 5 };
        annals_eventstore::Envelope::new(command).idempotency_key("once")
    };
    assert!(!writer.execute(command()).await.unwrap().replayed);
    assert!(writer.execute(command()).await.unwrap().replayed);
    let before: DateTime<Utc> =
        value(&roles.client(WRITER).await, "select clock_timestamp()").await;
    let last = add(&writer, "b", 7).await.last_position;
    assert!(writer.load::<Ledger>("a").await.unwrap().is_some());
    let loaded = writer.load_as_of::<Ledger>("a", AsOf::Time(before)).await;
    assert!(loaded.unwrap().is_some());
    assert_eq!(writer.safe_position().await.unwrap(), last);

    let projector = roles.store(PROJECTOR).await;
    let mut running = Running::start(worker::<Tally>(&projector));
    running.caught_up::<Tally>(&projector).await;

    // The reader may read what was made after the rights were given.
    let reader = roles.store(READER).await;
    let log: Vec<_> = reader.read_all(Position::START).try_collect().await.unwrap();
    assert_eq!(log.len(), 2);
    reader.query::<Tally>().wait_for(last, PATIENCE).await.unwrap();
    assert_eq!(reader.query::<Tally>().all().await.unwrap().len(), 2);
    let at = AsOf::Time(log[0].recorded_at);
    assert_eq!(reader.query::<Tally>().as_of(at).all().await.unwrap().len(), 1);
    let past = "select count(*) from tallies_as_of($1::timestamptz)";
    let past = roles.client(READER).await.query_one(past, &[&log[0].recorded_at]).await.unwrap();
    assert_eq!(past.get::<_, i64>(0), 1);
    // Also where nothing recorded is later.
    reader.position_at(log[1].recorded_at).await.unwrap();
    // And whose append it waits for, if not since when.
    let client = roles.client(WRITER).await;
    let registered =
        "begin; select pg_advisory_xact_lock_shared(id::bigint << 48) from annals.store";
    client.batch_execute(registered).await.unwrap();
    let pid: i32 = value(&client, "select pg_backend_pid()").await;
    let in_flight = reader.in_flight().await.unwrap();
    assert_eq!(in_flight.len(), 1);
    assert_eq!((in_flight[0].pid, &*in_flight[0].application_name), (Some(pid), "annals"));
    assert_eq!((in_flight[0].after, in_flight[0].since), (Position::START, None));
    drop(client);

    running.stop().await;
    reset::<Tally>(&projector).await.unwrap();
    catch_up::<Tally>(&projector).await;
    assert_eq!(reader.query::<Tally>().all().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_projector_rebuilds_and_the_reader_reads_on() {
    let roles = TestRoles::at_work("rebuilds").await;
    let (projector, reader) = (roles.store(PROJECTOR).await, roles.store(READER).await);
    let client = roles.client(READER).await;
    let rows = async || {
        let rows = reader.query::<Tally>().all().await.unwrap().len();
        let past: i64 = value(&client, "select count(*) from tallies_as_of(1)").await;
        let versions: i64 = value(&client, "select count(*) from tallies_versions()").await;
        let changes: i64 = value(&client, "select count(*) from tallies_changes(0, 1)").await;
        assert_eq!((rows, past, versions, changes), (1, 1, 1, 1));
    };
    rows().await;
    let rebuild = Rebuild::<Tally>::of(&projector);
    rebuild.run().await.unwrap();
    rows().await;
    rebuild.rollback().await.unwrap();
    rows().await;
    rebuild.build().await.unwrap();
    let half_built = "select * from annals_rebuild.tallies";
    assert_eq!(refusal(&client, half_built).await.0, "42501");
    assert!(rebuild.compare().await.unwrap().is_same());
    rebuild.discard().await.unwrap();
    // Also where there was nothing before.
    reset::<Tally>(&projector).await.unwrap();
    rebuild.run().await.unwrap();
    rows().await;
    for role in [WRITER, READER] {
        let refused = Rebuild::<Tally>::of(&roles.store(role).await).run().await.unwrap_err();
        assert!(text(&refused).contains("permission denied"), "{refused:?}");
    }
}

/// A ledger with snapshots by hand.
#[derive(Aggregate, Serialize, Deserialize, Default)]
#[aggregate(category = "ledger", event = LedgerEvent)]
#[snapshot(by_hand)]
struct Sum {
    total: i64,
}

impl Apply<LedgerEvent> for Sum {
    fn apply(&mut self, event: &LedgerEvent) {
        if let LedgerEvent::Added { amount } = event {
            self.total += amount;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writer_takes_snapshots_and_ends_the_life_of_streams() {
    let roles = TestRoles::at_work("lives").await;
    let writer = roles.store(WRITER).await;
    let version = writer.snapshot::<Sum>("a").await.unwrap().unwrap();
    let kept = "select version from annals.snapshots where name = 'Sum'";
    assert_eq!(value::<i64>(&roles.client(READER).await, kept).await, version.get());
    assert_eq!(writer.load::<Sum>("a").await.unwrap().unwrap().state.total, 5);

    let stream = StreamId::new("ledger", "a").unwrap();
    writer.archive_stream(&stream, ExpectedVersion::Exact(version)).await.unwrap();
    assert_eq!(writer.load_archived::<Sum>("a").await.unwrap().unwrap().state.total, 5);
    writer.restore_stream(&stream).await.unwrap();
    writer.delete_stream(&stream, ExpectedVersion::Any).await.unwrap();
    assert!(writer.load::<Sum>("a").await.unwrap().is_none());
    for role in [READER, PROJECTOR] {
        let store = roles.store(role).await;
        let error = store.restore_stream(&stream).await.unwrap_err();
        assert!(is_refused(&error), "{}: {error:?}", roles.names[role]);
    }
    writer.restore_stream(&stream).await.unwrap();
    let client = roles.client(WRITER).await;
    client.batch_execute("delete from annals.snapshots").await.unwrap();
    for role in [READER, PROJECTOR] {
        let error = roles.store(role).await.snapshot::<Sum>("a").await.unwrap_err();
        assert!(is_refused(&error), "{}: {error:?}", roles.names[role]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_writer_appends_and_only_the_projector_projects() {
    let roles = TestRoles::at_work("others").await;
    for role in [READER, PROJECTOR] {
        let store = roles.store(role).await;
        let error = store
            .append(annals_eventstore::Append::to(
                annals_eventstore::StreamId::new("ledger", "a").unwrap(),
                annals_eventstore::ExpectedVersion::Any,
                [annals_eventstore::NewEvent::raw(
                    "Noted",
                    1,
                    annals_eventstore::Payload::from_json("{}").unwrap(),
                )],
            ))
            .await
            .unwrap_err();
        assert!(is_refused(&error), "{}: {error:?}", roles.names[role]);
    }
    for role in [WRITER, READER] {
        let store = roles.store(role).await;
        let failure = Running::start(worker::<Tally>(&store)).failure().await;
        let ProjectionError::Database { source, .. } = &failure else { panic!("{failure:?}") };
        let refused = Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE);
        assert_eq!(source.code(), refused, "{}: {source:?}", roles.names[role]);
    }
    assert!(EventStore::connect(&roles.url(STRANGER)).await.is_err());
}

/// As the guide says: a projector that appends, too, and may register.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projector_that_is_a_writer_projects_inline() {
    let roles = TestRoles::at_work("inline").await;
    let admin = roles.database().client().await;
    let [_, writer, _, projector, _] = &roles.names;
    let refused = roles.store(PROJECTOR).await.with_inline::<Tally>().await.unwrap_err();
    assert!(text(&refused).contains("permission denied"), "{refused:?}");
    let grant = format!(
        "grant \"{writer}\" to \"{projector}\";
         grant execute on function annals.register_inline to \"{projector}\""
    );
    admin.batch_execute(&grant).await.unwrap();
    let inline = roles.store(PROJECTOR).await.with_inline::<Tally>().await.unwrap();
    add(&inline, "b", 7).await;
    let strong = |store: &EventStore| {
        let store = store.clone();
        async move { store.query::<Tally>().consistency(Consistency::Strong).all().await.unwrap().len() }
    };
    assert_eq!(strong(&inline).await, 2);
    assert_eq!(strong(&roles.store(READER).await).await, 2, "the reader reads it as before");
    let add = Add { ledger: "b".to_owned(), amount: 1 };
    let refused = roles.store(WRITER).await.execute(add).await.unwrap_err();
    assert!(text(&refused).contains("inline"), "{refused:?}");
}

/// Statements, and which of writer, reader and projector may run them.
const STATEMENTS: &[(&str, &[usize])] = &[
    // What all may.
    ("select * from annals.events", &[WRITER, READER, PROJECTOR]),
    ("select * from annals.streams", &[WRITER, READER, PROJECTOR]),
    ("select * from annals.migrations", &[WRITER, READER, PROJECTOR]),
    ("select * from annals.archived_events", &[WRITER, READER, PROJECTOR]),
    ("select * from annals.snapshots", &[WRITER, READER, PROJECTOR]),
    ("select * from annals.inline_projections", &[WRITER, READER, PROJECTOR]),
    ("select annals.safe_position()", &[WRITER, READER, PROJECTOR]),
    ("select annals.position_at('2020-01-01')", &[WRITER, READER, PROJECTOR]),
    ("select annals.position_at(clock_timestamp())", &[WRITER, READER, PROJECTOR]),
    // Each one's own.
    (
        "select * from annals.append_batch('{1}', '{ledger}', '{z}', '{-1}', '{1}', '{1}', '{1}',
            array[gen_random_uuid()], '{Noted}', '{1}', '{null}', '{null}', array['{}'::json],
            '{null}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
        &[WRITER],
    ),
    ("select * from annals.idempotency", &[WRITER]),
    ("select annals.delete_stream('ledger', 'a', -1)", &[WRITER]),
    ("select annals.archive_stream('ledger', 'a', -1)", &[WRITER]),
    ("select annals.restore_stream('ledger', 'a')", &[WRITER]),
    ("select annals.remove_idempotency_keys('1 day', 0)", &[WRITER]),
    (
        "insert into annals.snapshots (stream_id, name, version, position, fingerprint, state)
         values (1, 'a', 1, 1, '', '{}')",
        &[WRITER],
    ),
    ("update annals.snapshots set version = 2", &[WRITER]),
    ("delete from annals.snapshots", &[WRITER]),
    ("select annals.enter_inline('{}', '{}', '{}', '{}')", &[WRITER]),
    ("select * from annals.projections", &[WRITER, READER, PROJECTOR]),
    ("update annals.projections set paused = 'a rehearsal'", &[PROJECTOR]),
    ("delete from annals.projections", &[PROJECTOR]),
    ("select * from annals.parked_streams", &[READER, PROJECTOR]),
    ("delete from annals.parked_streams", &[PROJECTOR]),
    ("select * from annals.replaced_projections", &[PROJECTOR]),
    ("delete from annals.replaced_projections", &[PROJECTOR]),
    ("select * from annals.sagas", &[READER, PROJECTOR]),
    ("update annals.sagas set call_due = clock_timestamp()", &[PROJECTOR]),
    ("delete from annals.sagas", &[]),
    ("select * from annals.checkpoints", &[READER, PROJECTOR]),
    ("select * from tallies", &[READER, PROJECTOR]),
    ("select * from tallies_history", &[READER, PROJECTOR]),
    ("select * from tallies_as_of('2020-01-01')", &[READER, PROJECTOR]),
    ("select * from annals.leases", &[READER, PROJECTOR]),
    (
        "insert into annals.leases (name, owner, epoch, expires_at) values ('a', 'b', 1, now())",
        &[PROJECTOR],
    ),
    ("update annals.leases set expires_at = '-infinity'", &[PROJECTOR]),
    ("insert into annals.checkpoints (name, position) values ('a', 0)", &[PROJECTOR]),
    ("update annals.checkpoints set position = 0", &[PROJECTOR]),
    ("delete from annals.checkpoints", &[PROJECTOR]),
    ("select * from annals.kafka_offsets", &[READER, PROJECTOR]),
    ("delete from annals.kafka_offsets", &[PROJECTOR]),
    ("select * from annals.waiting_events", &[READER, PROJECTOR]),
    ("delete from annals.waiting_events", &[PROJECTOR]),
    ("select * from annals.foreign_log", &[WRITER, READER, PROJECTOR]),
    ("insert into annals.foreign_log (context) values ('a')", &[PROJECTOR]),
    ("select annals.forget_inline('a', -1)", &[PROJECTOR]),
    ("create table another (id bigint)", &[PROJECTOR]),
    ("insert into tallies values ('z', 1, 1, 1, 1, 1)", &[PROJECTOR]),
    ("update tallies set total = 0", &[PROJECTOR]),
    ("delete from tallies_history", &[PROJECTOR]),
    ("truncate tallies", &[PROJECTOR]),
    ("drop function tallies_as_of(bigint)", &[PROJECTOR]),
    // What none of them may.
    (
        "insert into annals.events (position, stream_id, version, event_id, type, schema_version,
            recorded_at, payload)
         values (99, 1, 99, gen_random_uuid(), 'Noted', 1, now(), '{}')",
        &[],
    ),
    ("update annals.events set payload = '{}'", &[]),
    ("delete from annals.events", &[]),
    ("truncate annals.events", &[]),
    ("select * from annals.events for update", &[]),
    ("lock table annals.events in exclusive mode", &[]),
    ("alter table annals.events disable trigger all", &[]),
    ("alter table annals.events disable trigger events_are_immutable", &[]),
    ("drop trigger events_are_immutable on annals.events", &[]),
    ("set session_replication_role = replica", &[]),
    ("drop table annals.events", &[]),
    ("insert into annals.archived_events select * from annals.events", &[]),
    ("update annals.archived_events set payload = '{}'", &[]),
    ("delete from annals.archived_events", &[]),
    ("truncate annals.archived_events", &[]),
    ("select annals.register_inline('a', -1, '{ledger}')", &[]),
    ("insert into annals.inline_projections (name, categories) values ('a', '{ledger}')", &[]),
    ("update annals.inline_projections set categories = '{}'", &[]),
    ("delete from annals.inline_projections", &[]),
    ("select annals.lock_stream('ledger', 'a', -1)", &[]),
    ("select annals.refuse_readers_behind(1)", &[]),
    ("insert into annals.streams (category, key, version) values ('a', 'b', 0)", &[]),
    ("update annals.streams set version = 0", &[]),
    ("delete from annals.streams", &[]),
    ("insert into annals.idempotency values ('a', 'b', 1, 1, 1)", &[]),
    ("delete from annals.idempotency", &[]),
    ("delete from annals.leases", &[]),
    ("update annals.store set id = 1", &[]),
    ("update annals.migrations set number = 99", &[]),
    ("select nextval('annals.positions')", &[]),
    ("select setval('annals.positions', 1)", &[]),
    ("select setval('annals.recorded_micros', 1)", &[]),
    ("select setval('annals.recovered', 1)", &[]),
    ("select annals.draw_positions(1, null, null)", &[]),
    ("create table annals.another ()", &[]),
    (
        "create function annals.clock_timestamp() returns timestamptz language sql as 'select now()'",
        &[],
    ),
    ("drop function annals.safe_position()", &[]),
    ("alter schema annals rename to other", &[]),
    ("drop schema annals cascade", &[]),
    ("create schema another", &[]),
    ("create role another", &[]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_may_do_what_it_needs_and_nothing_else() {
    let roles = TestRoles::at_work("rights").await;
    let mut wrong = Vec::new();
    for role in [WRITER, READER, PROJECTOR, STRANGER] {
        let mut client = roles.client(role).await;
        for (sql, may) in STATEMENTS {
            let transaction = client.transaction().await.unwrap();
            let outcome = transaction.batch_execute(sql).await;
            transaction.rollback().await.unwrap();
            let state = outcome.as_ref().err().and_then(tokio_postgres::Error::code);
            let as_it_should = match state {
                None => outcome.is_ok() && may.contains(&role),
                // It is the future, or the moment is a read model's of before its tables.
                Some(state) if state.code() == "AN003" => may.contains(&role),
                Some(state) => state.code() == "42501" && !may.contains(&role),
            };
            if !as_it_should {
                wrong.push(format!("{}: {sql}: {outcome:?}", roles.names[role]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Not even the owner changes events, unless it means to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_owns_everything_also_what_was_there_before() {
    let roles = TestRoles::create("owned").await;
    // Made by the administrator.
    let admin = EventStore::connect(&roles.database().url_as("annals")).await.unwrap();
    add(&admin, "a", 5).await;
    drop(admin);
    roles.set_up().await;
    roles.set_up().await;
    roles.grant().await;
    roles.grant().await;
    let owner = roles.client(OWNER).await;
    let others = "select count(*) from (
            select relowner as of from pg_class where relnamespace = 'annals'::regnamespace
            union all select proowner from pg_proc where pronamespace = 'annals'::regnamespace
            union all select nspowner from pg_namespace where nspname = 'annals'
        ) owned where of <> current_user::regrole";
    assert_eq!(value::<i64>(&owner, others).await, 0, "owned by others");
    assert_eq!(refusal(&owner, "delete from annals.events").await.0, "AN010");
    add(&roles.store(WRITER).await, "a", 5).await;

    // What a later migration brings is nobody else's until it is granted.
    owner
        .batch_execute(
            "create function annals.later() returns integer language sql as 'select 1';
             create table annals.later_table ()",
        )
        .await
        .unwrap();
    for role in [WRITER, READER, PROJECTOR, STRANGER] {
        let client = roles.client(role).await;
        assert_eq!(refusal(&client, "select annals.later()").await.0, "42501");
        assert_eq!(refusal(&client, "select * from annals.later_table").await.0, "42501");
    }
}

/// Whoever adds a table or a function decides whose it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grants_mention_all_there_is() {
    let database = TestDatabase::create().await;
    drop(database.store().await);
    let grants = Roles::new().grant_sql().unwrap();
    let client = database.client().await;
    let names = "select relname::text from pg_class
            where relnamespace = 'annals'::regnamespace and relkind not in ('i', 'I', 't', 'c')
        union select proname::text from pg_proc where pronamespace = 'annals'::regnamespace";
    let names = client.query(names, &[]).await.unwrap();
    assert!(names.len() > 15, "the test tests nothing");
    let mentioned = |name: &str| {
        let name = format!("\"annals\".{name}");
        let mut after = grants.split(&name).skip(1);
        after.any(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
    };
    let forgotten: Vec<String> =
        names.iter().map(|row| row.get(0)).filter(|name: &String| !mentioned(name)).collect();
    assert!(forgotten.is_empty(), "grants.sql says nothing of {forgotten:?}");
}
