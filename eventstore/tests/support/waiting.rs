//! Waiting, without a limit on speed.

use std::time::Duration;

/// What everything in the tests waits for at most. It bounds a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Runs a test, and fails it if it hangs.
pub(crate) async fn in_time<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, test).await.expect("the test hangs")
}

/// Asks again and again until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE / 2, asking).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// True if the future is still at it after a good while.
pub(crate) async fn is_waiting<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    tokio::time::timeout(Duration::from_millis(400), future).await.is_err()
}

/// An error with all its causes, as text: what a program would print or log.
pub(crate) fn text(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(|error| format!("{error} / {error:?}")).collect::<Vec<_>>().join(": ")
}
