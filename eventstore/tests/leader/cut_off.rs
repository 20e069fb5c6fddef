//! A leader whose network is cut.

use std::time::Duration;

use annals_eventstore::{leader::Election, postgres::LeaseOptions, testkit::faults::Passage};

use crate::{
    support::{TestDatabase, database::patient, in_time},
    writing::{Fence, Step, TABLE, interleaved, write},
};

/// Packets are lost, and no connection is closed: neither end can know. The leader is in the middle of a
/// transaction that it has guarded.
#[tokio::test(flavor = "multi_thread")]
async fn it_knows_that_it_lost_before_another_leads() {
    in_time(async {
        let database = TestDatabase::create().await;
        let client = database.client().await;
        client.batch_execute(TABLE).await.unwrap();
        let link = database.link().await;
        let options = patient(annals_eventstore::EventStore::options());
        let cut = options.connect(link.url()).await.unwrap();
        let other = database.store().await;
        let lease = LeaseOptions::new(Duration::from_secs(2));
        let election = |store| Election::new(store, "test").unwrap().lease(lease);
        let first = election(&cut).campaign().await.unwrap();
        write(&cut, &first, "first", Fence::Guarded, |_: Step| {}).await.unwrap();

        let open = cut.database().unwrap().begin().await.unwrap();
        first.guard(open.client().unwrap()).await.unwrap();
        link.set(Passage::Stalled);
        let second = election(&other).campaign().await.unwrap();
        // By its own clock, without a word from anybody.
        assert!(first.is_lost(), "two believe that they lead");
        first.lost().await;
        assert!(second.epoch() > first.epoch());
        write(&other, &second, "second", Fence::Guarded, |_: Step| {}).await.unwrap();
        assert_eq!(interleaved(&client).await, 0);
    })
    .await;
}
