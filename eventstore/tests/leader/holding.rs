//! One leads, the others wait, and what a former leader writes is refused.

use std::{future::pending, time::Duration};

use annals_eventstore::{
    Error, EventStore,
    leader::{Election, Leadership, leaders},
    postgres::LeaseOptions,
};

use tokio::time::sleep;

use crate::support::{
    TestDatabase, database::value, eventually, in_time, is_waiting, log, one, stream,
};

/// So long that nobody is replaced by time.
const LONG: LeaseOptions = LeaseOptions::new(Duration::from_secs(3600));

fn election(store: &EventStore) -> Election {
    Election::new(store, "report").unwrap().lease(LONG)
}

/// As if the leader's time were over, while it knows nothing of it.
const OVER: &str = "update annals.leases set expires_at = '-infinity'";

async fn fenced(store: &EventStore, leadership: &Leadership) -> bool {
    let transaction = store.database().unwrap().begin().await.unwrap();
    let guarded = leadership.guard(transaction.client().unwrap()).await;
    // Waited for: whoever campaigns next finds the lease locked otherwise.
    transaction.rollback().await.unwrap();
    match guarded {
        Ok(()) => false,
        Err(Error::Fenced { name }) => {
            assert_eq!(name, "report");
            true
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_who_comes_next_has_a_higher_epoch() {
    in_time(async {
        let database = TestDatabase::create().await;
        let (store, other) = (database.store().await, database.store().await);
        assert_eq!(election(&store).leader().await.unwrap(), None);
        let first = election(&store).campaign().await.unwrap();
        assert!(election(&other).try_campaign().await.unwrap().is_none());
        let leader = election(&other).leader().await.unwrap().unwrap();
        assert_eq!((&*leader.election, leader.epoch), ("report", first.epoch()));
        let process = format!(":{}:", std::process::id());
        assert!(leader.owner.contains(&process), "{leader:?}");
        assert!(leader.left > Duration::from_secs(3000), "{leader:?}");

        // Another election is none of its business.
        let another = Election::new(&other, "import").unwrap().campaign().await.unwrap();
        let all = leaders(&store).await.unwrap();
        let names: Vec<_> = all.iter().map(|leader| &*leader.election).collect();
        assert_eq!(names, ["import", "report"]);
        another.resign().await.unwrap();

        let campaigning = election(&other);
        let mut waiting = tokio::spawn(async move { campaigning.campaign().await.unwrap() });
        assert!(is_waiting(&mut waiting).await);
        let token = first.token();
        let epoch = first.epoch();
        assert!(!first.is_lost() && !token.is_cancelled());
        first.resign().await.unwrap();
        assert!(token.is_cancelled());
        let second = waiting.await.unwrap();
        assert!(second.epoch() > epoch);
        assert!(!fenced(&other, &second).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_leader_writes_nothing() {
    in_time(async {
        let database = TestDatabase::create().await;
        let (store, client) = (database.store().await, database.client().await);
        let first = election(&store).campaign().await.unwrap();
        assert!(!fenced(&store, &first).await);
        client.batch_execute(OVER).await.unwrap();
        // Nobody else has led: it may go on.
        assert!(!fenced(&store, &first).await);
        let second = election(&store).try_campaign().await.unwrap().unwrap();
        assert!(!first.is_lost(), "it knows nothing of it");

        // Events are fenced by the unit that they are appended in.
        let append = async |leadership: &Leadership, number| {
            let mut unit = store.begin().await?;
            unit.append(one(stream("a"), number)).await?;
            leadership.guard(unit.sql()?).await?;
            unit.commit().await.map(drop)
        };
        let refused = append(&first, 1).await;
        assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
        append(&second, 2).await.unwrap();
        assert_eq!(log(&store).await.len(), 1);
        assert!(first.is_lost(), "it knows by now");
        first.lost().await;
        // What it gives up is not the second one's.
        first.resign().await.unwrap();
        assert!(!fenced(&store, &second).await);
        assert_eq!(election(&store).leader().await.unwrap().unwrap().epoch, second.epoch());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_over_from_a_transaction_that_is_guarded() {
    in_time(async {
        let database = TestDatabase::create().await;
        let (store, client) = (database.store().await, database.client().await);
        let first = election(&store).campaign().await.unwrap();
        let transaction = store.database().unwrap().begin().await.unwrap();
        first.guard(transaction.client().unwrap()).await.unwrap();
        client.batch_execute(OVER).await.unwrap();
        assert!(election(&store).try_campaign().await.unwrap().is_none());
        // Not after it has resigned either.
        first.resign().await.unwrap();
        assert!(election(&store).try_campaign().await.unwrap().is_none());
        transaction.commit().await.unwrap();
        assert!(election(&store).try_campaign().await.unwrap().is_some());
    })
    .await;
}

/// As after a failure: the transaction is dropped, and rolled back a little later.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_resigned_is_replaced_as_soon_as_its_transaction_has_ended() {
    in_time(async {
        let database = TestDatabase::create().await;
        let store = database.store().await;
        // It is not waited for for long, and machines stand still for as long now and then.
        for _ in 0..5 {
            let first = election(&store).campaign().await.unwrap();
            let transaction = store.database().unwrap().begin().await.unwrap();
            first.guard(transaction.client().unwrap()).await.unwrap();
            first.resign().await.unwrap();
            let ends = async {
                sleep(Duration::from_millis(100)).await;
                drop(transaction);
            };
            let next = election(&store);
            let (led, ()) = tokio::join!(next.try_campaign(), ends);
            if led.unwrap().is_some() {
                return;
            }
        }
        panic!("it is never replaced at once");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_renewed_while_a_transaction_is_guarded() {
    in_time(async {
        let database = TestDatabase::create().await;
        let (store, client) = (database.store().await, database.client().await);
        let options = LeaseOptions::new(Duration::from_secs(6));
        let election = Election::new(&store, "report").unwrap().lease(options);
        let leadership = election.campaign().await.unwrap();
        let transaction = store.database().unwrap().begin().await.unwrap();
        let guarded = transaction.client().unwrap();
        leadership.guard(guarded).await.unwrap();
        let until = "select extract(epoch from expires_at)::float8 from annals.leases";
        let before: f64 = value(&client, until).await;
        eventually("it is renewed twice", || async {
            // The transaction is not idle.
            guarded.batch_execute("select 1").await.unwrap();
            value::<f64>(&client, until).await > before + 3.0
        })
        .await;
        transaction.commit().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_ends_with_the_leadership() {
    in_time(async {
        let database = TestDatabase::create().await;
        let (store, client) = (database.store().await, database.client().await);
        let options = LeaseOptions::new(Duration::from_secs(3));
        let election = Election::new(&store, "report").unwrap().lease(options);
        let leadership = election.campaign().await.unwrap();
        assert_eq!(leadership.run(async { 7 }).await, Some(7));
        // Somebody else has it, by whatever way: the next renewal finds out.
        client.batch_execute("update annals.leases set epoch = epoch + 1").await.unwrap();
        assert_eq!(leadership.run(pending::<()>()).await, None);
        assert!(leadership.is_lost());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_dropped_is_replaced_in_time() {
    in_time(async {
        let database = TestDatabase::create().await;
        let store = database.store().await;
        let options = LeaseOptions::new(Duration::from_millis(300));
        let election = Election::new(&store, "report").unwrap().lease(options);
        let first = election.campaign().await.unwrap();
        let epoch = first.epoch();
        drop(first);
        assert!(election.campaign().await.unwrap().epoch() > epoch);
    })
    .await;
}

#[tokio::test]
async fn in_memory_there_is_nobody_to_elect() {
    let error = Election::new(&EventStore::in_memory(), "report").unwrap_err();
    assert!(matches!(error, Error::NeedsPostgres { .. }), "{error:?}");
}
