//! Fail points: the steps at which a test can make a worker fail.

/// Comes by a fail point. With a function, the action `return` leaves with what that returns.
macro_rules! fail_point {
    ($name:literal $(, $leave:expr)?) => {
        #[cfg(feature = "fail-points")]
        fail::fail_point!($name $(, $leave)?);
    };
}

/// Comes by a fail point where `return` is a failure that passes.
macro_rules! may_fail {
    ($name:literal) => {
        crate::fail_points::fail_point!($name, |_| {
            let injected = annals_eventstore::testkit::faults::Injected::at($name);
            Err(annals_eventstore::Error::from(injected).into())
        });
    };
}

pub(crate) use fail_point;
pub(crate) use may_fail;
