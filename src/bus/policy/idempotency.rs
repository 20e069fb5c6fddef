//! A key for every command.

use annals_eventstore::{Command, Handle};
use tower::ServiceExt;
use uuid::Uuid;

use crate::bus::{Dispatch, Policy, Refusal, Request, Response};

/// What happens to a command without an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keys {
    /// It gets a random one: what the layers below try again is done once, what the caller sends again is
    /// another command.
    Generated,
    /// It is refused: callers must bring one.
    Required,
}

/// Sees to it that each command has an idempotency key, so that it can be tried again after an answer that did
/// not come. The store does the rest: the same key and the same command lead to the recorded outcome, another
/// command under the key is refused.
///
/// Keys of a [client](crate::bus::Origin::client) are its own: `client/key` is what is recorded, so that no
/// client meets another's keys. A `/` in a client is `%2F` there, and a `%` is `%25`; a key with a `/` that comes without a
/// client begins with `/`.
#[derive(Clone, Copy, Debug)]
pub struct Idempotency(Keys);

impl Idempotency {
    /// With this rule for commands that come without a key.
    pub fn new(keys: Keys) -> Self {
        Self(keys)
    }
}

impl Policy for Idempotency {
    async fn around<C, S>(&self, mut request: Request<C>, inner: S) -> Response<C>
    where
        C: Command,
        C::Aggregate: Handle<C>,
        S: Dispatch<C>,
    {
        let key = match (&request.envelope.idempotency_key, &request.origin.client, self.0) {
            (Some(key), client, _) => own(client.as_deref(), key),
            (None, _, Keys::Generated) => Uuid::now_v7().to_string(),
            (None, _, Keys::Required) => return Err(Refusal::NoKey { command: C::NAME }.into()),
        };
        request.envelope.idempotency_key = Some(key);
        inner.oneshot(request).await
    }
}

/// The key of a client, which is no other client's whatever both are: the client has no slash, and is not empty, so the first
/// slash ends it.
fn own(client: Option<&str>, key: &str) -> String {
    match client {
        Some("") => format!("%/{key}"),
        Some(client) => format!("{}/{key}", client.replace('%', "%25").replace('/', "%2F")),
        None if key.contains('/') => format!("/{key}"),
        None => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use annals_eventstore::{Error, EventStore};
    use tower::ServiceBuilder;

    use super::*;
    use crate::bus::{Bus, BusError, Executor, PolicyLayer, policy::testing::Deposit};

    fn bus(keys: Keys) -> Bus<impl Dispatch<Deposit>> {
        let layer = PolicyLayer::new(Idempotency::new(keys));
        let executor = Executor::new(&EventStore::in_memory());
        Bus::over(ServiceBuilder::new().layer(layer).service(executor))
    }

    #[tokio::test]
    async fn a_key_is_the_clients_own_and_stands_for_one_command() {
        let bus = bus(Keys::Required);
        let request =
            |client, amount| Request::new(Deposit::of(amount)).idempotency_key("k").client(client);
        let first = bus.send(request("a", 1)).await.unwrap();
        let again = bus.send(request("a", 1)).await.unwrap();
        assert_eq!((first.version, first.replayed), (again.version, false));
        assert!(again.replayed);
        assert!(!bus.send(request("b", 1)).await.unwrap().replayed);
        let other = bus.send(request("a", 2)).await;
        assert!(matches!(other, Err(BusError::Failed(Error::KeyReused { .. }))), "{other:?}");
    }

    #[test]
    fn no_two_clients_have_a_key_together() {
        assert_eq!(own(Some("mobile-app"), "a/b"), "mobile-app/a/b");
        assert_eq!(own(None, "k-1"), "k-1");
        let parts =
            ["", "a", "b", "/", "%", "a/b", "b/c", "a/", "/b", "%/a", "%2F", "a%2Fb", "%25", "//"];
        let clients = parts.into_iter().map(Some).chain([None]);
        let mut seen = HashMap::new();
        for (client, key) in clients.flat_map(|client| parts.map(|key| (client, key))) {
            if let Some(other) = seen.insert(own(client, key), (client, key)) {
                panic!("{client:?} with {key:?} is {other:?}");
            }
        }
    }

    #[tokio::test]
    async fn without_a_key_it_is_refused_or_gets_one() {
        let refused = bus(Keys::Required).send(Deposit::any()).await;
        assert!(matches!(refused, Err(BusError::Refused(Refusal::NoKey { .. }))), "{refused:?}");
        let bus = bus(Keys::Generated);
        for _ in 0..2 {
            assert!(!bus.send(Deposit::any()).await.unwrap().replayed);
        }
    }
}
