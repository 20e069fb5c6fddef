//! `--verify`: what SQL says of each application, against the events of its stream.
//!
//! The rows come out of the read model's history, by way of the projection, its checkpoint and an
//! as-of query. The aggregates are folded from the log here and now. Both use the same fold of one
//! event, so what a difference shows is an event that the projection lost, repeated or reordered,
//! a version of a row that is taken for the wrong time, or a column that came back as another.

use std::collections::BTreeMap;

use annals::Apply;
use chrono::{DateTime, Utc};

use crate::{
    model::{LoanApplication, LoanApplicationEvent},
    read_model::LoanApplications,
};

/// What the log says of each application, up to some moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folded(BTreeMap<String, (LoanApplication, DateTime<Utc>)>);

impl Folded {
    /// Folds the next event of the log.
    pub(crate) fn apply(
        &mut self,
        application: &str,
        at: DateTime<Utc>,
        event: &LoanApplicationEvent,
    ) {
        match self.0.get_mut(application) {
            Some((aggregate, last_at)) => {
                aggregate.apply(event);
                *last_at = at;
            }
            None => {
                let mut aggregate = LoanApplication::default();
                aggregate.apply(event);
                self.0.insert(application.to_owned(), (aggregate, at));
            }
        }
    }

    /// How many applications there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Compares every application with its row, both ways. Each difference is a line of text.
    pub(crate) fn differences<'a>(
        &self,
        rows: impl IntoIterator<Item = &'a LoanApplications>,
    ) -> Vec<String> {
        let mut differences = Vec::new();
        let mut missing = self.0.clone();
        for row in rows {
            let application = &row.application;
            match (missing.remove(application), self.0.contains_key(application)) {
                (Some((aggregate, last_at)), _) => {
                    let expected = aggregate.dossier.map(|dossier| LoanApplications {
                        application: application.clone(),
                        amount_requested: dossier.amount_requested,
                        status: dossier.status,
                        offers_created: dossier.offers_created,
                        open_work_items: dossier.open_work_items(),
                        last_activity_at: last_at,
                        work: dossier.work,
                    });
                    if expected.as_ref() != Some(row) {
                        differences.push(format!(
                            "{application}: the events add up to {expected:?}, the row is {row:?}"
                        ));
                    }
                }
                (None, true) => differences.push(format!("{application}: it has a second row")),
                (None, false) => differences.push(format!("{application}: it has no events")),
            }
        }
        differences
            .extend(missing.keys().map(|application| format!("{application}: it has no row")));
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Status;

    fn event(status: Status) -> LoanApplicationEvent {
        LoanApplicationEvent::StatusReached { status, amount_requested: 9, resource: None }
    }

    fn example() -> (Folded, Vec<LoanApplications>) {
        let (at, event) = (DateTime::UNIX_EPOCH, event(Status::Declined));
        let mut folded = Folded::default();
        let applications = ["a", "b"];
        applications.iter().for_each(|application| folded.apply(application, at, &event));
        let rows = applications
            .map(|application| LoanApplications::after(None, application, at, &event))
            .to_vec();
        assert_eq!(folded.len(), 2);
        (folded, rows)
    }

    #[test]
    fn equal_is_no_difference() {
        let (folded, rows) = example();
        assert_eq!(folded.differences(&rows), Vec::<String>::new());
        assert_eq!(Folded::default().differences(&[]), Vec::<String>::new());
    }

    #[test]
    fn every_column_is_compared() {
        let (folded, rows) = example();
        let with = |change: fn(&mut LoanApplications)| {
            let mut rows = rows.clone();
            change(&mut rows[1]);
            let differences = folded.differences(&rows);
            assert_eq!(differences.len(), 1);
            assert!(differences[0].starts_with("b: the events add up to"), "{differences:?}");
        };
        with(|row| row.amount_requested += 1);
        with(|row| row.status = None);
        with(|row| row.offers_created += 1);
        with(|row| row.open_work_items += 1);
        with(|row| row.last_activity_at += chrono::TimeDelta::microseconds(1));
        with(|row| row.work = [("Afhandelen leads".to_owned(), 0)].into());
    }

    #[test]
    fn rows_and_events_that_have_no_counterpart_differ() {
        let (folded, rows) = example();
        assert_eq!(folded.differences(&rows[..1]), ["b: it has no row"]);
        let twice = [rows.clone(), rows[..1].to_vec()].concat();
        assert_eq!(folded.differences(&twice), ["a: it has a second row"]);
        let mut more = rows.clone();
        more[0].application = "c".to_owned();
        assert_eq!(folded.differences(&more), ["c: it has no events", "a: it has no row"]);
    }

    #[test]
    fn an_event_too_few_differs() {
        let (mut folded, rows) = example();
        folded.apply("a", DateTime::UNIX_EPOCH, &event(Status::Cancelled));
        assert_eq!(folded.differences(&rows).len(), 1);
    }
}
