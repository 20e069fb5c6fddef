//! What becomes of bookings, as a table: built from the bookings, and from the sagas that see to them.

use annals::{
    Change, Column, Project, ReadModel, Recorded,
    saga::{Instance, Progress, SagaEvent},
};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    booking::{Booking, BookingEvent},
    fulfilment::{Fulfilment, FulfilmentEvent},
};

#[derive(Column, Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Requested,
    Booked,
    Cancelled,
    Stuck,
}

#[derive(ReadModel, Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[read_model(table = "booking_overview", from(Booking, Instance<Fulfilment>), history)]
pub(crate) struct BookingOverview {
    #[read_model(key)]
    pub(crate) booking: Uuid,
    pub(crate) destination: String,
    pub(crate) travellers: i32,
    #[read_model(index)]
    pub(crate) status: Status,
    /// Why it is cancelled or stuck.
    pub(crate) reason: Option<String>,
}

impl Project<BookingEvent> for BookingOverview {
    fn project(row: Option<Self>, event: &Recorded<BookingEvent>) -> Change<Self> {
        let (None, BookingEvent::Requested { destination, travellers }) = (row, &event.event)
        else {
            return Change::Keep;
        };
        let Ok(booking) = event.stream.key().parse() else { return Change::Keep };
        Change::Set(Self {
            booking,
            destination: destination.clone(),
            travellers: i32::try_from(*travellers).unwrap_or(i32::MAX),
            status: Status::Requested,
            reason: None,
        })
    }
}

impl Project<SagaEvent<FulfilmentEvent>> for BookingOverview {
    fn project(row: Option<Self>, event: &Recorded<SagaEvent<FulfilmentEvent>>) -> Change<Self> {
        let (Some(row), SagaEvent::Progress(progress)) = (row, &event.event) else {
            return Change::Keep;
        };
        Change::Set(match progress {
            Progress::Completed => Self { status: Status::Booked, reason: None, ..row },
            Progress::Compensated => Self { status: Status::Cancelled, ..row },
            Progress::Compensating { reason } => Self { reason: Some(reason.clone()), ..row },
            Progress::Stuck { reason } | Progress::Aborted { why: reason } => {
                Self { status: Status::Stuck, reason: Some(reason.clone()), ..row }
            }
            Progress::Retried { .. } | Progress::Skipped { .. } => {
                Self { status: Status::Requested, ..row }
            }
            _ => return Change::Keep,
        })
    }
}
