//! Times, and moments of the past, as arguments.

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, Utc};

use crate::{AsOf, Position, Version};

/// A time in RFC 3339. A date alone is its midnight in UTC, with which it begins, as in PostgreSQL.
pub(super) fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let date = || {
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        Some(date.and_time(NaiveTime::MIN).and_utc())
    };
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).ok();
    time.or_else(date).ok_or_else(|| {
        "expected a time in RFC 3339 like 2011-12-31T23:59:59Z, or a date like 2011-12-31 for its \
         midnight in UTC, with which it begins"
            .to_owned()
    })
}

/// A moment: `v3` is a version, `1234` a position, all else a time.
pub(super) fn moment(text: &str) -> Result<AsOf, String> {
    if let Some(version) = text.strip_prefix('v') {
        return number(version).map(|version| AsOf::Version(Version::new(version)));
    }
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => number(text).map(|position| AsOf::Position(Position::new(position))),
        false => time(text).map(AsOf::Time).map_err(|expected| {
            format!("{expected}; or a position like 1234, or a version like v3")
        }),
    }
}

/// A moment of a read model: `1234` is a position, and 0 the one before all events; all else is a time.
pub(super) fn position_or_time(text: &str) -> Result<AsOf, String> {
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true if text == "0" => Ok(AsOf::Position(Position::START)),
        true => number(text).map(|position| AsOf::Position(Position::new(position))),
        false => time(text)
            .map(AsOf::Time)
            .map_err(|expected| format!("{expected}; or a position like 1234")),
    }
}

/// A position or a version: they begin at 1.
pub(super) fn number(text: &str) -> Result<i64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{text:?} is no number of an event; they begin at 1"))
}

/// RFC 3339 in UTC, as exact as it is.
pub(super) fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_the_midnight_with_which_it_begins() {
        let shown_as = |text| time(text).map(shown);
        assert_eq!(shown_as("2011-12-31").as_deref(), Ok("2011-12-31T00:00:00Z"));
        let offset = shown_as("2011-12-31T01:30:00.000001+01:00");
        assert_eq!(offset.as_deref(), Ok("2011-12-31T00:30:00.000001Z"));
        for nonsense in ["yesterday", "2011-13-01", "2011-12-31T23:59:59", "", "12:00"] {
            let refused = shown_as(nonsense).unwrap_err();
            assert!(refused.contains("like 2011-12-31T23:59:59Z"), "{nonsense}: {refused}");
        }
    }

    #[test]
    fn a_moment_is_a_version_a_position_or_a_time() {
        assert_eq!(moment("v12"), Ok(AsOf::Version(Version::new(12))));
        assert_eq!(moment("2011"), Ok(AsOf::Position(Position::new(2011))));
        assert_eq!(moment("2011-12-31"), time("2011-12-31").map(AsOf::Time));
        assert_eq!(position_or_time("0"), Ok(AsOf::Position(Position::START)));
        assert_eq!(position_or_time("2011"), moment("2011"));
        assert_eq!(position_or_time("2011-12-31"), moment("2011-12-31"));
        assert!(position_or_time("v12").is_err() && position_or_time("").is_err());
        for nonsense in ["v", "v0", "0", "-1", "v1.5", "now", "99999999999999999999"] {
            assert!(moment(nonsense).is_err(), "{nonsense}");
        }
    }
}
