use serde_json::json;

use super::*;

const ID: Uuid = Uuid::from_u128(7);

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn booked() -> Trip {
    Trip {
        requested: vec![at(10)],
        confirmed: 1,
        ended: vec![(Ending::Booked, at(12))],
        stuck: None,
        active: [1; 3],
    }
}

fn compensated() -> Trip {
    let ended = vec![(Ending::Compensated, at(13))];
    Trip { confirmed: 0, ended, active: [0; 3], ..booked() }
}

fn judged(trip: Trip) -> Verdict {
    judge(&Books { trips: [(ID, trip)].into(), ..Books::default() }, &[ID])
}

#[test]
fn what_is_whole_or_fully_undone_is_sound() {
    for trip in [booked(), compensated()] {
        let verdict = judged(trip);
        assert!(verdict.is_sound(), "{:?}", verdict.findings);
        assert!(verdict.to_string().starts_with("SOUND: 1 bookings"), "{verdict}");
    }
    assert_eq!(judged(booked()).times[&Ending::Booked], [Duration::from_secs(2)]);
}

#[test]
fn everything_else_is_found() {
    let half = |ending, active| Finding::Half { booking: ID, ending, active: Active(active) };
    for (trip, expected) in [
        (Trip { active: [1, 2, 1], ..booked() }, half("booked", [1, 2, 1])),
        (Trip { active: [1, 1, 0], ..booked() }, half("booked", [1, 1, 0])),
        (Trip { active: [0, 0, 1], ..compensated() }, half("compensated", [0, 0, 1])),
        (
            Trip { confirmed: 2, ..booked() },
            Finding::Contradiction { booking: ID, ending: "booked", confirmed: 2 },
        ),
        (
            Trip { confirmed: 1, ..compensated() },
            Finding::Contradiction { booking: ID, ending: "compensated", confirmed: 1 },
        ),
        (Trip { ended: vec![], ..booked() }, Finding::Unfinished(ID)),
        (
            Trip { ended: vec![], stuck: Some("no".to_owned()), ..booked() },
            Finding::Stuck { booking: ID, reason: "no".to_owned() },
        ),
        (
            Trip { requested: vec![at(1), at(2)], ..booked() },
            Finding::Twice { booking: ID, what: "requested", count: 2 },
        ),
    ] {
        let verdict = judged(trip);
        assert_eq!(verdict.findings, [expected]);
        assert!(verdict.to_string().starts_with("BROKEN"), "{verdict}");
    }
}

#[test]
fn what_was_accepted_must_be_there_and_what_is_there_must_have_been_asked_for() {
    let verdict = judge(&Books::default(), &[ID]);
    assert_eq!(verdict.findings, [Finding::Lost(ID)]);
    let orphan = Trip { active: [0, 1, 0], ..Trip::default() };
    let books = Books { trips: [(ID, orphan)].into(), ..Books::default() };
    let active = Active([0, 1, 0]);
    assert_eq!(judge(&books, &[]).findings, [Finding::Orphaned { booking: ID, active }]);
    assert_eq!(active.to_string(), "0 flight, 1 hotel, 0 car");
}

#[test]
fn tallies_are_of_what_there_is_and_in_the_order_of_their_leaders() {
    let tally = |epoch, booked| Tally { epoch, booked, cancelled: 0, destinations: json!({}) };
    let findings = |tallies: &[Tally]| {
        let trips = [(ID, booked())].into();
        let books = Books { trips, tallies: tallies.to_vec(), ..Books::default() };
        let mut verdict = judge(&books, &[ID]);
        verdict.led_by_turns(&books);
        verdict.findings
    };
    assert_eq!(findings(&[tally(1, 0), tally(1, 0), tally(2, 1)]), []);
    for wrong in [
        [tally(2, 0), tally(1, 1)].as_slice(), // A leader that was over.
        &[tally(1, 1), tally(2, 0)],           // One that counts what is not there.
        &[tally(1, 0), tally(1, 1)],           // Nobody took over.
    ] {
        assert!(matches!(findings(wrong)[..], [Finding::Tally(_)]), "{wrong:?}");
    }
}
