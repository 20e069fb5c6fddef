//! The steps of a publisher, at each of which a test can make it fail.

/// The fail points of the publisher, in the order in which it comes by them.
///
/// With the feature `fail-points` each is one of the crate [`fail`](https://docs.rs/fail): what is to happen
/// there is said by the variable `FAILPOINTS`, or by `fail::cfg` and `fail::cfg_callback` in the program,
/// such as a callback that ends the process. Without the feature they are not there.
///
/// | Point | The publisher |
/// |---|---|
/// | `publisher-lease-taken` | holds the lease, and nothing else |
/// | `publisher-connected` | has reached the broker, and seen to the progress topic |
/// | `publisher-initialised` | has ended its predecessor's transaction, and fenced it |
/// | `publisher-progress-read` | knows how far the store is published |
/// | `publisher-begun` | has begun a transaction |
/// | `publisher-sent` | has handed over an event; once for each |
/// | `publisher-delivered` | has the acknowledgements of a batch |
/// | `publisher-progress-sent` | has handed over the progress |
/// | `publisher-before-commit` | has the acknowledgement of the progress, too |
/// | `publisher-committed` | has committed |
/// | `publisher-before-checkpoint` | is about to move the checkpoint in the database |
/// | `publisher-checkpoint-moved` | has moved it |
///
/// At `publisher-committed`, the action `return` is an answer that is lost: the publisher does not know whether it
/// has committed.
///
/// Published at least once, nothing is initialised, begun or committed.
pub const FAIL_POINTS: [&str; 12] = [
    "publisher-lease-taken",
    "publisher-connected",
    "publisher-initialised",
    "publisher-progress-read",
    "publisher-begun",
    "publisher-sent",
    "publisher-delivered",
    "publisher-progress-sent",
    "publisher-before-commit",
    "publisher-committed",
    "publisher-before-checkpoint",
    "publisher-checkpoint-moved",
];
