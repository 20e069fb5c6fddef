//! The loans example as its users run it: the real binary, PostgreSQL and Kafka.

#![allow(clippy::unwrap_used)] // A helper that fails fails its test.

mod support;

use std::{
    io::Write,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{Database, example};

const LOG: &str = "\
time,application,amount_requested,activity,transition,resource
2011-10-01T08:00:00.000Z,1,20000,A_SUBMITTED,COMPLETE,112
2011-10-01T08:00:01.000Z,1,20000,W_Completeren aanvraag,SCHEDULE,112
2011-10-02T08:00:00.000Z,2,5000,A_SUBMITTED,COMPLETE,112
2011-10-02T08:00:00.000Z,2,5000,A_DECLINED,COMPLETE,112
2011-10-03T08:00:00.000Z,1,20000,O_CREATED,COMPLETE,
2011-10-03T08:00:00.000Z,1,20000,A_ACCEPTED,COMPLETE,
2011-10-04T08:00:00.000Z,1,20000,W_Completeren aanvraag,COMPLETE,10
2011-10-04T08:00:00.000Z,1,20000,W_Completeren aanvraag,COMPLETE,10
";

struct Input(tempfile::NamedTempFile);

impl Input {
    fn of(content: &str) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        Self(file)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}

fn loans(database: &Database, args: &[&str]) -> Output {
    example("loans").env("DATABASE_URL", database.url()).args(args).output().unwrap()
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{errors}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// One line on stderr, nothing on stdout, exit code 1.
fn assert_fails_with(output: &Output, expected: &str) {
    let errors = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains(expected), "{errors}");
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn a_log_goes_through_and_is_there_as_of_any_time() {
    let (database, input) = (Database::create().await, Input::of(LOG));
    let args = ["--input", input.path(), "--no-kafka", "--format", "json", "--verify"];
    let times = ["--as-of", "2011-10-02T08:00:00Z", "--as-of", "2011-09-01"];
    let output = loans(&database, &[&args[..], &times].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = json(&output);
    assert_eq!(report["events"], 8);
    assert_eq!(report["applications"], 2);
    assert_eq!(report["rejected_rows"], 0);
    assert_eq!(report["published"], 0);
    let accepted = serde_json::json!({"applications": 1, "amount": 20000});
    let declined = serde_json::json!({"applications": 1, "amount": 5000});
    assert_eq!(
        report["now"],
        serde_json::json!({
            "by_status": {"accepted": accepted, "declined": declined},
            "offers_created": 1,
            "open_work_items": 0,
        })
    );
    assert_eq!(
        report["as_of"],
        serde_json::json!([
            {
                "at": "2011-10-02T08:00:00Z",
                "position": 4,
                "by_status": {"submitted": accepted, "declined": declined},
                "offers_created": 0,
                "open_work_items": 1,
            },
            {
                "at": "2011-09-01T00:00:00Z",
                "position": 0,
                "by_status": {},
                "offers_created": 0,
                "open_work_items": 0,
            },
        ])
    );
    // The same from SQL, as any tool can ask it.
    let sql = "select count(*) from loan_applications_as_of('2011-10-02T09:00:00Z') \
               where status = 'submitted' and open_work_items = 1";
    assert_eq!(database.count(sql).await, 1);
}

#[tokio::test]
async fn a_chart_is_drawn_from_how_things_stood() {
    let (database, input) = (Database::create().await, Input::of(LOG));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("loans.svg");
    let args = ["--input", input.path(), "--no-kafka", "--format", "json", "--chart"];
    let output = loans(&database, &[&args[..], &[path.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(json(&output)["events"], 8);
    assert_eq!(stderr(&output), format!("drawn: 80 as-of queries, in {}\n", path.display()));
    let chart = std::fs::read_to_string(path).unwrap();
    for part in [
        "<title id=\"title\">Loan applications by status, 1 October 2011 to 4 October 2011</title>",
        // Submitted ones have been, and are no more.
        "At the end, of 2 applications: 1 accepted, 0 submitted, 1 declined.</desc>",
    ] {
        assert!(chart.contains(part), "{part}: {chart}");
    }
    let band = |status: &str| {
        let path = chart.split_once(&format!("Z\"><title>{status}</title>")).unwrap().0;
        let points = path.rsplit_once("d=\"M").unwrap().1.split('L');
        let heights: Vec<f64> =
            points.map(|p| p.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
        let (above, below) = heights.split_at(80);
        let tall = |index: usize| below[79 - index] - above[index] > 100.0;
        (0..80).map(tall).collect::<Vec<_>>()
    };
    // Of three days: two in which one is submitted, and from then on it is accepted.
    let (submitted, accepted, declined) = (band("submitted"), band("accepted"), band("declined"));
    for index in 0..80 {
        let days = index as f64 / 79.0 * 3.0;
        assert_eq!((submitted[index], accepted[index]), (days < 2.0, days >= 2.0), "{index}");
        assert_eq!(declined[index], days >= 1.0, "{index}");
    }

    let nowhere = loans(&database, &[&args[..], &["no/such/directory/loans.svg"]].concat());
    assert_fails_with(&nowhere, "cannot write no/such/directory/loans.svg");
}

#[tokio::test]
async fn the_read_model_is_rebuilt_under_load() {
    let database = Database::create().await;
    // Of its own log, half of which comes while it is built anew; its past is the same then, too.
    let args = ["--no-kafka", "--format", "json", "--rebuild", "--verify", "--as-of", "2011-12-31"];
    let output = loans(&database, &args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = json(&output);
    let number = |name: &str| report["rebuild"][name].as_u64().unwrap();
    assert!(number("recorded_meanwhile") > 0, "no load: {report}");
    assert!(number("events") > 20_000 && number("rows") > 1_000, "{report}");
    let errors = stderr(&output);
    let lines: Vec<_> = errors.lines().collect();
    assert!(
        lines[0].starts_with("rebuilt: ") && lines[0].contains(" rows equal those"),
        "{errors}"
    );
    let rows = report["applications"].as_u64().unwrap();
    assert!(
        lines[1].starts_with("verified: ") && lines[1].contains(" rows at 2 moments"),
        "{errors}"
    );
    // The old one is kept beside it.
    let replaced = "select count(*) from annals_replaced.loan_applications";
    assert!(database.count(replaced).await as u64 <= rows);
    assert_eq!(database.count("select count(*) from loan_applications").await as u64, rows);
    assert_eq!(json(&loans(&database, &["--no-kafka", "--format", "json"])).get("rebuild"), None);
}

#[tokio::test]
async fn a_second_run_changes_nothing_and_says_so() {
    let (database, input) = (Database::create().await, Input::of(LOG));
    let args = ["--input", input.path(), "--no-kafka", "--format", "json"];
    let first = json(&loans(&database, &args));
    let again = loans(&database, &args);
    assert!(stderr(&again).contains("nothing new: all 8 rows had been recorded before"));
    let again = json(&again);
    for part in ["events", "applications", "now"] {
        assert_eq!(first[part], again[part]);
    }
    // A longer log records what is new; --reset forgets all.
    let longer = format!("{LOG}2011-10-05T08:00:00.000Z,3,700,A_SUBMITTED,COMPLETE,1\n");
    let longer = Input::of(&longer);
    let args = ["--input", longer.path(), "--no-kafka", "--format", "json"];
    assert_eq!(json(&loans(&database, &args))["events"], 9);
    let args = ["--input", input.path(), "--no-kafka", "--format", "json", "--reset"];
    assert_eq!(json(&loans(&database, &args))["events"], 8);
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_reported_and_the_rest_goes_on() {
    let database = Database::create().await;
    let bad = "\
2011-10-05T08:00:00.000Z,3,many,A_SUBMITTED,COMPLETE,1
2011-10-01T08:00:00.000Z,3,700,A_SUBMITTED,COMPLETE,1
2011-10-05T08:00:00.000Z,1,20001,A_DECLINED,COMPLETE,1
2011-10-05T08:00:00.000Z,4,700,A_SUBMITTED,COMPLETE,1
";
    let input = Input::of(&format!("{LOG}{bad}"));
    let output =
        loans(&database, &["--input", input.path(), "--no-kafka", "--format", "json", "--verify"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = stderr(&output);
    for line in [
        "line 10, column amount_requested: ",
        "line 11, column time: ",
        "line 12, column amount_requested: ",
    ] {
        assert!(errors.contains(line), "{errors}");
    }
    let report = json(&output);
    assert_eq!((&report["rejected_rows"], &report["events"]), (&3.into(), &9.into()));
}

#[tokio::test]
async fn rows_before_what_is_recorded_are_refused_one_by_one() {
    let (database, input) = (Database::create().await, Input::of(LOG));
    loans(&database, &["--input", input.path(), "--no-kafka"]);
    let (header, rows) = LOG.split_once('\n').unwrap();
    let earlier = format!("{header}\n2011-09-01T08:00:00.000Z,9,1,A_SUBMITTED,COMPLETE,1\n{rows}");
    let input = Input::of(&earlier);
    let output = loans(&database, &["--input", input.path(), "--no-kafka", "--format", "json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("line 2, column time: "), "{}", stderr(&output));
    let report = json(&output);
    assert_eq!((&report["rejected_rows"], &report["events"]), (&1.into(), &8.into()));
}

#[tokio::test]
async fn killed_at_any_time_and_run_again_the_numbers_are_the_same() {
    let (database, whole) = (Database::create().await, Database::create().await);
    let args = ["--no-kafka", "--format", "json", "--verify", "--as-of", "2011-12-31T23:59:59Z"];
    for milliseconds in [300, 700, 1200] {
        let mut killed = example("loans")
            .env("DATABASE_URL", database.url())
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        killed.kill().unwrap();
        killed.wait().unwrap();
    }
    let finished = loans(&database, &args);
    assert!(finished.status.success(), "{}", stderr(&finished));
    let (finished, expected) = (json(&finished), json(&loans(&whole, &args)));
    for part in ["events", "applications", "now"] {
        assert_eq!(finished[part], expected[part]);
    }
    let past = |report: &Value| {
        let mut past = report["as_of"][0].clone();
        // A run that was killed leaves holes in the positions.
        past.as_object_mut().unwrap().remove("position");
        past
    };
    assert_eq!(past(&finished), past(&expected));
}

#[tokio::test]
async fn what_is_wrong_is_said_in_one_line() {
    let (database, input) = (Database::create().await, Input::of(LOG));
    let started = Instant::now();
    assert_fails_with(&loans(&database, &["--input", "no/such/file.csv"]), "no/such/file.csv");
    assert_fails_with(
        &loans(&database, &["--input", Input::of("a,b\n1,2\n").path()]),
        "is not a log of loan applications",
    );
    let with_url = |url: &str| {
        let args = ["--input", input.path(), "--no-kafka"];
        example("loans").env("DATABASE_URL", url).args(args).output().unwrap()
    };
    assert_fails_with(
        &with_url("postgres://annals:secret@127.0.0.1:1/annals"),
        "127.0.0.1:1/annals",
    );
    assert_fails_with(&with_url("no url"), "the database URL is not valid");
    assert_fails_with(&with_url(&format!("{}_missing", database.url())), "does not exist");
    assert!(!stderr(&with_url("postgres://annals:secret@127.0.0.1:1/annals")).contains("secret"));
    loans(&database, &["--input", input.path(), "--no-kafka"]);
    database.execute("insert into annals.migrations values (999, '')").await;
    assert_fails_with(
        &loans(&database, &["--input", input.path(), "--no-kafka"]),
        "is at migration 999",
    );
    // Not a measure of speed: nothing of this may hang.
    assert!(started.elapsed() < Duration::from_secs(60));
    let past = loans(
        &Database::create().await,
        &["--input", input.path(), "--no-kafka", "--as-of", "2999-01-01"],
    );
    assert_fails_with(&past, "in the future");
}
