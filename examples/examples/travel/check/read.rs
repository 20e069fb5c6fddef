//! Reading the four logs.

use std::{collections::HashMap, pin::pin};

use annals::{
    Aggregate, Event, EventStore, Position, Recorded, Saga,
    saga::{Progress, SagaEvent},
};
use anyhow::Context;
use futures::TryStreamExt;
use uuid::Uuid;

use super::{Books, Ending, Service, Trip};
use crate::{
    booking::{Booking, BookingEvent},
    databases::{BOOKING, Databases},
    fulfilment::{Fulfilment, FulfilmentEvent},
    kind::Kind,
    reservation::{Reservation, ReservationEvent},
    tally,
};

pub(super) async fn books(databases: &Databases) -> anyhow::Result<Books> {
    let mut books = Books::default();
    let store = open(databases, BOOKING).await?;
    each(&store, Booking::CATEGORY, |event| books.booking(event)).await?;
    each(&store, Fulfilment::CATEGORY, |event| books.fulfilment(event)).await?;
    books.tallies = tally::all(&store).await?;
    store.close().await;
    for (index, kind) in Kind::ALL.into_iter().enumerate() {
        let store = open(databases, kind.name()).await?;
        let mut reservations = Reservations::default();
        each(&store, Reservation::CATEGORY, |event| reservations.take(event)).await?;
        store.close().await;
        books.services[index] = reservations.service;
        for booking in reservations.active.into_values() {
            books.trips.entry(booking).or_default().active[index] += 1;
        }
    }
    Ok(books)
}

async fn open(databases: &Databases, service: &str) -> anyhow::Result<EventStore> {
    // It looks, and changes nothing.
    let options = EventStore::options().without_migrating();
    let opened = options.connect(&databases.url(service)).await;
    opened.with_context(|| format!("cannot read the database of {service}"))
}

/// Has a look at all events of a category, in their order.
async fn each<E: Event>(
    store: &EventStore,
    category: &str,
    mut look: impl FnMut(Recorded<E>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut events = pin!(store.read_category(category, Position::START));
    while let Some(event) = events.try_next().await? {
        for event in event.decode::<E>()? {
            look(event)?;
        }
    }
    Ok(())
}

impl Books {
    fn trip<E>(&mut self, event: &Recorded<E>) -> anyhow::Result<&mut Trip> {
        let booking = event.stream.key().parse::<Uuid>();
        let booking = booking.with_context(|| format!("{} is of no booking", event.stream))?;
        Ok(self.trips.entry(booking).or_default())
    }

    fn booking(&mut self, event: Recorded<BookingEvent>) -> anyhow::Result<()> {
        let trip = self.trip(&event)?;
        match event.event {
            BookingEvent::Requested { .. } => trip.requested.push(event.recorded_at),
            BookingEvent::CancellationRequested => {}
            BookingEvent::Confirmed => trip.confirmed += 1,
        }
        Ok(())
    }

    fn fulfilment(&mut self, event: Recorded<SagaEvent<FulfilmentEvent>>) -> anyhow::Result<()> {
        let SagaEvent::Progress(progress) = &event.event else { return Ok(()) };
        let ending = match progress {
            Progress::Completed => Ending::Booked,
            Progress::Compensated => Ending::Compensated,
            Progress::Aborted { .. } => Ending::Aborted,
            Progress::Stuck { reason } => {
                self.trip(&event)?.stuck = Some(reason.clone());
                return Ok(());
            }
            Progress::Failed { .. } => {
                self.failed_attempts += 1;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let at = event.recorded_at;
        self.trip(&event)?.ended.push((ending, at));
        Ok(())
    }
}

/// What a service holds.
#[derive(Default)]
struct Reservations {
    service: Service,
    /// For which booking each reservation is that was made and not cancelled.
    active: HashMap<String, Uuid>,
}

impl Reservations {
    fn take(&mut self, event: Recorded<ReservationEvent>) -> anyhow::Result<()> {
        let key = event.stream.key();
        match event.event {
            ReservationEvent::Reserved { booking, .. } => {
                self.service.reserved += 1;
                self.active.insert(key.to_owned(), booking);
            }
            ReservationEvent::Cancelled => {
                self.service.cancelled += 1;
                self.active.remove(key);
            }
            ReservationEvent::Forestalled { .. } => self.service.forestalled += 1,
        }
        Ok(())
    }
}
