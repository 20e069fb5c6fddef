//! Who shares the slices of a projection out among processes.

#[cfg(feature = "kafka")]
mod group;
#[cfg(not(feature = "kafka"))]
mod leases;

#[cfg(feature = "kafka")]
pub(super) use self::group::Sharing;
#[cfg(not(feature = "kafka"))]
pub(super) use self::leases::Sharing;
