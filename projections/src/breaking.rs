//! Circuit breakers of a program's own around what sagas and reactors ask of others.

use std::time::Duration;

use annals_eventstore::breaker::{Broken, CircuitBreaker, Passage};
use rand::Rng;

use crate::guard::Cause;

/// How long to wait at least before asking again whether a breaker is still open.
const LEAST: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
#[error("the circuit breaker {0:?} did not let it through")]
struct NotLetThrough(String);

/// What came of a call through a breaker.
pub(crate) enum Passed<T> {
    /// It was made and answered.
    Made(T),
    /// It was not made, since the breaker is open: to be put off for so long.
    Refused(Duration),
    /// It was the one by which an open breaker finds out, and failed: that tells of the other side, and nobody knows
    /// what came of the call. To be put off for so long.
    TrialFailed(Duration, Cause),
}

/// Makes a call through a breaker.
///
/// An error speaks against the other side: nobody knows what came of the call. What the other side says does not, whatever
/// it is.
pub(crate) async fn through<T>(
    circuit: &CircuitBreaker,
    call: impl Future<Output = Result<T, Cause>>,
) -> Result<Passed<T>, Cause> {
    let mut passage = Passage::Usual;
    let call = |as_what| {
        passage = as_what;
        call
    };
    let called = circuit.call_as(call, |_| true).await;
    match called {
        Ok(answer) => Ok(Passed::Made(answer)),
        Err(Broken::Failed(cause)) if passage == Passage::Trial => {
            Ok(Passed::TrialFailed(spread(LEAST), cause))
        }
        Err(Broken::Failed(cause)) => Err(cause),
        Err(Broken::Open { retry_after, .. }) => Ok(Passed::Refused(spread(retry_after))),
        // There are no others in this version of the store.
        Err(_) => Err(NotLetThrough(circuit.name().to_owned()).into()),
    }
}

/// A little later, and not all at the same time.
fn spread(wait: Duration) -> Duration {
    let least = wait.max(LEAST);
    least + (least / 4).mul_f64(rand::rng().random_range(0.0..=1.0))
}
