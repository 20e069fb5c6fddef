//! What is sent over the bus.

use std::time::Duration;

use annals_eventstore::{Command, Envelope};

/// A command on its way: its envelope, and whom it comes from. A bare command, or an [`Envelope`], becomes one
/// by `into()`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request<C> {
    /// The command with its metadata and its idempotency key.
    pub envelope: Envelope<C>,
    /// Whom it comes from.
    pub origin: Origin,
}

/// Whom a command comes from. Policies go by it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Origin {
    /// The caller, whose rate is limited. Commands without one come from inside, and are not limited.
    pub client: Option<String>,
    /// On whose behalf: a bulkhead can keep tenants apart.
    pub tenant: Option<String>,
    /// How long the caller waits, if that is shorter than what the bus allows.
    pub patience: Option<Duration>,
}

impl<C> Request<C> {
    /// A request from inside.
    pub fn new(envelope: impl Into<Envelope<C>>) -> Self {
        Self { envelope: envelope.into(), origin: Origin::default() }
    }

    /// Sets the caller.
    #[must_use]
    pub fn client(mut self, client: impl Into<String>) -> Self {
        self.origin.client = Some(client.into());
        self
    }

    /// Sets the tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.origin.tenant = Some(tenant.into());
        self
    }

    /// Sets how long the caller waits.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.origin.patience = Some(patience);
        self
    }

    /// Sets the key under which the outcome is recorded.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.envelope = self.envelope.idempotency_key(key);
        self
    }
}

impl<C: Command> From<C> for Request<C> {
    fn from(command: C) -> Self {
        Self::new(command)
    }
}

impl<C> From<Envelope<C>> for Request<C> {
    fn from(envelope: Envelope<C>) -> Self {
        Self { envelope, origin: Origin::default() }
    }
}
