//! Where a follower of the log begins.

use std::time::Duration;

use annals_eventstore::{Error, EventStore, Position};
use chrono::{DateTime, TimeDelta, Utc};

/// Where in the log a follower without a checkpoint begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With the first event.
    Beginning,
    /// With what is recorded from now on.
    End,
    /// With the first event after this position.
    Position(Position),
    /// With the first event recorded at or after this time.
    Time(DateTime<Utc>),
}

impl Start {
    /// The position after which it begins: that of a first checkpoint.
    ///
    /// Everything at or below it is recorded, and seen by whoever asks.
    ///
    /// # Errors
    /// [`Error::BeyondEnd`] for a position that the log has not come to, [`Error::Future`] for a time
    /// that is not over, or a failure of the database.
    pub async fn resolve(self, store: &EventStore) -> Result<Position, Error> {
        match self {
            Self::Beginning => Ok(Position::START),
            Self::End => store.safe_position().await,
            Self::Position(at) => settled(store, at).await,
            // Before the first time that can be told there is nothing.
            Self::Time(time) => match time.checked_sub_signed(TimeDelta::nanoseconds(1)) {
                Some(before) => store.position_at(before).await,
                None => Ok(Position::START),
            },
        }
    }
}

/// Waits for the appends in flight below a position of the log.
async fn settled(store: &EventStore, at: Position) -> Result<Position, Error> {
    loop {
        // First these: an append that ends before the second question is safe by then.
        let in_flight = store.in_flight().await?;
        let end = store.safe_position().await?;
        if at <= end {
            return Ok(at);
        }
        if in_flight.is_empty() {
            return Err(Error::BeyondEnd { at, end });
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}
