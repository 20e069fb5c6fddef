//! Input of the example's own: loan applications as a bank might see them, the same on every run.
//!
//! It is written as CSV and read back like any other input. It has the real log's habits: several
//! rows share a time, work is completed more often than it is scheduled, some of it without being
//! started, and where the log ends, many an application is not decided yet.

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, TimeDelta, Utc};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::rows::COLUMNS;

/// How many applications there are.
pub(crate) const APPLICATIONS: usize = 3_000;
/// What the random numbers start from.
pub(crate) const SEED: u64 = 2012;

/// The log of `applications` loan applications, from 2011-10-01 to 2012-03-14, as CSV.
pub(crate) fn log(seed: u64, applications: usize) -> csv::Result<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(seed);
    let from = midnight(2011, 10, 1);
    let until = midnight(2012, 3, 14);
    // Applications come in until the day before the log ends.
    let submissions = (until - from - TimeDelta::days(1)).num_milliseconds();
    let mut entries = Vec::with_capacity(applications * 20);
    for number in 0..applications {
        let mut story = Story {
            now: from + TimeDelta::milliseconds(random.random_range(0..submissions)),
            application: 173_688 + 3 * number,
            amount: if random.random_bool(0.8) {
                1_000 * random.random_range(1..=40)
            } else {
                500 * random.random_range(2..=198)
            },
            resource: String::new(),
            entries: &mut entries,
            random: &mut random,
        };
        story.tell();
    }
    entries.retain(|entry| entry.at < until);
    // Stable: what shares a time within an application keeps its order.
    entries.sort_by_key(|entry| (entry.at, entry.application));

    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(COLUMNS)?;
    for entry in &entries {
        csv.write_record([
            entry.at.to_rfc3339_opts(SecondsFormat::Millis, true).as_str(),
            &entry.application.to_string(),
            &entry.amount.to_string(),
            entry.activity,
            entry.transition,
            &entry.resource,
        ])?;
    }
    csv.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}

fn midnight(year: i32, month: u32, day: u32) -> DateTime<Utc> {
    // The two dates above exist.
    let date = NaiveDate::from_ymd_opt(year, month, day).unwrap_or_default();
    date.and_time(NaiveTime::MIN).and_utc()
}

struct Entry {
    at: DateTime<Utc>,
    application: usize,
    amount: i64,
    activity: &'static str,
    transition: &'static str,
    resource: String,
}

const LEADS: &str = "W_Afhandelen leads";
const FRAUD: &str = "W_Beoordelen fraude";
const COMPLETION: &str = "W_Completeren aanvraag";
const OFFERS: &str = "W_Nabellen offertes";
const VALIDATION: &str = "W_Valideren aanvraag";
const INCOMPLETE: &str = "W_Nabellen incomplete dossiers";

/// One application from its submission on.
struct Story<'a> {
    now: DateTime<Utc>,
    application: usize,
    amount: i64,
    resource: String,
    entries: &'a mut Vec<Entry>,
    random: &'a mut StdRng,
}

impl Story<'_> {
    fn tell(&mut self) {
        // The web site.
        self.resource = "112".to_owned();
        self.state("A_SUBMITTED");
        self.wait_millis(100..900);
        self.state("A_PARTLYSUBMITTED");
        self.wait_seconds(20..90);
        if self.chance(0.26) {
            return self.state("A_DECLINED");
        }
        if self.chance(0.48) && !self.follow_lead() {
            return;
        }
        self.state("A_PREACCEPTED");
        self.wait_millis(0..1_000);
        self.work(COMPLETION, "SCHEDULE");
        if !self.completion() {
            return;
        }
        self.offer();
        if self.customer_answers() {
            self.validation();
        }
    }

    /// Somebody calls the customer. False if that ends the application.
    fn follow_lead(&mut self) -> bool {
        self.work(LEADS, "SCHEDULE");
        self.wait_hours(1..16);
        self.sessions(LEADS, 1..3);
        if self.chance(0.03) {
            self.work(FRAUD, "SCHEDULE");
            self.wait_hours(20..200);
            self.sessions(FRAUD, 1..4);
            self.state("A_DECLINED");
            return false;
        }
        if self.chance(0.45) {
            self.state("A_DECLINED");
            self.work(LEADS, "COMPLETE");
            return false;
        }
        true
    }

    /// Somebody completes the application with the customer. False if that ends it.
    fn completion(&mut self) -> bool {
        self.wait_hours(2..40);
        self.sessions(COMPLETION, 1..4);
        self.work(COMPLETION, "START");
        self.wait_seconds(60..900);
        if self.chance(0.32) {
            let end = if self.chance(0.5) { "A_DECLINED" } else { "A_CANCELLED" };
            self.state(end);
            self.work(COMPLETION, "COMPLETE");
            return false;
        }
        self.state("A_ACCEPTED");
        self.wait_seconds(30..300);
        true
    }

    fn offer(&mut self) {
        self.state("O_SELECTED");
        self.state("A_FINALIZED");
        self.wait_millis(500..3_000);
        self.state("O_CREATED");
        self.wait_millis(100..400);
        self.state("O_SENT");
        self.work(OFFERS, "SCHEDULE");
        self.wait_millis(500..3_000);
        self.work(COMPLETION, "COMPLETE");
        self.wait_hours(1..30);
        self.sessions(OFFERS, 1..4);
        if self.chance(0.25) {
            self.state("O_CANCELLED");
            self.state("O_SELECTED");
            self.wait_millis(500..3_000);
            self.state("O_CREATED");
            self.state("O_SENT");
        }
    }

    /// The customer sends the offer back, or is never heard of again.
    fn customer_answers(&mut self) -> bool {
        self.wait_hours(24..300);
        self.sessions(OFFERS, 0..4);
        if self.chance(0.3) {
            self.wait_hours(100..500);
            self.state("O_CANCELLED");
            self.state("A_CANCELLED");
            return false;
        }
        self.work(OFFERS, "START");
        self.wait_seconds(20..200);
        self.state("O_SENT_BACK");
        self.work(VALIDATION, "SCHEDULE");
        self.wait_seconds(1..3);
        self.work(OFFERS, "COMPLETE");
        true
    }

    fn validation(&mut self) {
        self.wait_hours(10..80);
        self.sessions(VALIDATION, 1..3);
        if self.chance(0.35) {
            self.work(INCOMPLETE, "SCHEDULE");
            if self.chance(0.05) {
                // Nobody ever calls.
                return;
            }
            self.wait_hours(5..60);
            self.sessions(INCOMPLETE, 1..6);
        }
        self.work(VALIDATION, "START");
        self.wait_seconds(300..3_000);
        if self.chance(0.75) {
            // All at once, in no particular order.
            let mut states = ["A_REGISTERED", "A_APPROVED", "O_ACCEPTED", "A_ACTIVATED"];
            states.shuffle(self.random);
            states.into_iter().for_each(|state| self.state(state));
        } else {
            self.state("O_DECLINED");
            self.state("A_DECLINED");
        }
        self.wait_seconds(1..20);
        self.work(VALIDATION, "COMPLETE");
    }

    /// Somebody takes up a piece of work and puts it aside, some number of times.
    fn sessions(&mut self, kind: &'static str, times: std::ops::Range<u32>) {
        for _ in 0..self.random.random_range(times) {
            self.resource = match self.random.random_range(0..12) {
                0 => String::new(),
                _ => (10_600 + self.random.random_range(0..60) * 11).to_string(),
            };
            if !self.chance(0.01) {
                self.work(kind, "START");
            }
            self.wait_seconds(30..1_500);
            self.work(kind, "COMPLETE");
            self.wait_hours(1..50);
        }
    }

    fn state(&mut self, activity: &'static str) {
        self.work(activity, "COMPLETE");
    }

    fn work(&mut self, activity: &'static str, transition: &'static str) {
        self.entries.push(Entry {
            at: self.now,
            application: self.application,
            amount: self.amount,
            activity,
            transition,
            resource: self.resource.clone(),
        });
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    fn wait_millis(&mut self, range: std::ops::Range<i64>) {
        self.now += TimeDelta::milliseconds(self.random.random_range(range));
    }

    fn wait_seconds(&mut self, range: std::ops::Range<i64>) {
        self.wait_millis(range.start * 1_000..range.end * 1_000);
    }

    fn wait_hours(&mut self, range: std::ops::Range<i64>) {
        self.wait_seconds(range.start * 3_600..range.end * 3_600);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use annals::{Apply, Handle};

    use super::*;
    use crate::{
        model::LoanApplication, read_model::LoanApplications, report::Standing, rows::Rows,
    };

    #[test]
    fn the_same_seed_makes_the_same_log() {
        assert_eq!(log(7, 50).unwrap(), log(7, 50).unwrap());
        assert_ne!(log(7, 50).unwrap(), log(8, 50).unwrap());
    }

    #[test]
    fn the_log_is_as_promised() {
        let csv = log(SEED, APPLICATIONS).unwrap();
        let rows: Vec<_> = Rows::from_bytes("the generated log", csv)
            .unwrap()
            .map(|row| row.unwrap().unwrap())
            .collect();
        let applications: BTreeSet<_> = rows.iter().map(|row| &row.application).collect();
        assert_eq!(applications.len(), APPLICATIONS);
        let each = rows.len() / APPLICATIONS;
        assert!((15..=25).contains(&each), "{each} rows for each application");
        assert!(rows[0].at >= midnight(2011, 10, 1));
        assert!(rows[rows.len() - 1].at < midnight(2012, 3, 14));
        let keys: BTreeSet<_> = rows.iter().map(|row| &row.key).collect();
        assert_eq!(keys.len(), rows.len());
        assert!(rows.windows(2).any(|pair| pair[0].at == pair[1].at));
    }

    /// What the aggregates and the rows of the read model say, counted from the text of the log
    /// without the model.
    #[test]
    fn the_model_adds_up_to_what_the_log_says() {
        let csv = log(SEED, 800).unwrap();

        let mut aggregates = BTreeMap::<String, LoanApplication>::new();
        let mut table = BTreeMap::<String, LoanApplications>::new();
        for row in Rows::from_bytes("the generated log", csv.clone()).unwrap() {
            let command = row.unwrap().unwrap().into_command();
            let (at, application) = (command.recorded_at.unwrap(), &command.command.application);
            let aggregate = aggregates.entry(application.clone()).or_default();
            let events = aggregate.handle(command.command.clone()).unwrap();
            assert_eq!(events.len(), 1);
            aggregate.apply(&events[0]);
            let before = table.remove(application);
            let after = LoanApplications::after(before, application, at, &events[0]);
            table.insert(application.clone(), after);
        }

        let mut amounts = BTreeMap::new();
        let mut statuses = BTreeMap::new();
        let mut last = BTreeMap::new();
        let mut offers = 0;
        let mut scheduled = BTreeMap::<_, i64>::new();
        let mut completed = BTreeMap::<_, i64>::new();
        let log = String::from_utf8(csv).unwrap();
        for line in log.lines().skip(1) {
            let fields: Vec<_> = line.split(',').collect();
            let [time, application, amount, activity, transition, _] = fields[..] else {
                panic!("{line}");
            };
            amounts.insert(application, amount.parse::<i128>().unwrap());
            last.insert(application, time.parse::<DateTime<Utc>>().unwrap());
            if let Some(status) = activity.strip_prefix("A_") {
                statuses.insert(application, status.to_lowercase());
            }
            offers += u64::from(activity == "O_CREATED");
            match transition {
                "SCHEDULE" => *scheduled.entry((application, activity)).or_default() += 1,
                "COMPLETE" => *completed.entry((application, activity)).or_default() += 1,
                _ => {}
            }
        }
        let open: i64 = scheduled
            .iter()
            .map(|(work, count)| (count - completed.get(work).unwrap_or(&0)).max(0))
            .sum();
        let mut by_status = BTreeMap::<_, (u64, i128)>::new();
        for (application, status) in &statuses {
            let tally = by_status.entry(status.clone()).or_default();
            tally.0 += 1;
            tally.1 += amounts[application];
        }

        assert!(open > 0 && offers > 0 && by_status.len() > 4, "{open} {offers} {by_status:?}");
        for standing in
            [table.values().collect::<Standing>(), aggregates.values().collect::<Standing>()]
        {
            let tallies: BTreeMap<_, _> = standing
                .by_status
                .iter()
                .map(|(status, tally)| (status.to_string(), (tally.applications, tally.amount)))
                .collect();
            assert_eq!(tallies, by_status);
            assert_eq!(standing.offers_created, offers as i64);
            assert_eq!(standing.open_work_items, open);
        }
        for (application, row) in &table {
            assert_eq!(row.last_activity_at, last[application.as_str()]);
        }
    }
}
