//! The processes share slices out by leases alone.

use std::collections::BTreeSet;

use super::super::{Context, Projection};
use crate::error::Error;

/// No group of Kafka's has a say. (Where one may, `group.rs` stands in the place of this.)
#[derive(Default)]
pub(in super::super) struct Sharing {}

impl Sharing {
    pub(in super::super) async fn settle(
        &mut self,
        _: &Context,
        _: &dyn Projection,
    ) -> Result<(), Error> {
        Ok(())
    }

    pub(in super::super) async fn changed(&mut self) -> Result<(), Error> {
        std::future::pending().await
    }

    pub(in super::super) fn mine(&self) -> Option<&BTreeSet<u16>> {
        None
    }

    pub(in super::super) fn hand_over(
        &mut self,
        _: &Context,
        _: &dyn Projection,
        _: impl Fn(u16) -> bool,
    ) {
    }

    pub(in super::super) async fn leave(self) {}
}
