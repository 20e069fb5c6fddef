//! Circuit breakers of a program's own around what sagas and reactors ask of others.

use std::time::Duration;

use annals_eventstore::breaker::{Broken, CircuitBreaker};
use rand::Rng;

use crate::guard::Cause;

/// How long to wait at least before asking again whether a breaker is still open.
const LEAST: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
#[error("the circuit breaker {0:?} did not let it through")]
struct NotLetThrough(String);

/// Makes a call through a breaker. Where that is open, the call is not made, and is to be put off for so long.
///
/// An error speaks against the other side: nobody knows what came of the call. What the other side says does not, whatever
/// it is.
pub(crate) async fn through<T>(
    circuit: &CircuitBreaker,
    call: impl Future<Output = Result<T, Cause>>,
    put_off: impl FnOnce(Duration) -> T,
) -> Result<T, Cause> {
    match circuit.call(call, |_| true).await {
        Ok(answer) => Ok(answer),
        Err(Broken::Failed(cause)) => Err(cause),
        Err(Broken::Open { retry_after, .. }) => Ok(put_off(spread(retry_after))),
        // There are no others in this version of the store.
        Err(_) => Err(NotLetThrough(circuit.name().to_owned()).into()),
    }
}

/// A little later, and not all at the same time.
fn spread(wait: Duration) -> Duration {
    let least = wait.max(LEAST);
    least + (least / 4).mul_f64(rand::rng().random_range(0.0..=1.0))
}
