//! Rows out of text, and what becomes of bad ones.

mod input;
mod values;

use std::{fs, io::Write as _};

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::model::{OfferState, Status, WorkStep};

const HEADER: &str = "time,application,amount_requested,activity,transition,resource\n";

type Outcome = Result<Row, BadRow>;

fn open(text: impl AsRef<[u8]>) -> Result<Rows, InputError> {
    Rows::from_bytes("log.csv", text.as_ref().to_vec())
}

fn read(text: impl AsRef<[u8]>) -> Vec<Outcome> {
    open(text).unwrap().map(|row| row.unwrap()).collect()
}

/// The outcomes of these rows under the usual header.
fn rows(text: impl AsRef<[u8]>) -> Vec<Outcome> {
    read([HEADER.as_bytes(), text.as_ref()].concat())
}

/// The one row that cannot be read.
fn bad(text: impl AsRef<[u8]>) -> BadRow {
    let mut bad: Vec<_> = rows(text).into_iter().filter_map(Result::err).collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    bad.remove(0)
}

/// What is wrong with a row that has `value` in `column` and is right otherwise.
fn bad_value(column: &str, value: &str) -> String {
    let mut fields = ["2011-10-01T00:00:00.000Z", "1", "500", "A_SUBMITTED", "COMPLETE", "112"];
    let index = COLUMNS.iter().position(|name| *name == column).unwrap();
    fields[index] = value;
    let bad = bad(fields.join(","));
    assert_eq!((bad.line, bad.column.as_str()), (2, column), "{bad}");
    bad.reason
}

/// A good row at this second.
fn good(second: u32, application: &str) -> String {
    format!("2011-10-01T00:00:{second:02}.000Z,{application},500,A_SUBMITTED,COMPLETE,112\n")
}

fn lines(outcomes: &[Outcome]) -> Vec<u64> {
    outcomes.iter().map(|row| row.as_ref().map_or_else(|bad| bad.line, |row| row.line)).collect()
}

fn applications(outcomes: &[Outcome]) -> Vec<&str> {
    outcomes.iter().flatten().map(|row| row.application.as_str()).collect()
}

fn keys(outcomes: &[Outcome]) -> Vec<&str> {
    outcomes.iter().flatten().map(|row| row.key.as_str()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn a_row_is_read_with_all_it_says() {
    let mut rows = rows(concat!(
        "2011-10-01T00:38:44.546+02:00,173688,20000,A_PARTLYSUBMITTED,COMPLETE,112\n",
        "2011-09-30T22:38:45Z,173688,20000,W_Completeren aanvraag,SCHEDULE,\n",
        "2011-09-30T22:38:45Z,173688,20000,O_SENT_BACK,COMPLETE,\n",
    ));
    let last = rows.pop().unwrap().unwrap();
    assert_eq!(last.activity, Activity::Offer(OfferState::SentBack));
    let work = rows.pop().unwrap().unwrap();
    assert_eq!(
        work.activity,
        Activity::Work { kind: "Completeren aanvraag".into(), step: WorkStep::Scheduled }
    );
    assert_eq!(work.resource, None);
    let first = rows.pop().unwrap().unwrap();
    assert_eq!(first.key.len(), 32);
    let command = first.clone().into_command();
    assert_eq!(
        first,
        Row {
            line: 2,
            key: first.key.clone(),
            at: "2011-09-30T22:38:44.546Z".parse().unwrap(),
            application: "173688".into(),
            amount_requested: 20_000,
            activity: Activity::Application(Status::PartlySubmitted),
            resource: Some("112".into()),
        }
    );
    assert_eq!(command.recorded_at, Some(first.at));
    assert_eq!(command.command.at, first.at);
    assert_eq!(command.idempotency_key, Some(first.key));
}

#[test]
fn columns_stand_in_any_order() {
    let text = concat!(
        "resource,activity,time,transition,amount_requested,application\n",
        "112,A_SUBMITTED,2011-10-01T00:00:00.000Z,COMPLETE,500,1\n",
    );
    let reordered = read(text);
    assert_eq!(reordered, rows(good(0, "1")));
    // A bad row names the column as the header does.
    let bad = read(text.replace(",1\n", ",\n")).remove(0).unwrap_err();
    assert_eq!(bad.column, "application");
    let short = read(text.replace(",COMPLETE,500,1", "")).remove(0).unwrap_err();
    assert_eq!(short.to_string(), "line 2, column transition: the row has 3 fields instead of 6");
}

#[test]
fn line_ends_byte_order_mark_blank_lines_and_a_missing_last_line_end_do_not_matter() {
    let plain = format!("{HEADER}{}{}", good(0, "1"), good(1, "2"));
    let expected = read(&plain);
    assert_eq!(applications(&expected), ["1", "2"]);
    for same in [
        plain.replace('\n', "\r\n"),
        format!("\u{feff}{plain}"),
        plain.trim_end().to_owned(),
        format!("{plain}\n\n \t \r\n"),
    ] {
        assert_eq!(read(&same), expected, "{same:?}");
    }
    let blank = format!("\u{feff}\r\n\n{}", plain.replace('\n', "\r\n\r\n  \n"));
    let outcomes = read(blank);
    assert_eq!(keys(&outcomes), keys(&expected));
    assert_eq!(lines(&outcomes), [6, 9]);
}

#[test]
fn fields_may_be_quoted() {
    let outcomes = rows(concat!(
        "\"2011-10-01T00:00:00Z\",\"1\",\"5\",\"W_a, \"\"b\"\"\",\"START\",\"x\ny\r\n\nz\"\r\n",
        "2011-10-01T00:00:01Z,2,5,A_SUBMITTED,COMPLETE,\"\"\n",
        "2011-10-01T00:00:02Z,3,5,A_SUBMITTED,COMPLETE,5\" disk\n",
        "2011-10-01T00:00:03Z,4,5,A_SUBMITTED,COMPLETE,\"112\"",
    ));
    assert_eq!(lines(&outcomes), [2, 6, 7, 8]);
    let resources: Vec<_> =
        outcomes.iter().map(|row| row.as_ref().unwrap().resource.as_deref()).collect();
    assert_eq!(resources, [Some("x\ny\r\n\nz"), None, Some("5\" disk"), Some("112")]);
    assert_eq!(
        outcomes[0].as_ref().unwrap().activity,
        Activity::Work { kind: "a, \"b\"".into(), step: WorkStep::Started }
    );
}

/// The reader agrees with another one on what is valid.
#[test]
fn valid_csv_is_read_as_the_csv_crate_reads_it() {
    let kinds = ["", "a", "\"", "\"\"", ",", "\n", "\r\n", "a\"b", "\"a", ",\"\n,", "é", "a\n\nb"];
    let mut writer = csv::Writer::from_writer(HEADER.as_bytes().to_vec());
    let mut expected = Vec::new();
    for (kind, resource) in kinds.iter().flat_map(|kind| kinds.map(|resource| (*kind, resource))) {
        let (activity, resource) = (format!("W_.{kind}"), resource.to_owned());
        writer
            .write_record(["2011-10-01T00:00:00Z", "1", "5", &activity, "START", &resource])
            .unwrap();
        expected.push((format!(".{kind}"), Some(resource).filter(|text| !text.is_empty())));
    }
    let found: Vec<_> = read(writer.into_inner().unwrap())
        .into_iter()
        .map(|row| row.unwrap())
        .map(|row| match row.activity {
            Activity::Work { kind, .. } => (kind, row.resource),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_bad_row_costs_only_itself() {
    let outcomes = rows([good(0, "1"), "nonsense\n".into(), good(1, "2")].concat());
    assert_eq!(lines(&outcomes), [2, 3, 4]);
    assert_eq!(
        outcomes[1].as_ref().unwrap_err().to_string(),
        "line 3, column application: the row has 1 fields instead of 6"
    );
    assert_eq!(applications(&outcomes), ["1", "2"]);
}

#[test]
fn the_number_of_fields_is_checked() {
    let few = bad("2011-10-01T00:00:00Z,1,5,A_SUBMITTED,COMPLETE");
    assert_eq!(few.to_string(), "line 2, column resource: the row has 5 fields instead of 6");
    let many = bad("2011-10-01T00:00:00Z,1,5,A_SUBMITTED,COMPLETE,112,,");
    assert_eq!(many.to_string(), "line 2, column 7: the row has 8 fields instead of 6");
}

#[test]
fn what_is_not_utf8_is_refused() {
    let latin1 = bad(b"2011-10-01T00:00:00Z,1,5,A_SUBMITTED,COMPLETE,Ren\xe9e\n");
    assert_eq!(latin1.to_string(), "line 2, column resource: \"Ren\\xe9e\" is not UTF-8");
    let long = bad([b"\xff".repeat(500), b",1,5,A_SUBMITTED,COMPLETE,".to_vec()].concat());
    assert_eq!(long.column, "time");
    assert!(long.reason.len() < 300, "{}", long.reason);
}

#[test]
fn time_does_not_go_back() {
    let outcomes =
        rows([good(5, "1"), good(4, "2"), good(5, "3"), good(4, "4"), good(6, "5")].concat());
    assert_eq!(applications(&outcomes), ["1", "3", "5"]);
    let bad: Vec<_> = outcomes.iter().filter_map(|row| row.as_ref().err()).collect();
    assert_eq!(
        bad[0].to_string(),
        "line 3, column time: time goes back: 2011-10-01T00:00:05Z was before it"
    );
    assert_eq!(bad[1].line, 5);
}

#[test]
fn the_time_of_a_bad_row_does_not_count() {
    let broken = good(59, "1").replace("500", "much");
    let outcomes = rows([broken, good(1, "2")].concat());
    assert_eq!(applications(&outcomes), ["2"]);
}

#[test]
fn a_quote_that_is_never_closed_costs_only_its_line() {
    let broken = "2011-10-01T00:00:01Z,2,5,A_SUBMITTED,COMPLETE,\"112\n";
    let text = [good(0, "1"), broken.into(), good(2, "3"), good(3, "4")].concat();
    let outcomes = rows(&text);
    assert_eq!(lines(&outcomes), [2, 3, 4, 5]);
    assert_eq!(applications(&outcomes), ["1", "3", "4"]);
    assert_eq!(
        outcomes[1].as_ref().unwrap_err().to_string(),
        "line 3, column resource: the quote is never closed"
    );
    // As the last line, without an end.
    let outcomes = rows([&good(0, "1"), broken.trim_end()].concat());
    assert_eq!((lines(&outcomes), applications(&outcomes)), (vec![2, 3], vec!["1"]));
}

#[test]
fn a_quote_that_a_later_one_seems_to_close_costs_only_its_line() {
    let broken = "2011-10-01T00:00:01Z,2,5,A_SUBMITTED,COMPLETE,\"112\n";
    let later = good(3, "4").replace("112", "\"112\"");
    let outcomes = rows([broken.into(), good(2, "3"), later, good(4, "5")].concat());
    assert_eq!(lines(&outcomes), [2, 3, 4, 5]);
    assert_eq!(applications(&outcomes), ["3", "4", "5"]);
    assert_eq!(outcomes[0].as_ref().unwrap_err().reason, "text follows the closing quote");

    // Here the record is well-formed, but what it spans has too many fields.
    let later = "\"\",6,5,A_SUBMITTED,COMPLETE,\n";
    let broken = "2011-10-01T00:00:01Z,2,5,\"A_SUBMITTED,COMPLETE,112\n";
    let outcomes = rows([broken.into(), good(2, "3"), later.into(), good(4, "5")].concat());
    assert_eq!(lines(&outcomes), [2, 3, 4, 5]);
    assert_eq!(applications(&outcomes), ["3", "5"]);
}

#[test]
fn a_quote_that_stays_open_for_long_is_given_up() {
    let broken = "2011-10-01T00:00:01Z,2,5,A_SUBMITTED,COMPLETE,\"112\n";
    let rest: String = (0..3_000).map(|number| good(2, &number.to_string())).collect();
    let outcomes = rows([broken.into(), broken.into(), rest].concat());
    assert_eq!(outcomes.len(), 3_002);
    assert_eq!(applications(&outcomes).len(), 3_000);
    assert_eq!(lines(&outcomes), (2..3_004).collect::<Vec<_>>());
}

#[test]
fn a_line_that_is_too_long_is_not_kept() {
    for field in ["x".repeat(200_000), format!("\"{}", "x".repeat(200_000))] {
        let long = format!("2011-10-01T00:00:01Z,2,5,A_SUBMITTED,COMPLETE,{field}\n");
        let outcomes = rows([good(0, "1"), long, good(2, "3")].concat());
        assert_eq!(lines(&outcomes), [2, 3, 4]);
        assert_eq!(
            outcomes[1].as_ref().unwrap_err().to_string(),
            "line 3, column resource: the line is longer than 65536 bytes"
        );
        assert_eq!(applications(&outcomes), ["1", "3"]);
    }
    // At the limit.
    for extra in [0, 1] {
        let start = "2011-10-01T00:00:01Z,2,5,A_SUBMITTED,COMPLETE,";
        let field = "x".repeat(MAX_RECORD_BYTES - start.len() - 1 + extra);
        let outcomes = rows([format!("{start}{field}\n"), good(2, "3")].concat());
        assert_eq!(applications(&outcomes).len(), 2 - extra);
        assert_eq!(lines(&outcomes), [2, 3]);
    }
}

#[test]
fn a_key_depends_on_the_row_and_not_on_its_place() {
    let all = rows([good(0, "1"), good(1, "2"), good(2, "3")].concat());
    let (first, last) = (keys(&all)[0], keys(&all)[2]);
    assert_eq!(keys(&rows(["\n\n", &good(2, "3")].concat())), [last]);
    assert_eq!(keys(&rows(["bad\n", &good(0, "1")].concat())), [first]);
    // It depends on every field, and on where one ends and the next begins.
    let fields = ["2011-10-01T00:00:00Z", "1", "5", "W_a", "START", "b"];
    let others = ["2011-10-01T00:00:01Z", "2", "6", "W_c", "COMPLETE", "d"];
    let mut variants = vec![fields.join(",")];
    for (index, other) in others.into_iter().enumerate() {
        let mut fields = fields;
        fields[index] = other;
        variants.push(fields.join(","));
    }
    variants.push("2011-10-01T00:00:00Z,15,5,W_a,START,b".into());
    variants.push("2011-10-01T00:00:00Z,1,55,W_a,START,b".into());
    let mut distinct: Vec<_> = variants.iter().map(|row| keys(&rows(row))[0].to_owned()).collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), variants.len());
}

#[test]
fn rows_with_the_same_content_have_keys_of_their_own() {
    let one = rows(good(0, "1"));
    let several = rows([good(0, "1"), good(0, "2"), good(0, "1"), good(0, "1")].concat());
    let mut distinct = keys(&several);
    assert_eq!(distinct[0], keys(&one)[0]);
    // The second of its kind is the second wherever it stands.
    let other = rows([good(0, "1"), good(0, "1")].concat());
    assert_eq!(keys(&other)[1], distinct[2]);
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 4);
}

#[test]
fn only_rows_of_the_same_time_are_remembered() {
    let text: String = (0..60).map(|second| good(second, "1")).collect();
    let mut rows = open(format!("{HEADER}{text}")).unwrap();
    assert_eq!(rows.by_ref().filter(|row| matches!(row, Ok(Ok(_)))).count(), 60);
    assert_eq!(rows.seen.len(), 1);
}
