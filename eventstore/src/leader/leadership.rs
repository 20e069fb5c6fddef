//! Leading: for how long, and what is fenced by it.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::Election;
use crate::{
    error::{Error, chain},
    postgres::{GenericClient, Lease},
};

/// This process leads, until it is [lost](Self::lost) or [resigned](Self::resign).
///
/// It is renewed in the background. Dropping it ends that: the next leader comes when the lease ends. One that is lost
/// does not come back; [campaign](Election::campaign) again.
#[derive(Debug)]
pub struct Leadership {
    election: String,
    lease: Arc<Lease>,
    lost: CancellationToken,
    renewing: AbortOnDropHandle<()>,
}

impl Leadership {
    pub(super) fn begin(election: &Election, lease: Lease) -> Self {
        let (election, epoch) = (election.name().to_owned(), lease.epoch());
        tracing::info!(election, epoch, "leading");
        let (lease, lost) = (Arc::new(lease), CancellationToken::new());
        let renewing = renew(election.clone(), lease.clone(), lost.clone());
        let renewing = AbortOnDropHandle::new(tokio::spawn(renewing));
        Self { election, lease, lost, renewing }
    }

    /// The name of the election.
    pub fn election(&self) -> &str {
        &self.election
    }

    /// Its number: higher than that of each leadership of this election before it. Hand it on as a fencing token with
    /// what is done outside of the database.
    pub fn epoch(&self) -> i64 {
        self.lease.epoch()
    }

    /// True if it is over, by this process's clock. False says nothing once it is said: the process may be paused
    /// right behind it. What must not be done twice is to be [guarded](Self::guard).
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled() || self.lease.is_over()
    }

    /// Waits until it is over: it was not renewed in time, another leads, or it is resigned. Cancellation safe.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// A token that is cancelled when it is over, for tasks that are to end then.
    pub fn token(&self) -> CancellationToken {
        self.lost.child_token()
    }

    /// Does something until it is done or the leadership is over; then it is dropped where it is, and this is `None`.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.lost.run_until_cancelled(work).await
    }

    /// Makes sure that no later leader has come, and that none does before the caller's transaction ends. What the
    /// transaction writes behind it is written by the only leader there is, or not at all.
    ///
    /// The client must have a transaction open: one of [`Database::begin`](crate::postgres::Database::begin), or that of a
    /// [unit of work](crate::EventStore::begin), so that events are fenced too. The database ends the transaction if it is
    /// idle for the lease's time to live, so that a leader that is paused in it is replaced all the same.
    ///
    /// # Errors
    /// [`Error::Fenced`] if another leads or has led since; roll the transaction back then. A failure of the database.
    pub async fn guard(&self, transaction: &impl GenericClient) -> Result<(), Error> {
        let guarded = self.lease.guard(transaction).await;
        if let Err(Error::Fenced { .. }) = guarded {
            self.lost.cancel();
            return Err(Error::Fenced { name: self.election.clone() });
        }
        guarded
    }

    /// Gives it up, so that another can lead at once. Whoever waits for [`token`](Self::token) hears of it first; what is
    /// still under way in guarded transactions is waited for by those who come next.
    ///
    /// # Errors
    /// If the database fails; the lease then ends by itself.
    pub async fn resign(self) -> Result<(), Error> {
        let Self { election, lease, lost, renewing } = self;
        lost.cancel();
        drop(renewing);
        lease.release().await?;
        tracing::info!(election, epoch = lease.epoch(), "resigned");
        Ok(())
    }
}

/// Renews a lease, and tells when it is over.
async fn renew(election: String, lease: Arc<Lease>, lost: CancellationToken) {
    let reason = tokio::select! {
        error = lease.keep() => chain(&error),
        () = lease.ended() => "it was not renewed in time".to_owned(),
    };
    tracing::warn!(election, epoch = lease.epoch(), reason, "no longer leading");
    lost.cancel();
}
