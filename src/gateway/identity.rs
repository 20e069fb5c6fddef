//! Who is asking.

use annals_projections::async_trait;
use http::request::Parts;

/// Finds out who is asking, and if they may. A gateway without one lets everybody in, as `anonymous`.
///
/// ```
/// use annals::gateway::{Access, Authenticate, Denied, Identity};
///
/// struct Tokens;
///
/// #[annals::async_trait]
/// impl Authenticate for Tokens {
///     async fn authenticate(&self, parts: &http::request::Parts) -> Result<Identity, Denied> {
///         let token = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
///         match token.and_then(|token| token.strip_prefix("Bearer ")) {
///             Some("s3cret") => Ok(Identity::new("mobile-app").actor("ada")),
///             _ => Err(Denied::Unknown("send a bearer token".to_owned())),
///         }
///     }
///
///     async fn authorize(&self, identity: &Identity, access: &Access) -> Result<(), Denied> {
///         match access {
///             Access::Command { name: "Close", .. } if identity.actor.as_deref() != Some("root") => {
///                 Err(Denied::Forbidden("only root closes accounts".to_owned()))
///             }
///             _ => Ok(()),
///         }
///     }
/// }
/// ```
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// Says who sent a request, by its head.
    ///
    /// # Errors
    /// [`Denied::Unknown`] if it does not say, or cannot be believed.
    async fn authenticate(&self, parts: &Parts) -> Result<Identity, Denied>;

    /// Says if they may do this. By default, who is known may do everything.
    ///
    /// # Errors
    /// [`Denied::Forbidden`] if not.
    async fn authorize(&self, identity: &Identity, access: &Access) -> Result<(), Denied> {
        let _ = (identity, access);
        Ok(())
    }
}

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The client, whose rate is limited and to whom idempotency keys belong.
    pub client: String,
    /// On whose behalf, if tenants are kept apart.
    pub tenant: Option<String>,
    /// The person or program that acts; recorded with the events.
    pub actor: Option<String>,
}

impl Identity {
    /// A client, without tenant and actor.
    pub fn new(client: impl Into<String>) -> Self {
        Self { client: client.into(), tenant: None, actor: None }
    }

    /// Sets the tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Sets the actor.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = Some(actor.into());
        self
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// To execute a command.
    Command {
        /// Its name.
        name: &'static str,
        /// The key of the stream that it is for.
        key: String,
    },
    /// To see an aggregate.
    Aggregate {
        /// Its category.
        category: &'static str,
        /// Its key.
        key: String,
    },
    /// To see rows of a read model.
    ReadModel {
        /// Its table.
        table: &'static str,
        /// The row's key; `None` for all rows.
        key: Option<String>,
    },
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// It is not known who they are: 401.
    #[error("{0}")]
    Unknown(String),
    /// They may not do this: 403.
    #[error("{0}")]
    Forbidden(String),
}

/// Lets everybody in.
pub(super) struct Everybody;

#[async_trait]
impl Authenticate for Everybody {
    async fn authenticate(&self, _: &Parts) -> Result<Identity, Denied> {
        Ok(Identity::new("anonymous"))
    }
}
