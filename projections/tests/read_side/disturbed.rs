//! Under the kit of faults: read models and reactors come out exact, and a reactor that does not heed its ids is found
//! out.

use std::{sync::Arc, time::Duration};

use annals_eventstore::{
    EventStore, Recorded,
    testkit::faults::{Fault, Faults, Link, Plan, Seed},
};
use annals_projections::{
    Cause, Effect, React, Reaction, Reactor, ReactorSource, Start, Worker,
    testkit::faults::Disturbed,
};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{
    Running,
    database::{TestDatabase, value},
    eventually, lease,
    ledger::{Ledger, LedgerEvent, Tally},
    load::Load,
    oracle::{assert_exact, log},
};

/// How a payment is made for each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Under the id of the effect: what comes again is known.
    Careful,
    /// Each time that it is asked.
    Careless,
}

struct Payments {
    client: Arc<Client>,
    manner: Manner,
}

impl Reactor for Payments {
    fn name(&self) -> &str {
        match self.manner {
            Manner::Careful => "careful",
            Manner::Careless => "careless",
        }
    }

    fn sources() -> Vec<ReactorSource<Self>> {
        vec![ReactorSource::of::<Ledger>()]
    }

    fn start(&self) -> Start {
        Start::Beginning
    }
}

impl React<LedgerEvent> for Payments {
    async fn react(
        &self,
        event: &Recorded<LedgerEvent>,
        effect: &Effect,
    ) -> Result<Reaction, Cause> {
        let id = match self.manner {
            Manner::Careful => effect.id,
            Manner::Careless => Uuid::now_v7(),
        };
        let sql = "insert into payments values ($1, $2, $3) on conflict (id) do nothing";
        self.client.execute(sql, &[&self.name(), &id, &event.position.get()]).await?;
        Ok(Reaction::Done)
    }
}

async fn reached(client: &Client, reactor: &str) -> i64 {
    let sql = format!("select coalesce(annals.reached('projection:{reactor}'), -1)");
    value(client, &sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_heeds_its_ids_comes_out_exact_and_what_does_not_is_found_out() {
    let database = TestDatabase::create().await;
    let (direct, client) = (database.store().await, Arc::new(database.client().await));
    let tables =
        "create table payments (payer text not null, id uuid primary key, position bigint)";
    client.batch_execute(tables).await.unwrap();

    let seed = Seed::any();
    let link = Link::postgres(&database.url()).await.unwrap();
    let store = EventStore::connect(link.url()).await.unwrap();
    let faults = Faults::new(seed)
        .rate(Fault::Failure, 0.05)
        .rate(Fault::LostAnswer, 0.15)
        .rate(Fault::Repetition, 0.1)
        .rate(Fault::Delay, 0.1);
    let payments = |manner| Payments { client: client.clone(), manner };
    let worker = Worker::new(&faults.store(&store))
        .projection::<Tally>()
        .reactor(Disturbed::new(payments(Manner::Careful), &faults))
        .reactor(Disturbed::new(payments(Manner::Careless), &faults))
        .poll_interval(Duration::from_millis(20))
        .lease(lease(2000))
        .attempts(50)
        .break_after(1000);
    let mut running = Running::start(worker);
    link.follow(Plan::new(seed).cuts(0.001).loses_answers(0.002));
    Load::start(&direct, seed.get(), 2, 60).done().await;
    link.follow(None);
    running.caught_up::<Tally>(&direct).await;
    let end = direct.safe_position().await.unwrap().get();
    for reactor in ["careful", "careless"] {
        eventually(reactor, || async { reached(&client, reactor).await >= end }).await;
    }
    assert!(running.is_running());
    running.stop().await;

    assert_exact::<Tally>(&direct, &client).await;
    let events = log(&direct).await;
    let events = events.iter().filter(|event| event.stream.category() == "ledger").count() as i64;
    let count = |payer: &str| {
        let sql = format!("select count(*) from payments where payer = '{payer}'");
        let client = client.clone();
        async move { value::<i64>(&client, &sql).await }
    };
    let (careful, careless) = (count("careful").await, count("careless").await);
    assert_eq!(careful, events);
    assert!(careless > events, "{careless} payments for {events} events: it tests nothing");
    println!(
        "{events} events; {careless} payments without ids; {} cuts and the like; {:?}",
        link.disturbed(),
        Fault::ALL.map(|fault| (fault, faults.injected(fault)))
    );
}
