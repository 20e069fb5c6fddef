//! The connection is cut at every step of the protocol that an append takes.

use annals_eventstore::{Append, Error, EventStore, ExpectedVersion};

use crate::{
    cutter::{Connection, Cutter, Way},
    support::{TestDatabase, assert_sound, events, eventually, log, number, stream},
};

/// Of appends that were cut short: how many surely had no effect, and how many are of unknown outcome, absent
/// and recorded.
#[derive(Debug, Default)]
struct Cuts {
    without_effect: usize,
    absent: usize,
    recorded: usize,
}

fn append(number: i64) -> Append {
    // Two streams, so that half an append would be seen.
    Append::to(stream(format!("a {number}")), ExpectedVersion::NoStream, events([number; 2]))
        .and(stream("all"), ExpectedVersion::Any, events([number]))
        .idempotency_key(number.to_string())
}

/// Cuts after the first message, then after the second, until the whole append comes before the cut: of an
/// append that connects and prepares its statement first, or of one that finds that done.
async fn at_every_step(connection: Connection, way: Way) -> Cuts {
    let database = TestDatabase::create().await;
    let direct = database.store().await;
    let mut cuts = Cuts::default();
    for step in 0.. {
        assert!(step < 100, "an append has no end");
        let cutter = Cutter::start(crate::support::server()).await;
        let options = EventStore::options().writers(1);
        let store = options.connect(&database.url_at(cutter.port)).await.unwrap();
        let number = 2 * step + 1;
        if let Connection::Used = connection {
            store.append(append(number - 1)).await.unwrap();
            eventually("the append is announced", async || cutter.has_announced()).await;
        }
        cutter.cut(connection, way, step as usize);
        let outcome = store.append(append(number)).await;
        let was_cut = !cutter.disarm();
        let recorded = log(&direct).await.iter().filter(|e| self::number(e) == number).count();
        assert!(matches!(recorded, 0 | 3), "step {step}: half of the append is there");
        match &outcome {
            Ok(_) => assert_eq!(recorded, 3, "step {step}: acknowledged"),
            Err(error @ Error::Indeterminate { .. }) => {
                assert!(error.is_retryable());
                cuts.recorded += recorded / 3;
                cuts.absent += 1 - recorded / 3;
            }
            Err(error) => {
                assert!(error.is_retryable(), "step {step}: {error:?}");
                assert_eq!(recorded, 0, "step {step}: it surely had no effect: {error:?}");
                cuts.without_effect += 1;
            }
        }
        // The same key settles it, over the same store. What was in flight when it was cut may have been
        // recorded since.
        let settled = loop {
            match store.append(append(number)).await {
                Ok(settled) => break settled,
                Err(error) => assert!(error.is_retryable(), "step {step}: {error:?}"),
            }
        };
        assert!(settled.replayed || recorded == 0, "step {step}: recorded twice");
        let log = log(&direct).await;
        let of_append: Vec<_> = log.iter().filter(|e| self::number(e) == number).collect();
        assert_eq!(of_append.len(), 3, "step {step}");
        assert_eq!(of_append[0].position, settled.first_position, "step {step}");
        if outcome.is_ok() && !was_cut {
            break;
        }
    }
    assert_sound(&log(&direct).await);
    assert_eq!(direct.verify().run().await.unwrap().findings, []);
    println!("{connection:?} connection, {way:?}: {cuts:?}");
    cuts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_way_to_the_server_over_a_new_connection() {
    let cuts = at_every_step(Connection::New, Way::ToServer).await;
    assert!(cuts.without_effect > 0 && cuts.absent > 0, "{cuts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_way_back_over_a_new_connection() {
    let cuts = at_every_step(Connection::New, Way::ToClient).await;
    assert!(cuts.without_effect > 2 && cuts.recorded > 0, "{cuts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_way_to_the_server_over_a_used_connection() {
    let cuts = at_every_step(Connection::Used, Way::ToServer).await;
    assert!(cuts.absent > 0, "{cuts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_way_back_over_a_used_connection() {
    let cuts = at_every_step(Connection::Used, Way::ToClient).await;
    assert!(cuts.recorded > 0, "{cuts:?}");
}
