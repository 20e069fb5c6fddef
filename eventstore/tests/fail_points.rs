//! Each fail point of the store: what is tried there fails, and comes out exact afterwards.
//!
//! Fail points are the program's, so all of them are in one test.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use annals_eventstore::{
    Append, Envelope, Error, EventStore, ExpectedVersion, Position,
    postgres::{Checkpoint, Lease, LeaseOptions},
    testkit::faults::{Injected, STORE_FAIL_POINTS},
};

use crate::support::{
    TestDatabase,
    counter::{Change, load},
    events, in_time, stream,
};

fn is_injected(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|cause| {
        let shared = cause.downcast_ref::<std::sync::Arc<Error>>();
        cause.is::<Injected>() || shared.is_some_and(|error| is_injected(&**error))
    })
}

/// What comes by the point: a command, a unit of work, or a reader's checkpoint.
async fn work(store: &EventStore, point: &str, checkpoint: &mut Checkpoint) -> Result<(), Error> {
    match point.split_once('-').unwrap().0 {
        "unit" => {
            let mut unit = store.begin().await?;
            if unit.idempotency_key(point, &point).await?.is_none() {
                let append = Append::to(stream(point), ExpectedVersion::Any, events([1]));
                unit.append(append).await?;
                unit.commit().await?;
            }
        }
        "checkpoint" => {
            let database = store.database()?;
            let transaction = database.begin().await?;
            let to = Position::new(checkpoint.position().get() + 1);
            checkpoint.advance(transaction.client()?, to).await?;
            transaction.commit().await?;
            checkpoint.moved(to);
        }
        "lease" => {
            // One that was taken, and of which nobody knows, is waited for.
            let database = store.database()?;
            let options = LeaseOptions::new(Duration::from_secs(3600));
            let lease = loop {
                match Lease::try_acquire(database, point, options).await? {
                    Some(lease) => break lease,
                    None => {
                        let over = "update annals.leases set expires_at = clock_timestamp()";
                        database.client().await?.batch_execute(over).await.unwrap();
                    }
                }
            };
            lease.renew().await?;
            // Nobody else has it meanwhile.
            assert!(Lease::try_acquire(database, point, options).await?.is_none());
            lease.release().await?;
        }
        _ => {
            let command = Envelope::new(Change::new(point, [1])).idempotency_key(point);
            let mut outcomes = store.execute_all([command]).await?;
            outcomes.pop().unwrap().map(drop).map_err(|error| match error {
                annals_eventstore::ExecuteError::Failed(error) => error,
                error => panic!("{error:?}"),
            })?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_at_any_point_comes_out_exact() {
    in_time(async {
        let database = TestDatabase::create().await;
        let store = EventStore::options().max_attempts(2).connect(&database.url()).await.unwrap();
        let mut checkpoint =
            Checkpoint::take_over(store.database().unwrap(), "reader", 1).await.unwrap();
        for (number, point) in (1..).zip(STORE_FAIL_POINTS) {
            fail::cfg(point, "return").unwrap();
            let error = work(&store, point, &mut checkpoint).await.unwrap_err();
            assert!(is_injected(&error) && error.is_retryable(), "{point}: {error:?}");
            fail::remove(point);
            work(&store, point, &mut checkpoint).await.unwrap();
            work(&store, point, &mut checkpoint).await.unwrap();
            let position = Checkpoint::position_of(store.database().unwrap(), "reader").await;
            match point.split_once('-').unwrap().0 {
                "checkpoint" => {
                    assert_eq!(position.unwrap(), Some(checkpoint.position()), "{point}");
                }
                "lease" => {
                    let database = store.database().unwrap();
                    let free = Lease::try_acquire(database, point, LeaseOptions::default()).await;
                    // The one that failed, and the two that did not.
                    assert_eq!(free.unwrap().unwrap().epoch(), 4, "{point}");
                }
                "unit" => {
                    let info = store.stream_info(&stream(point)).await.unwrap().unwrap();
                    assert_eq!(info.version.get(), 1, "{point}");
                }
                _ => assert_eq!(load(&store, point).await.state.total, 1, "{point}"),
            }
            println!("{number}: {point}");
        }
    })
    .await;
}
