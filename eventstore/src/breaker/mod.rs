//! Circuit breakers: what failed again and again is left alone for a while, and then tried once.
//!
//! A service that is down answers slowly, by time limits; whoever keeps asking it waits, holds what others
//! need, and keeps it from coming back. A breaker fails such calls at once. It is *closed* at first and lets
//! everything through. After a number of failures in a row it is *open* and lets nothing through. When its
//! cool-down is over it is *half open*: exactly one attempt goes through, and what comes of it closes the
//! breaker or opens it for twice as long. (M. Nygard, Release It!, 2007. The breakers that there are as
//! crates let everything through once the cool-down is over.)
//!
//! Only failures that say something about the other side count: not a command that was rejected.
//!
//! ```
//! use annals_eventstore::breaker::{Broken, BreakerOptions, CircuitBreaker};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let hotels = CircuitBreaker::new("hotels", BreakerOptions::default().failures(2));
//! for _ in 0..2 {
//!     let answer = hotels.call(async { Err::<(), _>("no answer") }, |_| true).await;
//!     assert!(matches!(answer, Err(Broken::Failed("no answer"))));
//! }
//! let answer = hotels.call(async { Ok::<_, &str>("a room") }, |_| true).await;
//! assert!(matches!(answer, Err(Broken::Open { .. })));
//! # }
//! ```

mod circuit;
mod machine;

#[doc(hidden)]
pub use self::circuit::circuit_state;
pub use self::{
    circuit::{Broken, CircuitBreaker, Override, Passage},
    machine::{Breaker, BreakerOptions, CircuitState, Outcome, Permit},
};
