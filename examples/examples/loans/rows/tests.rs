use std::{fs, io::Write as _};

use flate2::{Compression, write::GzEncoder};

use super::*;

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
fn every_activity_and_transition_of_the_log_is_known() {
    for name in ["SUBMITTED", "PARTLYSUBMITTED", "PREACCEPTED", "ACCEPTED", "FINALIZED"]
        .into_iter()
        .chain(["REGISTERED", "APPROVED", "ACTIVATED", "DECLINED", "CANCELLED"])
    {
        let Ok(Activity::Application(status)) = activity(&format!("A_{name}"), "COMPLETE") else {
            panic!("{name}");
        };
        assert_eq!(status.name(), name.to_lowercase());
    }
    for name in ["SELECTED", "CREATED", "SENT", "SENT_BACK", "ACCEPTED", "CANCELLED", "DECLINED"] {
        let Ok(Activity::Offer(state)) = activity(&format!("O_{name}"), "COMPLETE") else {
            panic!("{name}");
        };
        assert_eq!(state.name(), name.to_lowercase());
    }
    for (transition, step) in [
        ("SCHEDULE", WorkStep::Scheduled),
        ("START", WorkStep::Started),
        ("COMPLETE", WorkStep::Completed),
    ] {
        assert_eq!(
            activity("W_any thing", transition),
            Ok(Activity::Work { kind: "any thing".into(), step })
        );
    }
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
fn a_time_is_rfc_3339() {
    for text in [
        "",
        "yesterday",
        "2011-10-01",
        "2011-10-01T00:00:00",
        "2011-02-29T00:00:00Z",
        "2011-10-01T24:00:00Z",
        "1317427200",
        " 2011-10-01T00:00:00Z",
    ] {
        assert_eq!(
            bad_value("time", text),
            format!("{text:?} is not a time in RFC 3339, like 2011-12-31T23:59:59.000Z")
        );
    }
}

#[test]
fn times_are_cut_to_what_the_database_keeps() {
    let at = |text: &str| time(text).unwrap().to_string();
    assert_eq!(at("2011-10-01T00:00:00.123456789Z"), "2011-10-01 00:00:00.123456 UTC");
    assert_eq!(at("2012-06-30T23:59:60Z"), "2012-07-01 00:00:00 UTC");
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
fn an_amount_is_a_whole_number_that_is_not_negative() {
    for text in ["", "-1", "+1", "1.5", "1e3", "0x10", " 1", "1 000", "١", "much"] {
        assert_eq!(
            bad_value("amount_requested", text),
            format!("{text:?} is not a whole number of euros, 0 or more")
        );
    }
    let huge = "9223372036854775808";
    assert_eq!(bad_value("amount_requested", huge), format!("{huge:?} is too large an amount"));
    assert_eq!(amount("9223372036854775807"), Ok(i64::MAX));
    assert_eq!(amount("0"), Ok(0));
    assert_eq!(amount("000500"), Ok(500));
}

#[test]
fn an_application_is_a_valid_stream_key() {
    assert_eq!(bad_value("application", ""), "the application's id is empty");
    assert_eq!(bad_value("application", "1\u{7f}2"), "\"1\\u{7f}2\" holds a control character");
    assert_eq!(bad_value("application", "\"1\n2\""), "\"1\\n2\" holds a control character");
    assert_eq!(
        bad_value("application", &"é".repeat(128)),
        format!("\"{}\"... has 256 bytes; an application's id has at most 255", "é".repeat(60))
    );
    assert_eq!(application(&"x".repeat(255)), Ok("x".repeat(255)));
    // The store agrees.
    for text in ["", "1\u{7f}2", "1\u{85}2", &"é".repeat(128), "an id, with - and ü"] {
        let stored = annals::StreamId::new("loan_application", text);
        assert_eq!(application(text).is_ok(), stored.is_ok(), "{text:?}");
    }
}

#[test]
fn an_activity_is_a_known_one() {
    for text in [
        "",
        "A_",
        "O_",
        "W_",
        "W_ ",
        "A_LOST",
        "O_LOST",
        "A_submitted",
        "A_SENT",
        "O_SENTBACK",
        "SUBMITTED",
        "X_SUBMITTED",
        "a_SUBMITTED",
        "A_SUBMITTED ",
    ] {
        assert_eq!(bad_value("activity", text), format!("{text:?} is not a known activity"));
    }
}

#[test]
fn a_transition_is_a_known_one_that_fits_the_activity() {
    for text in ["", "complete", "SUSPEND", "COMPLETE "] {
        assert_eq!(
            bad_value("transition", text),
            format!("{text:?} is not one of SCHEDULE, START and COMPLETE")
        );
    }
    assert_eq!(
        bad_value("transition", "START"),
        "\"A_SUBMITTED\" is START, but states are only reached: COMPLETE"
    );
    let offer = bad("2011-10-01T00:00:00Z,1,5,O_SENT,SCHEDULE,");
    assert_eq!(offer.column, "transition");
    let work = bad("2011-10-01T00:00:00Z,1,5,W_Nabellen offertes,ABORT,");
    assert_eq!(work.column, "transition");
}

#[test]
fn nul_characters_are_refused() {
    assert_eq!(bad_value("resource", "1\u{0}"), "\"1\\0\" holds a NUL character");
    assert_eq!(bad_value("activity", "W_a\u{0}"), "\"W_a\\0\" holds a NUL character");
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
fn errors_show_values_shortly_and_on_one_line() {
    let reason = bad_value("activity", &"A_\u{1b}[31m".repeat(1_000));
    assert!(reason.len() < 200, "{reason}");
    assert!(reason.starts_with("\"A_\\u{1b}[31mA_"), "{reason}");
    let bad = bad("2011-10-01T00:00:00Z,1,5,\"A_\r\n\u{202e}\u{9b}\",COMPLETE,");
    assert_eq!(bad.reason, "\"A_\\r\\n\\u{202e}\\u{9b}\" is not a known activity");
}

#[test]
fn the_header_is_checked() {
    let problem = |text: &[u8]| match open(text) {
        Err(error @ InputError::Header { .. }) => {
            let message = error.to_string();
            let message = message.strip_prefix("log.csv is not a log of loan applications: ");
            let end = "; its first line must name the columns \
                       time,application,amount_requested,activity,transition,resource, in any order";
            message.unwrap().strip_suffix(end).unwrap().to_owned()
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the header is accepted"),
    };
    assert_eq!(problem(b""), "it is empty");
    assert_eq!(problem(b"\n \n"), "it is empty");
    assert_eq!(
        problem(b"time,application,activity,transition,resource\n"),
        "the header lacks amount_requested"
    );
    assert_eq!(
        problem(b"time,application,amount,activity,transition,resource\n"),
        "the header lacks amount_requested, and the header has unknown columns: \"amount\""
    );
    assert_eq!(
        problem(format!("note,{HEADER}").as_bytes()),
        "the header has unknown columns: \"note\""
    );
    assert_eq!(problem(format!("time,{HEADER}").as_bytes()), "the header has a column twice");
    assert_eq!(problem(b"\"time\n"), "a quote in the header is never closed");
    let other = problem(b"\x7fELF\x02\x01\xff\x00,a,b,c,d\n");
    assert!(other.contains("\"\\x7fELF\\x02\\x01\\xff\\x00\", \"a\", \"b\", ..."), "{other}");
    let long = problem(&b"x".repeat(1_000_000));
    assert!(long.len() < 300, "{long}");
    // Quotes and spaces around the names are fine.
    let header = HEADER.replace("time,application", "\"time\", application ");
    assert_eq!(applications(&read(format!("{header}{}", good(0, "1")))), ["1"]);
}

#[test]
fn a_log_without_rows_is_a_log() {
    assert_eq!(read(HEADER), []);
    assert_eq!(read(HEADER.trim_end()), []);
}

#[test]
fn compressed_input_is_known_by_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let plain = format!("{HEADER}{}{}", good(0, "1"), good(1, "2"));
    let (start, end) = plain.as_bytes().split_at(90);
    let several = [gzip(start), gzip(end)].concat();
    for (name, content) in [
        ("plain.gz", plain.clone().into_bytes()),
        ("packed.csv", gzip(plain.as_bytes())),
        ("log", several),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, &content).unwrap();
        let mut rows = Rows::open(&path).unwrap();
        let bytes = rows.bytes();
        assert_eq!(bytes.size(), content.len() as u64);
        let outcomes: Vec<_> = rows.by_ref().map(|row| row.unwrap()).collect();
        assert_eq!(outcomes, read(&plain), "{name}");
        assert_eq!(bytes.read(), bytes.size(), "{name}");
    }
}

#[test]
fn a_compressed_file_that_ends_too_early_is_an_error_after_its_rows() {
    let text: String = (0..20_000).map(|number| good(0, &number.to_string())).collect();
    let packed = gzip(format!("{HEADER}{text}").as_bytes());
    let whole = packed.len();
    for length in [whole / 2, whole - 9, whole - 8, whole - 1] {
        let mut good = 0;
        let mut rows = open(&packed[..length]).unwrap();
        let error = loop {
            match rows.next() {
                Some(Ok(row)) => {
                    // Half a line is never taken for a row.
                    assert_eq!(row.unwrap().application, good.to_string());
                    good += 1;
                }
                Some(Err(error)) => break error,
                None => panic!("cut to {length} of {whole} bytes, it is read to its end"),
            }
        };
        assert_eq!(error.to_string(), format!("cannot read log.csv beyond line {}", good + 1));
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(
            source.to_string(),
            "the compressed data ends too early; the file is not complete"
        );
        assert!(rows.next().is_none(), "it ends there");
    }
    for length in [2, 5, 10, 12] {
        let error = open(&packed[..length]).err().unwrap();
        assert_eq!(error.to_string(), "cannot read log.csv", "{length}");
    }
}

#[test]
fn damaged_compression_is_an_error() {
    let text: String = (0..20_000).map(|number| good(0, &number.to_string())).collect();
    let mut packed = gzip(format!("{HEADER}{text}").as_bytes());
    let middle = packed.len() / 2;
    packed[middle..middle + 20].fill(0xff);
    // The damage shows in the data or, at the latest, in its checksum.
    let error = open(&packed).unwrap().find_map(Result::err).unwrap();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("the compressed data"), "{source}");
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = Rows::open(&folder.path().join("no\n.csv")).err().unwrap();
    assert!(matches!(error, InputError::Open { .. }));
    assert!(error.to_string().ends_with("no\\n.csv"), "{error}");
    // A folder is none, either.
    let error = Rows::open(folder.path()).err().unwrap();
    assert!(matches!(error, InputError::Read { line: 0, .. }), "{error}");
}

#[test]
fn an_error_in_the_middle_says_how_far_it_came() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let start = format!("{HEADER}{}2011-10-", good(0, "1"));
    let mut rows = Rows::new("log.csv".into(), Cursor::new(start).chain(Broken), 0).unwrap();
    assert_eq!(rows.next().unwrap().unwrap().unwrap().application, "1");
    let error = rows.next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "cannot read log.csv beyond line 2");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the disk is gone");
    assert!(rows.next().is_none());
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
