//! Who may book: shops, each known by a key that it sends along.
//!
//! The hook says who sent a request. Idempotency keys belong to that client, and its rate is limited, so one that asks too
//! much is told to come back later, and the others do not notice.

use std::{collections::HashMap, str::FromStr};

use annals::gateway::{Authenticate, Denied, Identity};
use axum::http::request::Parts;
use sha2::{Digest, Sha256};

/// The header that the key is in.
pub(crate) const KEY_HEADER: &str = "x-api-key";

/// The shops by the hashes of their keys: how long a look-up takes tells nothing of a key.
#[derive(Clone, Debug)]
pub(crate) struct Clients(HashMap<[u8; 32], String>);

impl FromStr for Clients {
    type Err = String;

    /// `NAME=KEY,NAME=KEY`
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let client = |text: &str| match text.split_once('=') {
            Some((name, key)) if !name.is_empty() && !key.is_empty() => {
                Ok((hash(key), name.to_owned()))
            }
            _ => Err("expected NAME=KEY, and a comma between two of them".to_owned()),
        };
        text.split(',').map(client).collect::<Result<_, _>>().map(Self)
    }
}

#[annals::async_trait]
impl Authenticate for Clients {
    async fn authenticate(&self, parts: &Parts) -> Result<Identity, Denied> {
        let key = parts.headers.get(KEY_HEADER).and_then(|value| value.to_str().ok());
        match key.and_then(|key| self.0.get(&hash(key))) {
            Some(name) => Ok(Identity::new(name)),
            None => Err(Denied::Unknown(format!("send the key of a shop as {KEY_HEADER}"))),
        }
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[tokio::test]
    async fn a_client_is_who_its_key_says() {
        let clients: Clients = "north=k1,south=k2".parse().unwrap();
        let who = async |key: Option<&str>| {
            let request = Request::get("/bookings");
            let request = match key {
                Some(key) => request.header(KEY_HEADER, key),
                None => request,
            };
            let (parts, ()) = request.body(()).unwrap().into_parts();
            clients.authenticate(&parts).await
        };
        assert_eq!(who(Some("k2")).await, Ok(Identity::new("south")));
        for unknown in [None, Some(""), Some("k3"), Some("north")] {
            assert!(matches!(who(unknown).await, Err(Denied::Unknown(_))), "{unknown:?}");
        }
    }

    #[test]
    fn clients_without_a_name_or_a_key_are_a_mistake() {
        for text in ["", "north", "north=", "=k1", "north=k1,"] {
            assert!(text.parse::<Clients>().is_err(), "{text:?}");
        }
    }
}
