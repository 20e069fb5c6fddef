//! A service that follows the events of another one, with a database of its own.

use annals_eventstore::{AsOf, Category, Event, EventStore, Position, Recorded};
use annals_projections::{
    Change, Consistency, Project, ProjectionError, QueryReadModels, ReadModel, Worker,
    control::{self, FedBy},
    reset,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use crate::{
    relay::Relay,
    support::{
        PATIENCE, Running,
        account::{Account, AccountEvent, Balance, account},
        database::{TestDatabase, refusal, value},
        eventually,
        ledger::append,
        load::{Load, seeded},
        oracle::{fold, log, sorted},
        text, worker,
    },
};

/// What is known of accounts elsewhere.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum Public {
    Moved { amount: i64 },
    Noted,
    Closed,
}

struct Accounts;

impl Category for Accounts {
    const NAME: &'static str = "account";
    type Event = Public;
}

/// A movement of this amount cannot be projected.
const POISON: i64 = 666_666;

/// A row that shows every event that is lost, repeated, or out of order.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "sums", from(Accounts), history, slices = 2)]
struct Sum {
    #[read_model(key)]
    account: String,
    total: i64,
    events: i64,
    trail: i64,
}

impl Project<Public> for Sum {
    fn project(row: Option<Self>, event: &Recorded<Public>) -> Change<Self> {
        let account = event.stream.key().to_owned();
        let row = row.unwrap_or(Self { account, total: 0, events: 0, trail: 0 });
        let trail = row.trail.wrapping_mul(31).wrapping_add(event.position.get());
        let row = Self { events: row.events + 1, trail, ..row };
        match event.event {
            Public::Moved { amount } => {
                assert!(amount != POISON || MENDED.with_poison(), "it cannot be projected");
                Change::Set(Self { total: row.total + amount, ..row })
            }
            Public::Noted => Change::Keep,
            Public::Closed => Change::Delete,
        }
    }
}

/// Whether the code was mended.
struct Mended(std::sync::atomic::AtomicBool);
static MENDED: Mended = Mended(std::sync::atomic::AtomicBool::new(false));

impl Mended {
    fn with_poison(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// Owner and follower, each with a database.
struct Two {
    _owners: TestDatabase,
    owner: EventStore,
    relay: Relay,
    database: TestDatabase,
    own: EventStore,
}

impl Two {
    async fn new() -> Self {
        let (owners, database) = (TestDatabase::create().await, TestDatabase::create().await);
        let (owner, own) = (owners.store().await, database.store().await);
        let relay = Relay::start(&owner).await;
        Self { _owners: owners, owner, relay, database, own }
    }

    fn worker(&self) -> Worker {
        Worker::consumer(&self.own, self.relay.source()).projection::<Sum>()
    }

    /// Waits until the rows are as far as the owner's log.
    async fn caught_up(&self, running: &Running) {
        let end = self.owner.safe_position().await.unwrap();
        let reached = self.own.query::<Sum>().wait_for(end, PATIENCE / 2).await;
        assert!(running.is_running());
        reached.unwrap();
    }

    async fn assert_exact(&self) {
        let log = log(&self.owner).await;
        let rows = self.own.query::<Sum>().all().await.unwrap();
        let expected = fold::<Sum>(&log, Position::new(i64::MAX)).rows;
        assert_eq!(sorted(rows), sorted(expected.into_values()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_has_the_rows_and_the_past_without_the_store() {
    let two = Two::new().await;
    let (seed, _) = seeded();
    let load = Load::of_accounts(&two.owner, seed, 80);
    for _ in 0..4 {
        append::<Account>(&two.owner, &account(1), [AccountEvent::Moved { amount: 1 }]).await;
        let running = Running::start(two.worker().batch_size(3));
        two.caught_up(&running).await;
        running.stop().await;
    }
    load.done().await;
    let running = Running::start(two.worker());
    two.caught_up(&running).await;
    two.assert_exact().await;
    let log = log(&two.owner).await;
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..30 {
        let at = log[rng.random_range(0..log.len())].position;
        let rows = two.own.query::<Sum>().as_of(AsOf::Position(at)).all().await.unwrap();
        assert_eq!(sorted(rows), sorted(fold::<Sum>(&log, at).rows.into_values()), "as of {at}");
    }
    // What a command over there has recorded can be waited for.
    let done = append::<Account>(&two.owner, "new", [AccountEvent::Moved { amount: 5 }]).await;
    let fresh = Consistency::AtLeast(done.last_position, PATIENCE / 2);
    let row = two.own.query::<Sum>().consistency(fresh).get(&"new".to_owned()).await.unwrap();
    assert_eq!(row.unwrap().total, 5);
    // Times are not known here: none is guessed.
    let then = AsOf::Time(log[0].recorded_at);
    let refused = two.own.query::<Sum>().as_of(then).all().await.unwrap_err();
    assert!(text(&refused).contains("another database"), "{}", text(&refused));
    let client = two.database.client().await;
    assert_eq!(refusal(&client, "select * from sums_as_of('2020-01-01')").await.0, "AN014");
    let events: i64 = value(&client, "select count(*) from annals.events").await;
    assert_eq!(events, 0);
    let slices = control::status(&two.own).await.unwrap().remove(0).slices;
    assert!(slices.iter().all(|slice| slice.fed_by == FedBy::Kafka), "{slices:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_waits_here_and_goes_on_though_the_topics_forget() {
    let two = Two::new().await;
    let moved = |amount| [AccountEvent::Moved { amount }];
    append::<Account>(&two.owner, "a", moved(1)).await;
    append::<Account>(&two.owner, "a", moved(POISON)).await;
    append::<Account>(&two.owner, "a", moved(2)).await;
    append::<Account>(&two.owner, "b", moved(3)).await;
    let running = Running::start(two.worker());
    two.caught_up(&running).await;
    let parked = control::parked(&two.own, Some("sums")).await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].stream.key(), parked[0].version.get()), ("a", 2));
    running.stop().await;
    // Others come while it is stopped and while it runs.
    append::<Account>(&two.owner, "a", moved(4)).await;
    let running = Running::start(two.worker());
    append::<Account>(&two.owner, "a", moved(5)).await;
    two.caught_up(&running).await;
    two.relay.forget("account").await;
    MENDED.0.store(true, std::sync::atomic::Ordering::SeqCst);
    control::retry(&two.own, "sums", None).await.unwrap();
    eventually("it went on", || async {
        control::parked(&two.own, None).await.unwrap().is_empty()
    })
    .await;
    two.assert_exact().await;
    let client = two.database.client().await;
    let left: i64 = value(&client, "select count(*) from annals.waiting_events").await;
    assert_eq!(left, 0, "what was applied is not kept");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_told() {
    let two = Two::new().await;
    let (seed, _) = seeded();
    Load::of_accounts(&two.owner, seed, 20).done().await;
    let running = Running::start(two.worker());
    two.caught_up(&running).await;
    running.stop().await;
    // From nothing, as long as all is there.
    reset::<Sum>(&two.own).await.unwrap();
    let running = Running::start(two.worker());
    two.caught_up(&running).await;
    two.assert_exact().await;
    running.stop().await;
    Load::of_accounts(&two.owner, seed + 1, 40).done().await;
    two.relay.published().await;
    two.relay.forget("account").await;
    let gone = Running::start(two.worker()).failure().await;
    assert!(matches!(gone, ProjectionError::Gone { .. }), "{gone:?}");
    assert!(text(&gone).contains("reset") && text(&gone).contains("account"), "{}", text(&gone));
    reset::<Sum>(&two.own).await.unwrap();
    let gone = Running::start(two.worker()).failure().await;
    assert!(matches!(gone, ProjectionError::Gone { .. }), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_logs_do_not_mix() {
    let two = Two::new().await;
    // A store of its own events.
    let mixed = Worker::consumer(&two.owner, two.relay.source()).projection::<Sum>();
    append::<Account>(&two.owner, "a", [AccountEvent::Noted]).await;
    let refused = Running::start(mixed).failure().await;
    assert!(text(&refused).contains("its own store"), "{}", text(&refused));
    let running = Running::start(two.worker());
    two.caught_up(&running).await;
    running.stop().await;
    // The follower's schema, as if it were a store.
    let refused = Running::start(worker::<Balance>(&two.own)).failure().await;
    assert!(matches!(refused, ProjectionError::MixedLogs { .. }), "{refused:?}");
    let other = annals_projections::kafka::Source::new(&two.relay.brokers, "other").unwrap();
    let refused =
        Running::start(Worker::consumer(&two.own, other).projection::<Sum>()).failure().await;
    assert!(text(&refused).contains("other"), "{}", text(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_put_aside() {
    let two = Two::new().await;
    append::<Account>(&two.owner, "a", [AccountEvent::Moved { amount: 1 }]).await;
    two.relay.published().await;
    two.relay.send_junk("account").await;
    append::<Account>(&two.owner, "a", [AccountEvent::Moved { amount: 2 }]).await;
    let running = Running::start(two.worker());
    append::<Account>(&two.owner, "b", [AccountEvent::Moved { amount: 3 }]).await;
    two.caught_up(&running).await;
    running.stop().await;
    two.assert_exact().await;
    let letters = two.relay.dead_letters("account").await;
    assert_eq!(letters[0]["annals_dlq_projection"], "sums");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_transaction_is_passed_over() {
    let two = Two::new().await;
    append::<Account>(&two.owner, "a", [AccountEvent::Moved { amount: 1 }]).await;
    two.relay.published().await;
    for _ in 0..3 {
        two.relay.send_end("account").await;
    }
    append::<Account>(&two.owner, "a", [AccountEvent::Moved { amount: 2 }]).await;
    let running = Running::start(two.worker());
    append::<Account>(&two.owner, "b", [AccountEvent::Moved { amount: 3 }]).await;
    two.caught_up(&running).await;
    running.stop().await;
    two.assert_exact().await;
    assert!(!two.relay.has_dead_letters("account").await, "it was put aside");
}
