//! Fail points: the steps at which a test can make a program fail.

/// Comes by a fail point. With a function, the action `return` leaves with what that returns.
macro_rules! fail_point {
    ($name:literal $(, $leave:expr)?) => {
        #[cfg(feature = "fail-points")]
        fail::fail_point!($name $(, $leave)?);
    };
}

pub(crate) use fail_point;
