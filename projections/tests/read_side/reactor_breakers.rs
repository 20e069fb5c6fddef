//! A reactor that asks several services, each through a breaker of its own: one that is down holds up no other.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use annals_eventstore::{
    Recorded,
    breaker::{BreakerOptions, CircuitBreaker, CircuitState},
};
use annals_projections::{
    Cause, Effect, React, Reaction, Reactor, ReactorSource, Start, Worker, control,
};

use crate::support::{
    Running,
    database::TestDatabase,
    eventually,
    ledger::{Ledger, LedgerEvent, add},
};

/// Sends letters, which works, and mails, whose service may be down.
#[derive(Clone)]
struct Sender {
    mails: CircuitBreaker,
    are_down: Arc<AtomicBool>,
    /// To whom, and whether it was sent.
    calls: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Sender {
    fn count(&self, to: &str, sent: bool) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(key, was)| key.starts_with(to) && *was == sent).count()
    }
}

impl Reactor for Sender {
    fn name(&self) -> &str {
        "sender"
    }

    fn sources() -> Vec<ReactorSource<Self>> {
        vec![ReactorSource::of::<Ledger>()]
    }

    fn start(&self) -> Start {
        Start::Beginning
    }
}

impl React<LedgerEvent> for Sender {
    async fn react(&self, event: &Recorded<LedgerEvent>, _: &Effect) -> Result<Reaction, Cause> {
        let to = event.stream.key().to_owned();
        let is_mail = to.starts_with("mail");
        let send = async {
            let sent = !(is_mail && self.are_down.load(Ordering::Relaxed));
            self.calls.lock().unwrap().push((to, sent));
            if sent { Ok(Reaction::Done) } else { Err("mails are down".into()) }
        };
        if is_mail { Reaction::through(&self.mails, send).await } else { send.await }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_holds_up_no_other_and_parks_nothing() {
    let database = TestDatabase::create().await;
    let store = database.store().await;
    let cool_down = Duration::from_millis(300);
    let options = BreakerOptions::default().failures(2).cool_down(cool_down, cool_down);
    let sender = Sender {
        mails: CircuitBreaker::new("mails", options),
        are_down: Arc::new(true.into()),
        calls: Arc::default(),
    };
    for number in 0..6 {
        add(&store, &format!("mail {number}"), 1).await;
    }
    let worker = Worker::new(&store).reactor(sender.clone());
    let running = Running::start(worker.poll_interval(Duration::from_millis(20)));
    eventually("the breaker opens", async || sender.mails.state() == CircuitState::Open).await;
    for number in 0..10 {
        add(&store, &format!("letter {number}"), 1).await;
    }
    eventually("letters are sent", async || sender.count("letter", true) == 10).await;
    // Whatever was under way when it opened has ended by then.
    let tried = sender.count("mail", false);
    eventually("it is tried again and again", async || sender.count("mail", false) >= tried + 6)
        .await;
    assert_eq!(sender.count("mail", true), 0);
    assert_eq!(
        control::parked(&store, Some("sender")).await.unwrap(),
        [],
        "an outage parks nothing"
    );

    sender.are_down.store(false, Ordering::Relaxed);
    eventually("mails are sent", async || sender.count("mail", true) == 6).await;
    assert_eq!(sender.mails.state(), CircuitState::Closed);
    assert_eq!(control::parked(&store, Some("sender")).await.unwrap(), []);
    running.stop().await;
    assert_eq!((sender.count("mail", true), sender.count("letter", true)), (6, 10), "each once");
}
