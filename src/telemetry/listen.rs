//! A listener of its own, for processes that have no HTTP server.

use std::{io, net::SocketAddr};

use axum::Router;
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio_util::{sync::CancellationToken, sync::DropGuard};

/// Serves routes on an address of their own, until what this returns is dropped. With port 0, a free one is chosen.
///
/// It is for what operators and orchestrators ask, on a port that the world does not reach: metrics tell more than
/// callers should know.
///
/// # Errors
/// If the address cannot be listened on.
pub async fn listen(address: impl ToSocketAddrs, routes: Router) -> io::Result<Listening> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        let serving = axum::serve(listener, routes);
        // Answers are short: one that is under way when it stops is cut off.
        if let Some(Err(error)) = told.run_until_cancelled(serving.into_future()).await {
            tracing::warn!(%error, %address, "nothing is served any more");
        }
    });
    Ok(Listening { address, _stop: stop.drop_guard() })
}

/// Serves as long as it is there.
#[derive(Debug)]
#[must_use = "dropped, it stops serving"]
pub struct Listening {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Listening {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
