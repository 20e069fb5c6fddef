//! What stands in the columns.

use super::*;

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
fn errors_show_values_shortly_and_on_one_line() {
    let reason = bad_value("activity", &"A_\u{1b}[31m".repeat(1_000));
    assert!(reason.len() < 200, "{reason}");
    assert!(reason.starts_with("\"A_\\u{1b}[31mA_"), "{reason}");
    let bad = bad("2011-10-01T00:00:00Z,1,5,\"A_\r\n\u{202e}\u{9b}\",COMPLETE,");
    assert_eq!(bad.reason, "\"A_\\r\\n\\u{202e}\\u{9b}\" is not a known activity");
}
