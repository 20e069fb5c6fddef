//! Serving: one process, one router, until it is told to stop.

use std::{io::Read, net::SocketAddr, thread};

use annals::{
    EventStore, Options,
    bus::{
        Bus, Policies,
        policy::{Bulkhead, RateLimit},
    },
    gateway::Gateway,
    postgres::Use,
    telemetry::Prometheus,
};
use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{ServeArgs, ServiceArgs},
    faults::faulty,
    reservation::{Cancel, Reserve},
};

/// A store that leaves connections of the server to the other processes.
pub(crate) fn store() -> Options {
    EventStore::options().connections(Use::Read, 6).connections(Use::Project, 4)
}

/// A bus to this store for callers that are known to be few and busy.
pub(crate) fn bus(store: &EventStore) -> Bus {
    let mut policies = Policies::default();
    policies.rate_limit = RateLimit::with_burst(2000, 4000);
    policies.bulkhead = Bulkhead::per_command(256).waiting(1024);
    Bus::with(policies, store)
}

/// Runs one of the three services.
pub(crate) async fn service(args: &ServiceArgs) -> anyhow::Result<()> {
    let ServeArgs { database_url, .. } = &args.serve;
    let metrics = Prometheus::install()?;
    let store = store().connect(database_url).await?;
    let router = Gateway::new(&store, bus(&store))
        .describe("Reservations", "1")
        .command::<Reserve>("/reservations/{reservation}")
        .command::<Cancel>("/reservations/{reservation}/cancellation")
        .router();
    // Whoever looks at metrics is to see them, whatever fails.
    let router = faulty(router, args.faults).merge(metrics.router());
    serve(&args.serve, router, stop(&args.serve)).await
}

/// Serves a router until told to stop, and finishes what it has begun.
pub(crate) async fn serve(
    args: &ServeArgs,
    router: Router,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listen: SocketAddr = args.listen;
    let listener = TcpListener::bind(listen);
    let listener = listener.await.with_context(|| format!("cannot listen at {listen}"))?;
    let stopped = async move { stop.cancelled().await };
    axum::serve(listener, router).with_graceful_shutdown(stopped).await.context("cannot serve")
}

/// Cancelled on an interrupt; and, for a process that is attached to another one, when that has ended, however it has.
pub(crate) fn stop(args: &ServeArgs) -> CancellationToken {
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    if args.attached {
        let ended = stop.clone();
        // A thread, because reading stdin cannot be cancelled; the process need not wait for it to end.
        thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            ended.cancel();
        });
    }
    stop
}
