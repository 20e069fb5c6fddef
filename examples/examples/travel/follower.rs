//! Somebody who follows the live updates of all bookings, and goes on where it was when a process is killed.
//!
//! What it is told must be whole: each change begins with the row that the change before it ended with, and in the end
//! there is no booking that it has not heard of.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::{Client, Url};
use serde_json::Value;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::shop::with_key;

/// The gateway sends something at least every 15 seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// How long to wait for bookings that it has not heard of, while it hears of none.
const PATIENCE: Duration = Duration::from_secs(30);

/// It follows until it is dropped.
pub(crate) struct Follower {
    seen: Arc<Mutex<Seen>>,
    following: JoinHandle<()>,
}

/// What it was told.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) changes: u64,
    pub(crate) connections: u64,
    pub(crate) wrong: Vec<String>,
    rows: HashMap<String, Value>,
    /// The id of the last event: 0 has all there is be told.
    last: u64,
}

impl Follower {
    /// Follows one process of the booking service after the other: to the next when a connection ends.
    pub(crate) fn start(gateways: &[Url], key: &str) -> anyhow::Result<Self> {
        let client = with_key(key)?.read_timeout(SILENCE).build()?;
        let (seen, gateways) = (Arc::<Mutex<Seen>>::default(), gateways.to_vec());
        let told = seen.clone();
        let following = tokio::spawn(async move {
            for gateway in gateways.iter().cycle() {
                // However it ends, there is another.
                let _ = follow(&client, gateway, &told).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Ok(Self { seen, following })
    }

    /// Waits until it has heard of all of these, or hears nothing more.
    pub(crate) async fn finish(self, bookings: &[Uuid]) -> Seen {
        let (mut changes, mut moved) = (0, Instant::now());
        loop {
            {
                let mut seen = lock(&self.seen);
                if seen.changes != changes {
                    (changes, moved) = (seen.changes, Instant::now());
                }
                let unseen = seen.unseen(bookings);
                if unseen.is_empty() || moved.elapsed() > PATIENCE {
                    seen.wrong.extend(unseen);
                    return std::mem::take(&mut *seen);
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.following.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(client: &Client, gateway: &Url, seen: &Mutex<Seen>) -> anyhow::Result<()> {
    let last = lock(seen).last;
    let request = client
        .get(gateway.join("/bookings")?)
        .header("accept", "text/event-stream")
        .header("last-event-id", last);
    let mut response = request.send().await?.error_for_status()?;
    lock(seen).connections += 1;
    let mut received = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        received.extend_from_slice(&chunk);
        while let Some(end) = received.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = received.drain(..end + 2).collect();
            lock(seen).hear(&String::from_utf8(event)?);
        }
    }
    Ok(())
}

impl Seen {
    /// What it should have heard of, and has not.
    fn unseen(&self, bookings: &[Uuid]) -> Vec<String> {
        let unseen = bookings.iter().filter(|id| !self.rows.contains_key(&id.to_string()));
        unseen.map(|id| format!("who followed never saw {id}")).collect()
    }

    /// An event, as lines of fields. Comments, which keep the connection open, have none.
    fn hear(&mut self, event: &str) {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        let (Some(id), Some(data)) = (field("id: "), field("data: ")) else { return };
        let (Ok(id), Ok(Value::Array(changes))) = (id.parse(), serde_json::from_str(data)) else {
            self.wrong.push(format!("who followed was told {event:?}"));
            return;
        };
        self.last = id;
        for change in changes {
            self.changes += 1;
            let (before, after) = (&change["before"], &change["after"]);
            let Some(booking) = after["booking"].as_str() else {
                self.wrong.push(format!("who followed saw a booking vanish: {before}"));
                continue;
            };
            let last = self.rows.insert(booking.to_owned(), after.clone()).unwrap_or_default();
            if last != *before {
                self.wrong.push(format!("who followed saw {last} and then a change of {before}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(events: &[&str]) -> Seen {
        let mut seen = Seen::default();
        events.iter().for_each(|event| seen.hear(event));
        seen
    }

    #[test]
    fn a_change_begins_where_the_last_one_ended() {
        let first =
            "event: changes\nid: 4\ndata: [{\"before\":null,\"after\":{\"booking\":\"a\"}}]\n\n";
        let second = "event: changes\nid: 9\ndata: [{\"before\":{\"booking\":\"a\"},\
                      \"after\":{\"booking\":\"a\",\"status\":1}}]\n\n";
        let whole = heard(&[first, ":\n\n", second]);
        assert_eq!((whole.changes, whole.last, whole.wrong.len()), (2, 9, 0));
        assert_eq!(heard(&[second]).wrong.len(), 1, "the first is missing");
        assert_eq!(heard(&[first, first]).wrong.len(), 1, "the first is there twice");
    }

    #[test]
    fn what_it_never_heard_of_is_told() {
        let id = Uuid::from_u128(7);
        let data = format!("id: 4\ndata: [{{\"before\":null,\"after\":{{\"booking\":\"{id}\"}}}}]");
        assert_eq!(heard(&[&data]).unseen(&[id]), Vec::<String>::new());
        assert_eq!(heard(&[]).unseen(&[id]).len(), 1);
    }
}
