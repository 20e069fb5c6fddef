//! What appends were said to have come to, held against the log.

use annals_eventstore::{Append, Appended, Error, ExpectedVersion, Recorded};

use super::{events, number, stream};

/// An append of three events to two streams, so that half an append would be seen.
pub(crate) fn halves(shared: i64, task: i64, number: i64) -> Append {
    Append::to(stream(shared), ExpectedVersion::Any, events([number; 2])).and(
        stream(format!("own {task}")),
        ExpectedVersion::Any,
        events([number]),
    )
}

#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    pub(crate) acknowledged: usize,
    pub(crate) unknown: usize,
}

impl Outcomes {
    /// Checks the outcome of each append of [`halves`], by its number, and counts.
    pub(crate) fn of(
        log: &[Recorded],
        outcomes: impl IntoIterator<Item = (i64, Result<Appended, Error>)>,
    ) -> Self {
        let mut counts = Self::default();
        for (appended_as, outcome) in outcomes {
            let recorded: Vec<_> =
                log.iter().filter(|event| number(event) == appended_as).collect();
            match outcome {
                Ok(appended) => {
                    counts.acknowledged += 1;
                    assert_eq!(recorded.len(), 3, "append {appended_as} was acknowledged");
                    assert_eq!(recorded[0].position, appended.first_position);
                    assert_eq!(recorded[2].position, appended.last_position);
                }
                Err(error @ Error::Indeterminate { .. }) => {
                    counts.unknown += 1;
                    assert!(error.is_retryable());
                    let count = recorded.len();
                    assert!(matches!(count, 0 | 3), "half of append {appended_as} is there");
                }
                Err(error) => {
                    assert!(error.is_retryable(), "{error:?}");
                    let count = recorded.len();
                    assert_eq!(count, 0, "{appended_as} surely had no effect: {error:?}");
                }
            }
        }
        counts
    }
}
