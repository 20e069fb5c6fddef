//! The booking service: its gateway, its read model, and the worker of its sagas.

use std::time::Duration;

use annals::{Start, Worker, gateway::Gateway, postgres::LeaseOptions};

use crate::{
    agency::Agency,
    args::BookingArgs,
    booking::{CancelBooking, RequestBooking},
    fulfilment::Fulfilment,
    overview::BookingOverview,
    serve::{bus, serve, stop, store},
};

/// How long a process that was killed holds up its sagas.
const TIME_TO_LIVE: Duration = Duration::from_secs(3);

/// Runs the booking service until told to stop.
pub(crate) async fn run(args: &BookingArgs) -> anyhow::Result<()> {
    let store = store().connect(&args.serve.database_url).await?;
    let agency = Agency::new(&store, [args.flight.clone(), args.hotel.clone(), args.car.clone()])?;
    let mut lease = LeaseOptions::default();
    lease.time_to_live = TIME_TO_LIVE;
    let stop = stop(&args.serve);
    let worker = Worker::new(&store)
        .lease(lease)
        // From the beginning, not from now on: a booking may come before the worker is there.
        .saga_from::<Fulfilment>(Start::Beginning, agency)
        .projection::<BookingOverview>()
        .run_until(stop.clone());
    let router = Gateway::new(&store, bus(&store))
        .describe("Bookings", "1")
        .command::<RequestBooking>("/bookings")
        .command::<CancelBooking>("/bookings/{booking}/cancellation")
        .read_model::<BookingOverview>("/bookings")
        .router();
    let serving = async {
        let served = serve(&args.serve, router, stop.clone()).await;
        // Where it cannot serve, the worker has nothing to go on for.
        stop.cancel();
        served
    };
    let working = async { worker.await.map_err(anyhow::Error::from) };
    tokio::try_join!(serving, working)?;
    Ok(())
}
