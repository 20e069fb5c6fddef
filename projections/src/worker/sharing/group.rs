//! Which slices are this process's, where a consumer group of Kafka shares them out.
//!
//! A slice is one partition then. The group says who is to work on it; the lease still says who does, and fences who
//! did before.

use std::{collections::BTreeSet, time::Duration};

use tracing::info;

use super::super::{Context, Projection};
use crate::{
    error::Error,
    kafka::{self, Change, Group, Partitions, Revoked},
};

/// After which time without a sign of life the slices of a process go to others, at least.
const SESSION: Duration = Duration::from_secs(6);

/// Who shares the slices out.
#[derive(Default)]
pub(in super::super) enum Sharing {
    /// It is not known yet how many partitions there are. The processes share them by leases.
    #[default]
    Open,
    /// The processes share them by leases: slices are not partitions, or there is only one.
    Leases,
    /// The group does.
    Group(Membership),
}

/// A member of the group of a projection.
pub(in super::super) struct Membership {
    group: Group,
    slices: u16,
    mine: BTreeSet<u16>,
    /// What is handed over as soon as nobody here works on it.
    given_up: Vec<(BTreeSet<u16>, Revoked)>,
}

impl Sharing {
    /// Finds out who is to share the slices out, if that is open.
    pub(in super::super) async fn settle(
        &mut self,
        context: &Context,
        projection: &dyn Projection,
    ) -> Result<(), Error> {
        let (Self::Open, slices) = (&*self, projection.slices()) else { return Ok(()) };
        let Some(topics) = context.topics.as_ref().filter(|_| slices > 1) else {
            *self = Self::Leases;
            return Ok(());
        };
        let count = topics.partition_count(projection.categories());
        // Leases are not to end meanwhile.
        let patience = context.options.lease.time_to_live / 2;
        let Ok(count) = tokio::time::timeout(patience, count).await else { return Ok(()) };
        let Some(count) = count? else { return Ok(()) };
        *self = Self::Leases;
        if count == i32::from(slices) {
            // The shortest that brokers allow unless told otherwise.
            let session = context.options.lease.time_to_live.max(SESSION);
            let join = topics.group(projection.label(), projection.categories());
            let mut join = join.session_timeout(session);
            if let Some(instance) = &context.instance {
                join = join.instance(instance);
            }
            let (group, mine) = (join.join()?, BTreeSet::new());
            *self = Self::Group(Membership { group, slices, mine, given_up: Vec::new() });
            info!(projection = projection.label(), "a consumer group shares its slices out");
        }
        Ok(())
    }

    /// Waits for the next change of what is this process's. For ever, where no group says so. Cancellation safe.
    pub(in super::super) async fn changed(&mut self) -> Result<(), Error> {
        let Self::Group(membership) = self else { return std::future::pending().await };
        match membership.group.next().await {
            Ok(Change::Assigned(partitions)) => {
                let assigned = membership.of(&partitions);
                membership.mine.extend(assigned);
            }
            Ok(Change::Revoked(revoked)) => {
                let slices = membership.of(&revoked.partitions);
                membership.mine.retain(|slice| !slices.contains(slice));
                membership.given_up.push((slices, revoked));
            }
            Err(kafka::FeedError::NotPublished { .. }) => *self = Self::Open,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The slices that are this process's, if a group says so.
    pub(in super::super) fn mine(&self) -> Option<&BTreeSet<u16>> {
        match self {
            Self::Group(membership) => Some(&membership.mine),
            Self::Open | Self::Leases => None,
        }
    }

    /// Hands over what nobody here works on any more, and tells the group how far the others have come.
    pub(in super::super) fn hand_over(
        &mut self,
        context: &Context,
        projection: &dyn Projection,
        works_on: impl Fn(u16) -> bool,
    ) {
        let Self::Group(membership) = self else { return };
        let is_held = |slices: &BTreeSet<u16>| slices.iter().any(|slice| works_on(*slice));
        for (slices, revoked) in std::mem::take(&mut membership.given_up) {
            match is_held(&slices) {
                true => membership.given_up.push((slices, revoked)),
                false => revoked.done(),
            }
        }
        if let Some(applied) = context.take_applied(projection.label()) {
            membership.group.commit(&applied);
        }
    }

    /// Leaves the group. Nobody here works on anything any more.
    pub(in super::super) async fn leave(self) {
        if let Self::Group(Membership { group, given_up, .. }) = self {
            drop(given_up);
            group.leave().await;
        }
    }
}

impl Membership {
    fn of(&self, partitions: &Partitions) -> BTreeSet<u16> {
        (0..self.slices).filter(|slice| partitions.contains(i32::from(*slice))).collect()
    }
}
