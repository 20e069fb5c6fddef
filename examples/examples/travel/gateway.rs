//! The booking service: its gateway, its read model, the worker of its sagas, and its tally.
//!
//! It may run in several processes on its database: requests go to any, workers share what there is to do, and the tally is
//! made by one.

use std::time::Duration;

use annals::{
    QueryCache, Start, Worker, bus::policy::RateLimit, gateway::Gateway, postgres::LeaseOptions,
    telemetry::Prometheus,
};

use crate::{
    agency::Agency,
    args::BookingArgs,
    booking::{CancelBooking, RequestBooking},
    fulfilment::Fulfilment,
    overview::BookingOverview,
    serve::{bus, serve, stop, store},
    tally,
};

/// How long a process that was killed holds up its sagas.
const TIME_TO_LIVE: Duration = Duration::from_secs(3);

/// Runs the booking service until told to stop.
pub(crate) async fn run(args: &BookingArgs) -> anyhow::Result<()> {
    let metrics = Prometheus::install()?;
    let store = store().connect(&args.serve.database_url).await?;
    // Of projections, sagas and leases, too, which the database knows.
    let _watching = metrics.watch(&store);
    let agency = Agency::new(&store, [args.flight.clone(), args.hotel.clone(), args.car.clone()])?;
    let mut lease = LeaseOptions::default();
    lease.time_to_live = TIME_TO_LIVE;
    let stop = stop(&args.serve);
    let tallying = tally::run(&store, lease, stop.clone());
    let worker = Worker::new(&store)
        .lease(lease)
        // From the beginning, not from now on: a booking may come before the worker is there.
        .saga_from::<Fulfilment>(Start::Beginning, agency)
        .projection::<BookingOverview>()
        .run_until(stop.clone());
    let router = Gateway::new(&store, bus(&store))
        .describe("Bookings", "1")
        .authenticate(args.clients.clone())
        .rate_limit(RateLimit::with_burst(args.rate_limit, args.rate_limit.saturating_mul(2)))
        .query_cache(QueryCache::new(&store)?)
        .command::<RequestBooking>("/bookings")
        .command::<CancelBooking>("/bookings/{booking}/cancellation")
        .read_model::<BookingOverview>("/bookings")
        .router()
        // To be looked at on this machine. Where the world comes in, metrics have a port of their own.
        .merge(metrics.router());
    let serving = async {
        let served = serve(&args.serve, router, stop.clone()).await;
        // Where it cannot serve, the worker has nothing to go on for.
        stop.cancel();
        served
    };
    let working = async { worker.await.map_err(anyhow::Error::from) };
    tokio::try_join!(serving, working, tallying)?;
    Ok(())
}
