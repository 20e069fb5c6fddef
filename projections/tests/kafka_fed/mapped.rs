//! A service that follows what another one makes public of its events: others than the stored ones, and not all of them.

use annals_eventstore::{AsOf, Category, Event, EventStore, Position, Recorded};
use annals_projections::{Change, Project, QueryReadModels, ReadModel, Worker};
use serde::{Deserialize, Serialize};

use crate::{
    relay::Relay,
    support::{
        PATIENCE, Running,
        account::{Account, AccountEvent, account},
        database::{TestDatabase, value},
        ledger::append,
        load::{Load, seeded},
        oracle::{log, sorted},
    },
};

/// What others may know of accounts. The names are others than those of the stored events, and one is taken for another.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum Contract {
    #[event(name = "paid_in", version = 3)]
    PaidIn { cents: i64, sign: String },
    #[event(name = "noted")]
    Ended,
}

/// Small movements, and notes, are nobody else's business.
fn public(event: &AccountEvent) -> Option<Contract> {
    match event {
        AccountEvent::Moved { amount } if amount.abs() < 10 => None,
        AccountEvent::Moved { amount } => {
            Some(Contract::PaidIn { cents: amount * 100, sign: amount.signum().to_string() })
        }
        AccountEvent::Noted => None,
        AccountEvent::Closed => Some(Contract::Ended),
    }
}

struct Accounts;

impl Category for Accounts {
    const NAME: &'static str = "account";
    type Event = Contract;
}

/// A row that shows every event that is lost, repeated, or out of order.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "paid", from(Accounts), history, slices = 2)]
struct Paid {
    #[read_model(key)]
    account: String,
    cents: i64,
    signs: String,
    /// Positions and versions of the events since the row began.
    trail: String,
}

impl Paid {
    fn after(row: Option<Self>, key: &str, at: (i64, i64), event: &Contract) -> Option<Self> {
        let Contract::PaidIn { cents, sign } = event else { return None };
        let (account, (position, version)) = (key.to_owned(), at);
        let empty = Self { account, cents: 0, signs: String::new(), trail: String::new() };
        let row = row.unwrap_or(empty);
        Some(Self {
            cents: row.cents + cents,
            signs: row.signs + sign,
            trail: format!("{} {position}/{version}", row.trail),
            ..row
        })
    }
}

impl Project<Contract> for Paid {
    fn project(row: Option<Self>, event: &Recorded<Contract>) -> Change<Self> {
        let at = (event.position.get(), event.version.get());
        Self::after(row, event.stream.key(), at, &event.event).map_or(Change::Delete, Change::Set)
    }
}

/// What the private log makes public up to a position, one event after the other.
fn expected(log: &[Recorded], up_to: Position) -> Vec<Paid> {
    let mut rows = std::collections::HashMap::new();
    for event in log.iter().filter(|event| event.position <= up_to) {
        if event.stream.category() != "account" {
            continue;
        }
        let (key, at) = (event.stream.key(), (event.position.get(), event.version.get()));
        for private in event.clone().decode::<AccountEvent>().unwrap() {
            let Some(public) = public(&private.event) else { continue };
            match Paid::after(rows.remove(key), key, at, &public) {
                Some(row) => rows.insert(key.to_owned(), row),
                None => None,
            };
        }
    }
    rows.into_values().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_has_the_rows_of_the_contract_and_nothing_of_what_is_private() {
    let (owners, database) = (TestDatabase::create().await, TestDatabase::create().await);
    let (owner, own) = (owners.store().await, database.store().await);
    let relay = Relay::told(&owner, |publisher| {
        publisher.map("account", |event: &Recorded<AccountEvent>| public(&event.event))
    });
    let worker = || Worker::consumer(&own, relay.source()).projection::<Paid>().batch_size(5);
    let caught_up = async |running: &Running, own: &EventStore| {
        let end = owner.safe_position().await.unwrap();
        let reached = own.query::<Paid>().wait_for(end, PATIENCE / 2).await;
        assert!(running.is_running());
        reached.unwrap();
    };
    let (seed, _) = seeded();
    let load = Load::of_accounts(&owner, seed, 100);
    for _ in 0..3 {
        let running = Running::start(worker());
        // What stays private is passed, too: it can be waited for.
        append::<Account>(&owner, &account(1), [AccountEvent::Noted]).await;
        caught_up(&running, &own).await;
        running.stop().await;
    }
    load.done().await;
    append::<Account>(&owner, "last", [AccountEvent::Moved { amount: -30 }]).await;
    append::<Account>(&owner, "last", [AccountEvent::Moved { amount: 3 }]).await;
    append::<Account>(&owner, "last", [AccountEvent::Moved { amount: 40 }]).await;
    let running = Running::start(worker());
    caught_up(&running, &own).await;
    running.stop().await;

    let log = log(&owner).await;
    let rows = own.query::<Paid>().all().await.unwrap();
    let last = rows.iter().find(|row| row.account == "last").unwrap();
    assert_eq!((last.cents, &*last.signs), (1000, "-11"));
    assert!(last.trail.ends_with("/3"), "its version is that of the private event: {last:?}");
    assert_eq!(sorted(rows), sorted(expected(&log, Position::new(i64::MAX))));
    for event in log.iter().step_by(17) {
        let at = event.position;
        let rows = own.query::<Paid>().as_of(AsOf::Position(at)).all().await.unwrap();
        assert_eq!(sorted(rows), sorted(expected(&log, at)), "as of {at}");
    }
    let client = database.client().await;
    let parked: i64 = value(&client, "select count(*) from annals.parked_streams").await;
    assert_eq!(parked, 0);
    assert!(!relay.has_dead_letters("account").await);
}
