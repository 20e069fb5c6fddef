//! The travel example as its users run it: four processes, each on a database of its own, of which each is killed.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod support;

use std::{
    io::{Read, Seek},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use annals::{Append, EventStore, ExpectedVersion, NewEvent, Payload, StreamId};
use serde_json::json;
use support::{count, example, execute, server, url_of};
use uuid::Uuid;

/// How long a run may take on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(400);

/// The names of the databases of one test, which are dropped at the end.
struct Databases(String);

impl Databases {
    fn new() -> Self {
        Self(format!("annals_travel_test_{}", std::process::id()))
    }

    fn url(&self, service: &str) -> String {
        url_of(&server(), &format!("{}_{service}", self.0))
    }
}

impl Drop for Databases {
    fn drop(&mut self) {
        let names = ["booking", "flight", "hotel", "car"].map(|name| format!("{}_{name}", self.0));
        // A runtime cannot be entered from within another; a thread of its own can.
        let drop = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                for name in names {
                    let sql = format!("drop database if exists {name} with (force)");
                    execute(&server(), &sql).await;
                }
            });
        });
        drop.join().unwrap();
    }
}

/// What a program printed, and how it ended.
struct Ended {
    status: ExitStatus,
    printed: String,
    errors: String,
}

impl Ended {
    fn last_line(&self) -> &str {
        self.printed.trim_end().lines().last().unwrap_or_default()
    }
}

/// Runs the example with these arguments; it is killed when it takes too long.
fn travel(databases: &Databases, arguments: &[&str]) -> Ended {
    let mut command: Command = example("travel");
    let [mut out, mut err] = [(), ()].map(|()| tempfile::tempfile().unwrap());
    command.env("DATABASE_URL", server());
    command.args(arguments).args(["--databases", &databases.0]);
    command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let (mut child, begun) = (command.spawn().unwrap(), Instant::now());
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() > LIMIT => child.kill().unwrap(),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let [printed, errors] = [&mut out, &mut err].map(|file| {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    });
    Ended { status, printed, errors }
}

#[tokio::test(flavor = "multi_thread")]
async fn bookings_end_whole_or_undone_and_the_checker_sees_one_that_does_not() {
    let databases = Databases::new();
    let run = travel(&databases, &["run", "--keep", "--rate", "10", "--seconds", "12"]);
    let said = format!("{}\n{}", run.printed, run.errors);
    assert!(run.status.success(), "{said}");
    assert!(run.last_line().starts_with("SOUND: 120 bookings"), "{said}");
    for service in ["flight", "hotel", "car", "booking", "booking 2"] {
        assert!(run.errors.contains(&format!("{service} is back")), "{said}");
    }
    // There were faults: what failed was tried again, and some of it was undone.
    let of_sagas = |what: &str| {
        format!(
            "select count(*) from annals.events e join annals.streams s on s.id = e.stream_id
             where s.category = 'fulfilment' and e.type = 'saga.{what}'"
        )
    };
    let booking = databases.url("booking");
    assert!(count(&booking, &of_sagas("failed")).await > 0, "{said}");
    let ended = [of_sagas("completed"), of_sagas("compensated")];
    let (booked, undone) = (count(&booking, &ended[0]).await, count(&booking, &ended[1]).await);
    assert_eq!(booked + undone, 120, "{said}");
    assert!(booked > undone, "{said}");

    // A room more than was asked for.
    let key = "select key from annals.sagas where status = 'completed' order by key limit 1";
    let booked: String = support::text(&booking, key).await;
    let store = EventStore::connect(&databases.url("hotel")).await.unwrap();
    let payload = json!({
        "kind": "hotel", "booking": booked, "destination": "Bergen", "travellers": 2,
    });
    let event = NewEvent::raw("reserved", 1, Payload::from_json(payload.to_string()).unwrap());
    let stream = StreamId::new("reservation", Uuid::now_v7()).unwrap();
    store.append(Append::to(stream, ExpectedVersion::NoStream, [event])).await.unwrap();
    store.close().await;
    let check = travel(&databases, &["check"]);
    let said = format!("{}\n{}", check.printed, check.errors);
    assert_eq!(check.status.code(), Some(1), "{said}");
    let finding = format!(
        "half: booking {booked} is booked, with active reservations of 1 flight, 2 hotel, 1 car"
    );
    assert!(check.printed.contains(&finding), "{said}");
    assert_eq!(check.last_line(), "BROKEN: 120 bookings, 1 findings", "{said}");
}
