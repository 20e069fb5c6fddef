//! After a dump and its restore, the store goes on as if nothing had happened.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use annals_eventstore::{AsOf, Envelope, EventStore, Position};
use annals_projections::QueryReadModels;
use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Config};

use crate::support::{
    catch_up,
    database::{TestDatabase, refusal, value},
    ledger::{Add, Tally, add},
    load::{append_some, seeded},
    oracle::{assert_exact, log, sorted},
};

/// How a dump is made and restored.
#[derive(Clone, Copy, Debug)]
enum Format {
    /// SQL, fed to psql.
    Plain,
    /// An archive, fed to `pg_restore`.
    Custom,
}

/// One of PostgreSQL's client programs, on a database.
fn program(name: &str, server: &Config, database: &str) -> Command {
    let mut command = Command::new(name);
    let host = match &server.get_hosts()[0] {
        tokio_postgres::config::Host::Tcp(host) => host.clone(),
        tokio_postgres::config::Host::Unix(folder) => folder.display().to_string(),
    };
    let port = server.get_ports().first().copied().unwrap_or(5432);
    command.args(["--host", &host, "--port", &port.to_string(), "--dbname", database]);
    if let Some(user) = server.get_user() {
        command.args(["--username", user]);
    }
    if let Some(password) = server.get_password() {
        command.env("PGPASSWORD", String::from_utf8_lossy(password).into_owned());
    }
    command
}

fn done(program: &str, output: Output) -> Vec<u8> {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} failed: {complaint}");
    output.stdout
}

fn dump(format: Format, server: &Config, database: &str) -> Vec<u8> {
    let format = match format {
        Format::Plain => "plain",
        Format::Custom => "custom",
    };
    let mut pg_dump = program("pg_dump", server, database);
    done("pg_dump", pg_dump.args(["--format", format]).output().unwrap())
}

fn restore(format: Format, dump: &[u8], server: &Config, database: &str) {
    let (name, options): (_, &[&str]) = match format {
        Format::Plain => ("psql", &["--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1"]),
        Format::Custom => ("pg_restore", &["--exit-on-error"]),
    };
    let mut restoring = program(name, server, database)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    restoring.stdin.take().unwrap().write_all(dump).unwrap();
    done(name, restoring.wait_with_output().unwrap());
}

/// Why this machine cannot dump this server, if it cannot: `pg_dump` must not be older than the server. The
/// server binaries from Maven Central come without it.
async fn cannot_dump(client: &Client) -> Option<String> {
    let server: i32 =
        value(client, "select current_setting('server_version_num')::int / 10000").await;
    for name in ["pg_dump", "pg_restore", "psql"] {
        let Ok(output) = Command::new(name).arg("--version").output() else {
            return Some(format!("there is no {name}: install PostgreSQL's client programs"));
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let major = said.split(|c: char| !c.is_ascii_digit()).find_map(|n| n.parse::<i32>().ok());
        if major.is_none_or(|major| major < server) {
            return Some(format!("{} is older than the server's {server}", said.trim()));
        }
    }
    None
}

/// As-of answers, in both languages.
async fn answers(store: &EventStore, client: &Client, times: &[DateTime<Utc>]) -> Vec<String> {
    let mut answers = Vec::new();
    for time in times {
        answers.push(format!("{time} is {}", store.position_at(*time).await.unwrap()));
        let rows = store.query::<Tally>().as_of(AsOf::Time(*time)).all().await.unwrap();
        answers.extend(sorted(rows));
        let sql = "select tallies_as_of($1::timestamptz)::text";
        let rows = client.query(sql, &[time]).await.unwrap();
        let mut rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        rows.sort();
        answers.extend(rows);
    }
    answers
}

/// All that a store keeps, but for what a later append changes.
async fn state(client: &Client) -> String {
    let sql = "select concat_ws(E'\\n',
        (select store::text from annals.store),
        (select string_agg(c::text, ', ' order by name) from annals.checkpoints c),
        (select string_agg(l::text, ', ' order by name) from annals.leases l),
        (select string_agg(i::text, ', ' order by key) from annals.idempotency i),
        (select string_agg(s::text, ', ' order by id) from annals.streams s),
        (select string_agg(m::text, ', ' order by number) from annals.migrations m),
        (select row(last_value, is_called)::text from annals.positions),
        (select row(last_value, is_called)::text from annals.recorded_micros),
        (select row(last_value, is_called)::text from annals.recovered),
        (select string_agg(tgname::text || tgenabled::text, ', ' order by tgname) from pg_trigger
            where not tgisinternal))";
    value(client, sql).await
}

fn command(amount: i64) -> Envelope<Add> {
    Envelope::new(Add { ledger: "a".to_owned(), amount }).idempotency_key("once")
}

async fn goes_on_after(format: Format) {
    let original = TestDatabase::create().await;
    let client = original.client().await;
    if let Some(reason) = cannot_dump(&client).await {
        // Past the harness, which shows nothing of tests that pass.
        let line = format!("SKIPPED: restore, {format:?}: {reason}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let store = original.store().await;
    let (_, mut rng) = seeded();
    for _ in 0..60 {
        append_some(&store, &mut rng).await;
    }
    let once = store.execute(command(5)).await.unwrap();
    catch_up::<Tally>(&store).await;
    // Not in the read model yet, and positions that no event has.
    add(&store, "late", 3).await;
    let gone = "begin; select annals.draw_positions(3, null, null); rollback";
    client.batch_execute(gone).await.unwrap();
    let before = log(&store).await;
    let reached: i64 = value(&client, "select position from annals.checkpoints").await;
    let of_rows = before.iter().filter(|event| event.position.get() < reached);
    let times: Vec<_> = of_rows.map(|event| event.recorded_at).step_by(7).collect();
    assert!(times.len() > 3, "the test tests nothing");
    let expected = answers(&store, &client, &times).await;
    let expected_state = state(&client).await;
    let last: i64 = value(&client, "select annals.last_position()").await;

    let server: Config = std::env::var("DATABASE_URL").unwrap().parse().unwrap();
    let dumped = dump(format, &server, original.name());
    // Two copies beside the original, at work at the same time: all have the same id.
    let copies = [TestDatabase::create().await, TestDatabase::create().await];
    let mut open = Vec::new();
    for copy in &copies {
        restore(format, &dumped, &server, copy.name());
        let client = copy.client().await;
        assert_eq!(state(&client).await, expected_state);
        let store = copy.store().await;
        assert_eq!(log(&store).await, before);
        assert_eq!(store.verify().run().await.unwrap().findings, []);
        assert_eq!(answers(&store, &client, &times).await, expected);
        open.push((store, client));
    }
    for (store, client) in &open {
        // An append that is in flight in one keeps no reader waiting in the others.
        client
            .batch_execute(
                "begin; select pg_advisory_xact_lock_shared(id::bigint << 48) from annals.store",
            )
            .await
            .unwrap();
        assert_eq!(store.safe_position().await.unwrap(), Position::START);
    }
    let (others, here) = (&open[0], &open[1]);
    others.1.batch_execute("commit").await.unwrap();
    assert_eq!(others.0.safe_position().await.unwrap(), Position::new(last));
    here.1.batch_execute("commit").await.unwrap();

    for (store, client) in &open {
        let replayed = store.execute(command(5)).await.unwrap();
        assert!(replayed.replayed);
        assert_eq!(replayed.position, once.position);
        let next = add(store, "a", 1).await;
        assert_eq!(next.first_position, Position::new(last + 1), "positions go on");
        let new = add(store, "new", 1).await;
        assert_eq!(new.first_position, Position::new(last + 2));
        catch_up::<Tally>(store).await;
        assert_exact::<Tally>(store, client).await;
        assert_eq!(answers(store, client, &times).await, expected);
        let log = log(store).await;
        assert!(log.windows(2).all(|pair| pair[0].recorded_at <= pair[1].recorded_at));
        for replaying in ["origin", "replica"] {
            let setting = format!("set session_replication_role = {replaying}");
            client.batch_execute(&setting).await.unwrap();
            for sql in [
                "update annals.events set payload = '{}'",
                "delete from annals.events",
                "truncate annals.events",
                "delete from annals.streams",
            ] {
                assert_eq!(refusal(client, sql).await.0, "AN010", "{sql}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_goes_on_after_pg_dump_and_psql() {
    goes_on_after(Format::Plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_goes_on_after_pg_dump_and_pg_restore() {
    goes_on_after(Format::Custom).await;
}
