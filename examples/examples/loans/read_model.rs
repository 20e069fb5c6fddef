//! The read side: one row for each application, with every version that the row ever had.

use std::{collections::BTreeMap, error::Error};

use annals::{Change, Column, Project, ReadModel, Recorded};
use bytes::BytesMut;
use chrono::{DateTime, Utc};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::model::{Dossier, LoanApplication, LoanApplicationEvent, Status};

/// Where one application stands.
///
/// With `history`, SQL answers for any moment:
/// `SELECT status, count(*) FROM loan_applications_as_of('2011-12-31') GROUP BY status`.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "loan_applications", from(LoanApplication), history)]
pub(crate) struct LoanApplications {
    #[read_model(key)]
    pub(crate) application: String,
    /// In whole euros.
    pub(crate) amount_requested: i64,
    /// Null until the application reaches its first state.
    pub(crate) status: Option<Status>,
    pub(crate) offers_created: i64,
    pub(crate) open_work_items: i64,
    pub(crate) last_activity_at: DateTime<Utc>,
    /// For each kind of work, how often it was scheduled less how often it was completed: what
    /// `open_work_items` is counted from.
    #[read_model(json)]
    pub(crate) work: BTreeMap<String, i64>,
}

impl Project<LoanApplicationEvent> for LoanApplications {
    fn project(row: Option<Self>, event: &Recorded<LoanApplicationEvent>) -> Change<Self> {
        let application = event.stream.key();
        Change::Set(Self::after(row, application, event.recorded_at, &event.event))
    }
}

impl LoanApplications {
    /// The row of `application` once `event` has happened to it, at the time `at`.
    pub(crate) fn after(
        row: Option<Self>,
        application: &str,
        at: DateTime<Utc>,
        event: &LoanApplicationEvent,
    ) -> Self {
        let dossier = Dossier::after(row.map(Dossier::from), event);
        Self {
            application: application.to_owned(),
            amount_requested: dossier.amount_requested,
            status: dossier.status,
            offers_created: dossier.offers_created,
            open_work_items: dossier.open_work_items(),
            last_activity_at: at,
            work: dossier.work,
        }
    }
}

impl From<LoanApplications> for Dossier {
    fn from(row: LoanApplications) -> Self {
        Self {
            amount_requested: row.amount_requested,
            status: row.status,
            offers_created: row.offers_created,
            work: row.work,
        }
    }
}

/// A status is a text column that holds its name.
impl Column for Status {
    const SQL_TYPE: &'static str = "text";
}

impl ToSql for Status {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.name().to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        <&str as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Status {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let name = <&str>::from_sql(ty, raw)?;
        Self::ALL
            .into_iter()
            .find(|status| status.name() == name)
            .ok_or_else(|| format!("{name:?} is no status of an application").into())
    }

    fn accepts(ty: &Type) -> bool {
        <&str as FromSql>::accepts(ty)
    }
}

#[cfg(test)]
mod tests {
    use annals::{History, Keys};

    use super::*;
    use crate::model::OfferState;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn a_row_tells_what_the_events_add_up_to() {
        let amount_requested = 5_000;
        let events = [
            LoanApplicationEvent::StatusReached {
                status: Status::Submitted,
                amount_requested,
                resource: None,
            },
            LoanApplicationEvent::WorkScheduled {
                kind: "Nabellen offertes".into(),
                amount_requested,
                resource: None,
            },
            LoanApplicationEvent::OfferMoved {
                state: OfferState::Created,
                amount_requested,
                resource: None,
            },
            LoanApplicationEvent::WorkCompleted {
                kind: "Afhandelen leads".into(),
                amount_requested,
                resource: None,
            },
        ];
        let row = events.iter().zip(1..).fold(None, |row, (event, second)| {
            Some(LoanApplications::after(row, "173688", at(second), event))
        });
        assert_eq!(
            row,
            Some(LoanApplications {
                application: "173688".into(),
                amount_requested: 5_000,
                status: Some(Status::Submitted),
                offers_created: 1,
                open_work_items: 1,
                last_activity_at: at(4),
                work: [("Nabellen offertes".into(), 1), ("Afhandelen leads".into(), -1)].into(),
            })
        );
    }

    #[test]
    fn an_application_without_a_state_has_a_row_too() {
        let event = LoanApplicationEvent::WorkStarted {
            kind: "Afhandelen leads".into(),
            amount_requested: 700,
            resource: None,
        };
        let row = LoanApplications::after(None, "1", at(9), &event);
        assert_eq!((row.status, row.amount_requested, row.open_work_items), (None, 700, 0));
    }

    #[test]
    fn the_table_is_as_documented() {
        let columns: Vec<_> = LoanApplications::COLUMNS
            .iter()
            .map(|column| (column.name, column.sql_type, column.nullable, column.key))
            .collect();
        assert_eq!(
            columns,
            [
                ("application", "text", false, true),
                ("amount_requested", "bigint", false, false),
                ("status", "text", true, false),
                ("offers_created", "bigint", false, false),
                ("open_work_items", "bigint", false, false),
                ("last_activity_at", "timestamptz", false, false),
                ("work", "jsonb", false, false),
            ]
        );
        assert_eq!(LoanApplications::TABLE, "loan_applications");
        assert_eq!(LoanApplications::HISTORY, History::Kept);
        let sources = LoanApplications::sources();
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].category(), "loan_application");
        // The key of the row is the key of the stream.
        let _: Keys<String> = Keys::<<LoanApplications as ReadModel>::Key>::none();
    }

    #[test]
    fn a_status_goes_through_sql_as_its_name() {
        for status in Status::ALL {
            let mut out = BytesMut::new();
            status.to_sql(&Type::TEXT, &mut out).unwrap();
            assert_eq!(out, status.name().as_bytes());
            assert_eq!(Status::from_sql(&Type::TEXT, &out).unwrap(), status);
        }
        let error = Status::from_sql(&Type::TEXT, b"lost").unwrap_err();
        assert_eq!(error.to_string(), "\"lost\" is no status of an application");
    }
}
