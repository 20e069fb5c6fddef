//! The connection is cut at every step of the protocol that an append takes, or a unit of work.

use annals_eventstore::{Append, Error, EventStore, ExpectedVersion, Position};

use crate::{
    cutter::{Connection, Cutter, Way},
    support::{TestDatabase, assert_sound, events, eventually, log, number, stream, text},
};

/// What is cut short.
#[derive(Clone, Copy, Debug)]
enum Work {
    Append,
    /// A unit with a statement of the program's own.
    Unit,
    /// The same by the statements that work behind a pooler.
    PooledAppend,
    PooledUnit,
}

/// What came of it.
struct Done {
    first: Position,
    /// It had been recorded before.
    replayed: bool,
}

enum Failure {
    /// It surely had no effect.
    Sure,
    Unknown,
}

impl Work {
    async fn connect(self, url: &str) -> EventStore {
        let options = EventStore::options().writers(1);
        let options = match self {
            Self::Append | Self::Unit => options,
            Self::PooledAppend | Self::PooledUnit => options.transaction_pooler(),
        };
        options.connect(url).await.unwrap()
    }

    async fn record(self, store: &EventStore, number: i64) -> Result<Done, Failure> {
        let done = match self {
            Self::Append | Self::PooledAppend => {
                store.append(append(number).idempotency_key(number.to_string())).await
            }
            Self::Unit | Self::PooledUnit => return unit(store, number).await,
        };
        let done = done.map_err(failure)?;
        Ok(Done { first: done.first_position, replayed: done.replayed })
    }
}

fn failure(error: Error) -> Failure {
    assert!(error.is_retryable(), "{error:?}");
    match error {
        Error::Indeterminate { .. } => Failure::Unknown,
        _ => Failure::Sure,
    }
}

async fn unit(store: &EventStore, number: i64) -> Result<Done, Failure> {
    let mut unit = store.begin().await.map_err(failure)?;
    let known = unit.idempotency_key(number.to_string(), &number).await.map_err(failure)?;
    if let Some(last) = known {
        return Ok(Done { first: Position::new(last.get() - 2), replayed: true });
    }
    unit.append(append(number)).await.map_err(failure)?;
    let note = "insert into notes values ($1)";
    if let Err(error) = unit.sql().map_err(failure)?.execute(note, &[&number]).await {
        assert!(error.code().is_none(), "the connection was lost: {}", text(&error));
        return Err(Failure::Sure);
    }
    let committed = unit.commit().await.map_err(failure)?;
    Ok(Done { first: committed.first_position, replayed: false })
}

/// Of what was cut short: how often it surely had no effect, and how often its outcome is unknown, absent and
/// recorded.
#[derive(Debug, Default)]
struct Cuts {
    without_effect: usize,
    absent: usize,
    recorded: usize,
}

fn append(number: i64) -> Append {
    // Two streams, so that half an append would be seen.
    Append::to(stream(format!("a {number}")), ExpectedVersion::NoStream, events([number; 2])).and(
        stream("all"),
        ExpectedVersion::Any,
        events([number]),
    )
}

/// Cuts after the first message, then after the second, until all of the work comes before the cut: of work
/// that connects and prepares its statements first, or of one that finds that done.
async fn at_every_step(work: Work, connection: Connection, way: Way) -> Cuts {
    let database = TestDatabase::create().await;
    let direct = database.store().await;
    let client = database.client().await;
    client.batch_execute("create table notes (number bigint primary key)").await.unwrap();
    let mut cuts = Cuts::default();
    for step in 0.. {
        assert!(step < 300, "{work:?} has no end");
        let cutter = Cutter::start(&database).await;
        let store = work.connect(cutter.url()).await;
        let number = 2 * step + 1;
        if let Connection::Used = connection {
            assert!(work.record(&store, number - 1).await.is_ok());
            eventually("the append is announced", async || cutter.has_announced()).await;
        }
        cutter.cut(connection, way, step as usize);
        let outcome = work.record(&store, number).await;
        let was_cut = !cutter.disarm();
        let recorded = log(&direct).await.iter().filter(|e| self::number(e) == number).count();
        assert!(matches!(recorded, 0 | 3), "step {step}: half of it is there");
        match &outcome {
            Ok(_) => assert_eq!(recorded, 3, "step {step}: acknowledged"),
            Err(Failure::Unknown) => {
                cuts.recorded += recorded / 3;
                cuts.absent += 1 - recorded / 3;
            }
            Err(Failure::Sure) => {
                assert_eq!(recorded, 0, "step {step}: it surely had no effect");
                cuts.without_effect += 1;
            }
        }
        // The same key settles it, over the same store. What was in flight when it was cut may have been
        // recorded since.
        let settled = loop {
            if let Ok(settled) = work.record(&store, number).await {
                break settled;
            }
        };
        assert!(settled.replayed || recorded == 0, "step {step}: recorded twice");
        let log = log(&direct).await;
        let of_append: Vec<_> = log.iter().filter(|e| self::number(e) == number).collect();
        assert_eq!(of_append.len(), 3, "step {step}");
        assert_eq!(of_append[0].position, settled.first, "step {step}");
        if let Work::Unit | Work::PooledUnit = work {
            let sql = "select count(*) from notes where number = $1";
            let notes: i64 = client.query_one(sql, &[&number]).await.unwrap().get(0);
            assert_eq!(notes, 1, "step {step}: what the program wrote goes with the events");
        }
        if outcome.is_ok() && !was_cut {
            break;
        }
    }
    assert_sound(&log(&direct).await);
    assert_eq!(direct.verify().run().await.unwrap().findings, []);
    println!("{work:?}, {connection:?} connection, {way:?}: {cuts:?}");
    cuts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_way_to_the_server_over_a_new_connection() {
    let cuts = at_every_step(Work::Append, Connection::New, Way::ToServer).await;
    assert!(cuts.without_effect > 0 && cuts.absent > 0, "{cuts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_way_back_over_a_new_connection() {
    let cuts = at_every_step(Work::Append, Connection::New, Way::ToClient).await;
    assert!(cuts.without_effect > 2 && cuts.recorded > 0, "{cuts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_way_to_the_server_over_a_used_connection() {
    let cuts = at_every_step(Work::Append, Connection::Used, Way::ToServer).await;
    assert!(cuts.absent > 0, "{cuts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_way_back_over_a_used_connection() {
    let cuts = at_every_step(Work::Append, Connection::Used, Way::ToClient).await;
    assert!(cuts.recorded > 0, "{cuts:?}");
}

/// Everything up to the commit's own message has surely no effect; of that one, nobody knows.
fn assert_units(cuts: &Cuts, way: Way) {
    match way {
        Way::ToServer => assert!(cuts.without_effect > 5 && cuts.absent > 0, "{cuts:?}"),
        Way::ToClient => assert!(cuts.without_effect > 5 && cuts.recorded > 0, "{cuts:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_unit_over_a_new_connection() {
    for way in [Way::ToServer, Way::ToClient] {
        assert_units(&at_every_step(Work::Unit, Connection::New, way).await, way);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_unit_over_a_used_connection() {
    for way in [Way::ToServer, Way::ToClient] {
        assert_units(&at_every_step(Work::Unit, Connection::Used, way).await, way);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_append_as_behind_a_pooler() {
    let cuts = at_every_step(Work::PooledAppend, Connection::Used, Way::ToServer).await;
    assert!(cuts.absent > 0, "{cuts:?}");
    let cuts = at_every_step(Work::PooledAppend, Connection::Used, Way::ToClient).await;
    assert!(cuts.recorded > 0, "{cuts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_unit_as_behind_a_pooler() {
    for way in [Way::ToServer, Way::ToClient] {
        assert_units(&at_every_step(Work::PooledUnit, Connection::Used, way).await, way);
    }
}
