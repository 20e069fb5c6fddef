//! Where things stand, now and at other times: as one JSON document, or as text with a table.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::{Cell, CellAlignment, Table, TableComponent, presets::UTF8_HORIZONTAL_ONLY};
use serde::{Serialize, Serializer};

use crate::{
    model::{Dossier, LoanApplication, Status},
    read_model::LoanApplications,
};

/// The status of an application that has reached none yet.
const UNKNOWN: &str = "unknown";

/// What a run of the example has to say. It serializes as the example's JSON document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    /// How many events the log holds.
    pub(crate) events: u64,
    pub(crate) applications: u64,
    /// Rows that could not be read.
    pub(crate) rejected_rows: u64,
    /// How many events were delivered to Kafka.
    pub(crate) published: u64,
    /// How many rows an earlier run had recorded already.
    #[serde(skip)]
    pub(crate) recorded_before: u64,
    pub(crate) seconds: Seconds,
    /// How the read model was built anew meanwhile, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rebuild: Option<Rebuilt>,
    pub(crate) now: Standing,
    pub(crate) as_of: Vec<AsOf>,
}

/// How long each part of the run took, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Seconds {
    #[serde(serialize_with = "seconds")]
    pub(crate) commands: Duration,
    #[serde(serialize_with = "seconds")]
    pub(crate) projection: Duration,
}

/// How the read model was built anew.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Rebuilt {
    pub(crate) events: u64,
    /// How many rows were compared; all were the same.
    pub(crate) rows: u64,
    /// How long the building took, in seconds.
    #[serde(serialize_with = "seconds")]
    pub(crate) build: Duration,
    /// The same with comparing and swapping.
    #[serde(serialize_with = "seconds")]
    pub(crate) all: Duration,
    /// How many events were recorded while it lasted.
    pub(crate) recorded_meanwhile: u64,
}

/// Where all applications stand at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Standing {
    pub(crate) by_status: BTreeMap<&'static str, Tally>,
    pub(crate) offers_created: i64,
    pub(crate) open_work_items: i64,
}

/// The applications in one status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    pub(crate) applications: u64,
    /// In whole euros. Wide enough for any number of amounts.
    pub(crate) amount: i128,
}

/// Where all applications stood at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AsOf {
    #[serde(serialize_with = "time")]
    pub(crate) at: DateTime<Utc>,
    /// The position of the last event of that time.
    pub(crate) position: i64,
    #[serde(flatten)]
    pub(crate) standing: Standing,
}

impl Standing {
    fn add(&mut self, status: Option<Status>, amount: i64, offers: i64, open_work_items: i64) {
        let tally = self.by_status.entry(status.map_or(UNKNOWN, Status::name)).or_default();
        tally.applications += 1;
        tally.amount += i128::from(amount);
        self.offers_created += offers;
        self.open_work_items += open_work_items;
    }

    /// How many applications there are.
    pub(crate) fn applications(&self) -> u64 {
        self.by_status.values().map(|tally| tally.applications).sum()
    }
}

/// From rows of the read model.
impl<'a> FromIterator<&'a LoanApplications> for Standing {
    fn from_iter<I: IntoIterator<Item = &'a LoanApplications>>(rows: I) -> Self {
        let mut standing = Self::default();
        for row in rows {
            standing.add(row.status, row.amount_requested, row.offers_created, row.open_work_items);
        }
        standing
    }
}

/// From what aggregates add up to.
impl<'a> FromIterator<&'a Dossier> for Standing {
    fn from_iter<I: IntoIterator<Item = &'a Dossier>>(dossiers: I) -> Self {
        let mut standing = Self::default();
        for dossier in dossiers {
            standing.add(
                dossier.status,
                dossier.amount_requested,
                dossier.offers_created,
                dossier.open_work_items(),
            );
        }
        standing
    }
}

/// From aggregates. One without events is no application.
impl<'a> FromIterator<&'a LoanApplication> for Standing {
    fn from_iter<I: IntoIterator<Item = &'a LoanApplication>>(applications: I) -> Self {
        applications.into_iter().filter_map(|application| application.dossier.as_ref()).collect()
    }
}

impl Report {
    /// The report as one JSON document.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// The report as text with a table: a column for now and for each other time.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{} events of {} applications, {} of them published to Kafka.\n",
            grouped(self.events),
            grouped(self.applications),
            grouped(self.published),
        );
        let Seconds { commands, projection } = self.seconds;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "Commands took {:.1} s, the projection {:.1} s.",
            commands.as_secs_f64(),
            projection.as_secs_f64()
        );
        if self.rejected_rows > 0 {
            let _ = writeln!(text, "{} rows could not be read.", grouped(self.rejected_rows));
        }
        if self.recorded_before > 0 {
            let new =
                if self.recorded_before >= self.events { "; nothing has changed" } else { "" };
            let _ = writeln!(
                text,
                "{} rows had been recorded by an earlier run{new}.",
                grouped(self.recorded_before)
            );
        }
        text.push('\n');
        let _ = writeln!(text, "{}", self.table());
        text
    }

    fn table(&self) -> Table {
        let standings: Vec<_> = std::iter::once(&self.now)
            .chain(self.as_of.iter().map(|as_of| &as_of.standing))
            .collect();
        let statuses: Vec<_> = std::iter::once(UNKNOWN)
            .chain(Status::ALL.into_iter().map(Status::name))
            .filter(|status| {
                standings.iter().any(|standing| standing.by_status.contains_key(status))
            })
            .collect();

        let mut table = Table::new();
        table
            .load_preset(UTF8_HORIZONTAL_ONLY)
            .remove_style(TableComponent::HorizontalLines)
            .remove_style(TableComponent::MiddleIntersections);
        let times = self.as_of.iter().map(|as_of| shown_time(as_of.at));
        table.set_header(
            [String::new(), "now".to_owned()].into_iter().chain(times).enumerate().map(aligned),
        );
        let mut row = |name: &str, numbers: &mut dyn Iterator<Item = String>| {
            let cells = std::iter::once(name.to_owned()).chain(numbers);
            table.add_row(cells.enumerate().map(aligned));
        };
        let applications: Number = |tally| i128::from(tally.applications);
        let amount: Number = |tally| tally.amount;
        for (name, number) in [("applications", applications), ("euros requested", amount)] {
            let all = |standing: &&Standing| {
                grouped(standing.by_status.values().map(number).sum::<i128>())
            };
            row(name, &mut standings.iter().map(all));
            for status in &statuses {
                let one = |standing: &&Standing| {
                    grouped(standing.by_status.get(status).map_or(0, number))
                };
                row(&format!("  {status}"), &mut standings.iter().map(one));
            }
        }
        row(
            "offers created",
            &mut standings.iter().map(|standing| grouped(standing.offers_created)),
        );
        row(
            "open work items",
            &mut standings.iter().map(|standing| grouped(standing.open_work_items)),
        );
        if !self.as_of.is_empty() {
            let positions = self.as_of.iter().map(|as_of| grouped(as_of.position));
            row("position", &mut std::iter::once(String::new()).chain(positions));
        }
        table
    }
}

/// One of the numbers of a tally.
type Number = fn(&Tally) -> i128;

/// Names stand to the left, numbers to the right.
fn aligned((column, text): (usize, String)) -> Cell {
    let alignment = if column == 0 { CellAlignment::Left } else { CellAlignment::Right };
    Cell::new(text).set_alignment(alignment)
}

/// A number with its digits in groups of three.
pub(crate) fn grouped(number: impl ToString) -> String {
    let number = number.to_string();
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", number.as_str()),
    };
    let mut grouped = sign.to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// RFC 3339 in UTC, without a fraction where there is none.
fn shown_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn time<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown_time(*time))
}

/// In seconds, to the millisecond.
fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1_000.0).round() / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dossier(status: Option<Status>, amount_requested: i64, open: i64) -> Dossier {
        Dossier {
            amount_requested,
            status,
            offers_created: 1,
            work: [("Nabellen offertes".to_owned(), open), ("Afhandelen leads".to_owned(), -2)]
                .into(),
        }
    }

    fn report() -> Report {
        let dossiers = [
            dossier(Some(Status::Declined), 1_000, 2),
            dossier(Some(Status::Declined), 2_500, 0),
            dossier(Some(Status::Activated), 40_000, -1),
        ];
        Report {
            events: 262_200,
            applications: 3,
            rejected_rows: 0,
            published: 262_200,
            recorded_before: 0,
            rebuild: None,
            seconds: Seconds {
                commands: Duration::from_micros(9_876_543),
                projection: Duration::from_secs(11),
            },
            now: dossiers.iter().collect(),
            as_of: vec![
                AsOf {
                    at: "2011-12-31T23:59:59Z".parse().unwrap(),
                    position: 7,
                    standing: dossiers[..1].iter().collect(),
                },
                AsOf {
                    at: "2011-10-01T00:00:00.250Z".parse().unwrap(),
                    position: 0,
                    standing: Standing::default(),
                },
            ],
        }
    }

    #[test]
    fn the_document_has_its_fields_in_their_order() {
        assert_eq!(
            serde_json::to_string(&report()).unwrap(),
            concat!(
                r#"{"events":262200,"applications":3,"rejected_rows":0,"published":262200,"#,
                r#""seconds":{"commands":9.877,"projection":11.0},"#,
                r#""now":{"by_status":{"activated":{"applications":1,"amount":40000},"#,
                r#""declined":{"applications":2,"amount":3500}},"#,
                r#""offers_created":3,"open_work_items":2},"#,
                r#""as_of":[{"at":"2011-12-31T23:59:59Z","position":7,"#,
                r#""by_status":{"declined":{"applications":1,"amount":1000}},"#,
                r#""offers_created":1,"open_work_items":2},"#,
                r#"{"at":"2011-10-01T00:00:00.250Z","position":0,"by_status":{},"#,
                r#""offers_created":0,"open_work_items":0}]}"#
            )
        );
    }

    #[test]
    fn the_printed_document_is_one_document() {
        let report = report();
        let printed: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(printed, serde_json::to_value(&report).unwrap());
    }

    #[test]
    fn an_application_without_a_status_counts_as_unknown() {
        let standing: Standing = [dossier(None, 5, 0)].iter().collect();
        assert_eq!(standing.by_status["unknown"], Tally { applications: 1, amount: 5 });
        let none: Standing = [LoanApplication::default()].iter().collect();
        assert_eq!(none, Standing::default());
    }

    #[test]
    fn amounts_do_not_overflow() {
        let dossiers = [dossier(None, i64::MAX, 0), dossier(None, i64::MAX, 0)];
        let standing: Standing = dossiers.iter().collect();
        assert_eq!(standing.by_status["unknown"].amount, 2 * i128::from(i64::MAX));
        assert!(serde_json::to_string(&standing).unwrap().contains("18446744073709551614"));
    }

    #[test]
    fn the_table_has_a_column_for_each_time() {
        let text = report().text();
        let line = |start: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(start));
            line.unwrap_or_else(|| panic!("no {start}: {text}"))
                .split_whitespace()
                .collect::<Vec<_>>()
        };
        assert_eq!(line("now"), ["now", "2011-12-31T23:59:59Z", "2011-10-01T00:00:00.250Z"]);
        assert_eq!(line("declined"), ["declined", "2", "1", "0"]);
        assert_eq!(line("activated"), ["activated", "1", "0", "0"]);
        assert_eq!(line("applications"), ["applications", "3", "1", "0"]);
        assert_eq!(line("euros requested"), ["euros", "requested", "43,500", "1,000", "0"]);
        assert_eq!(line("open work items"), ["open", "work", "items", "2", "2", "0"]);
        assert_eq!(line("position"), ["position", "7", "0"]);
        assert!(text.contains("3,500"), "{text}");
        assert!(!text.contains("submitted") && !text.contains("earlier run"), "{text}");
    }

    #[test]
    fn a_second_run_says_so() {
        let text = Report { recorded_before: 262_200, ..report() }.text();
        assert!(
            text.contains("262,200 rows had been recorded by an earlier run; nothing has changed."),
            "{text}"
        );
        let text = Report { recorded_before: 10, rejected_rows: 2, ..report() }.text();
        assert!(text.contains("10 rows had been recorded by an earlier run.\n"), "{text}");
        assert!(text.contains("2 rows could not be read."), "{text}");
    }

    #[test]
    fn digits_are_grouped() {
        let numbers = [0, 12, 123, 1_234, 123_456, 1_234_567, -1_234, -123];
        assert_eq!(
            numbers.map(grouped),
            ["0", "12", "123", "1,234", "123,456", "1,234,567", "-1,234", "-123"]
        );
    }
}
