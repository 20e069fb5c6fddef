//! Feeds from a broker that lets nobody in who does not prove who it is.

use std::time::Duration;

use annals_eventstore::kafka::{Sasl, Security};
use annals_projections::{QueryReadModels, Worker};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    cluster::INTERNAL,
    relay::Relay,
    secured::{PASSWORD, SECURE, STRANGER, Secured, USER},
    support::{
        PATIENCE, Running,
        account::{Balance, move_some},
        database::TestDatabase,
        lease,
        oracle::{assert_exact, fold, log, sorted},
        worker,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_fed_over_tls_with_a_password() {
    let secured = Secured::start().await;
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    let security = Security::new().tls(secured.tls()).sasl(Sasl::scram_sha_512(USER, PASSWORD));
    let relay = Relay::at(secured.cluster.brokers_at(SECURE), security.clone(), &store);
    let source = || relay.source().security(&security).unwrap();
    let mut running = Running::start(worker::<Balance>(&store).kafka(source()).lease(lease(1500)));
    let some = || async {
        let mut rng = StdRng::from_rng(&mut rand::rng());
        for _ in 0..5 {
            move_some(&store, &mut rng).await;
        }
    };
    relay.feeds("balances", some).await;
    running.caught_up::<Balance>(&store).await;
    running.stop().await;
    assert_exact::<Balance>(&store, &client).await;

    // Without the password it waits, and goes on where it was once it has it.
    let wrong = Security::new().tls(secured.tls()).sasl(Sasl::scram_sha_512(USER, "battery"));
    let kept_out = worker::<Balance>(&store).kafka(relay.source().security(&wrong).unwrap());
    let kept_out = Running::start(kept_out.lease(lease(1500)));
    some().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(kept_out.is_running());
    kept_out.stop().await;
    let mut running = Running::start(worker::<Balance>(&store).kafka(source()).lease(lease(1500)));
    running.caught_up::<Balance>(&store).await;
    running.stop().await;
    assert_exact::<Balance>(&store, &client).await;
}

/// What rights are of, as Kafka numbers it.
#[derive(Clone, Copy)]
enum Of {
    Topic = 2,
    Group = 3,
    TransactionalId = 5,
}

/// How the name of a resource is meant.
#[derive(Clone, Copy)]
enum Named {
    Exactly = 3,
    Beginning = 4,
}

#[derive(Clone, Copy)]
enum Right {
    Read = 3,
    Write = 4,
    Create = 5,
    Describe = 8,
    DescribeConfigs = 10,
}

/// Lets [`STRANGER`] do something from now on. (CreateAcls, key 30, version 1: the client has no call for it.)
async fn allow(port: u16, of: Of, (named, name): (Named, &str), right: Right) {
    let mut request = vec![0, 30, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 1, of as u8];
    let text = |request: &mut Vec<u8>, text: &str| {
        request.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        request.extend(text.as_bytes());
    };
    text(&mut request, name);
    request.push(named as u8);
    text(&mut request, &format!("User:{STRANGER}"));
    text(&mut request, "*");
    // 3 is to allow.
    request.extend([right as u8, 3]);
    let mut broker = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    broker.write_i32(request.len().try_into().unwrap()).await.unwrap();
    broker.write_all(&request).await.unwrap();
    let mut answer = vec![0; broker.read_i32().await.unwrap().try_into().unwrap()];
    broker.read_exact(&mut answer).await.unwrap();
    // Correlation, throttling, one result: its error.
    assert_eq!(answer[8..14], [0, 0, 0, 1, 0, 0], "{answer:?}");
}

async fn allow_all(secured: &mut Secured, rights: &[(Of, (Named, &str), Right)]) {
    let port = secured.cluster.node(1).port(INTERNAL);
    for (of, name, right) in rights {
        allow(port, *of, *name, *right).await;
    }
}

/// With the rights in the guide's table and no others.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_needs_the_rights_in_the_guide() {
    let mut secured = Secured::start().await;
    let database = TestDatabase::create().await;
    let (store, client) = (database.store().await, database.client().await);
    // What contexts here begin with.
    let all = (Named::Beginning, "fed.");
    let rights = [
        (Of::Topic, all, Right::Write),
        (Of::Topic, all, Right::Read),
        (Of::Topic, all, Right::Create),
        (Of::Topic, all, Right::DescribeConfigs),
        (Of::TransactionalId, all, Right::Write),
        (Of::Group, (Named::Exactly, "annals-publisher"), Right::Describe),
    ];
    allow_all(&mut secured, &rights).await;
    let security = Security::new().tls(secured.tls()).sasl(Sasl::scram_sha_512(STRANGER, PASSWORD));
    let relay = Relay::at(secured.cluster.brokers_at(SECURE), security, &store);
    let source = annals_projections::kafka::Source::new(secured.cluster.brokers(), &relay.context);
    let mut running = Running::start(worker::<Balance>(&store).kafka(source.unwrap()));
    let some = || async { move_some(&store, &mut StdRng::from_rng(&mut rand::rng())).await };
    relay.feeds("balances", some).await;
    running.caught_up::<Balance>(&store).await;
    running.stop().await;
    assert_exact::<Balance>(&store, &client).await;
}

/// With the rights in the guide's table and no others.
#[tokio::test(flavor = "multi_thread")]
async fn another_service_needs_the_rights_in_the_guide() {
    let mut secured = Secured::start().await;
    let (owners, database) = (TestDatabase::create().await, TestDatabase::create().await);
    let (owner, own) = (owners.store().await, database.store().await);
    let relay = Relay::at(secured.cluster.brokers(), Security::new(), &owner);
    let mut rng = StdRng::from_rng(&mut rand::rng());
    for _ in 0..5 {
        move_some(&owner, &mut rng).await;
    }
    relay.published().await;
    let context = relay.context.clone();
    let (all, group) = (format!("{context}."), format!("annals.{context}"));
    let letters = format!("{}.dlq", relay.topic("account"));
    let (all, group) = ((Named::Beginning, &*all), (Named::Exactly, &*group));
    let letters = (Named::Exactly, &*letters);
    let rights = [
        (Of::Topic, all, Right::Read),
        (Of::Group, group, Right::Describe),
        (Of::Group, all, Right::Read),
        (Of::Topic, letters, Right::Write),
        (Of::Topic, letters, Right::Create),
        (Of::Topic, letters, Right::DescribeConfigs),
    ];
    allow_all(&mut secured, &rights).await;
    let security = Security::new().tls(secured.tls()).sasl(Sasl::scram_sha_512(STRANGER, PASSWORD));
    let source =
        annals_projections::kafka::Source::new(secured.cluster.brokers_at(SECURE), context.clone());
    let source = source.unwrap().security(&security).unwrap();
    let worker = || Worker::consumer(&own, source.clone()).projection::<Balance>();
    for _ in 0..2 {
        let running = Running::start(worker());
        relay.send_junk("account").await;
        move_some(&owner, &mut rng).await;
        let end = owner.safe_position().await.unwrap();
        own.query::<Balance>().wait_for(end, PATIENCE / 2).await.unwrap();
        running.stop().await;
    }
    let rows = own.query::<Balance>().all().await.unwrap();
    let log = log(&owner).await;
    let expected = fold::<Balance>(&log, owner.safe_position().await.unwrap()).rows;
    assert_eq!(sorted(rows), sorted(expected.into_values()));
    assert!(!relay.dead_letters("account").await.is_empty());
}
