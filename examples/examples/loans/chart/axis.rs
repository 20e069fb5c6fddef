//! Where the ticks of an axis are, and what stands there. Pure.

use chrono::{DateTime, Datelike, Months, TimeDelta, Utc};

/// At most so many ticks on the axis of time.
const MOST: usize = 8;
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The ticks of a number axis: from 0 to at least `most` in at most seven steps, each 1, 2 or 5 times a power
/// of ten.
pub(super) fn numbers(most: u64) -> Vec<u64> {
    let powers = (0..19).map(|power| 10_u64.pow(power));
    let mut steps = powers.flat_map(|unit| [1, 2, 5].map(|factor| unit.saturating_mul(factor)));
    let step = steps.find(|step| most.div_ceil(*step) <= 7).unwrap_or(u64::MAX);
    (0..=most.div_ceil(step).max(1)).map(|index| step.saturating_mul(index)).collect()
}

/// The ticks of an axis of time, each with its label, where a minute, an hour, a day, a month or a year
/// begins.
pub(super) fn times(first: DateTime<Utc>, last: DateTime<Utc>) -> Vec<(DateTime<Utc>, String)> {
    let even = [
        (MINUTE, "%H:%M"),
        (10 * MINUTE, "%H:%M"),
        (HOUR, "%H:%M"),
        (6 * HOUR, "%-d %b %H:%M"),
        (DAY, "%-d %b"),
        (2 * DAY, "%-d %b"),
        (7 * DAY, "%-d %b"),
    ];
    let even = even.into_iter().map(|(step, format)| (evenly(first, last, step), format));
    let months = [(1, "%b %Y"), (3, "%b %Y"), (12, "%Y"), (120, "%Y"), (1200, "%Y")];
    let months = months.into_iter().map(|(step, format)| (monthly(first, last, step), format));
    let mut all = even.chain(months);
    let fitting = all.find(|(times, _)| times.len() <= MOST);
    let (times, format) = fitting.unwrap_or_default();
    times.into_iter().map(|time| (time, time.format(format).to_string())).collect()
}

/// One more than fit, if there are as many.
fn evenly(first: DateTime<Utc>, last: DateTime<Utc>, step: i64) -> Vec<DateTime<Utc>> {
    let below = first - TimeDelta::nanoseconds(1);
    let next = (below.timestamp().div_euclid(step) + 1) * step;
    let times = (0..).map_while(|index| DateTime::from_timestamp(next + index * step, 0));
    times.take_while(|time| *time <= last).take(MOST + 1).collect()
}

/// The same with steps of months.
fn monthly(first: DateTime<Utc>, last: DateTime<Utc>, step: u32) -> Vec<DateTime<Utc>> {
    let month = first.year() * 12 + first.month0() as i32;
    let step = step as i32;
    let first_of = |month: i32| {
        let date = chrono::NaiveDate::from_ymd_opt(month.div_euclid(12), 1, 1)?;
        let date = date.checked_add_months(Months::new(month.rem_euclid(12).unsigned_abs()))?;
        Some(date.and_time(chrono::NaiveTime::MIN).and_utc())
    };
    let times = (month.div_euclid(step)..).map_while(|index| first_of(index * step));
    times.skip_while(|time| *time < first).take_while(|time| *time <= last).take(MOST + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_round_and_reach_far_enough() {
        assert_eq!(numbers(13_087).last(), Some(&14_000));
        assert_eq!(numbers(3_000), [0, 500, 1_000, 1_500, 2_000, 2_500, 3_000]);
        assert_eq!(numbers(10), [0, 2, 4, 6, 8, 10]);
        assert_eq!(numbers(2), [0, 1, 2]);
        assert_eq!(numbers(0), [0, 1]);
        for most in (0..5_000).chain([u64::MAX / 2, u64::MAX]) {
            let ticks = numbers(most);
            assert!(ticks.last() >= Some(&most) && (2..=8).contains(&ticks.len()), "{ticks:?}");
        }
    }

    fn labels(first: &str, last: &str) -> Vec<String> {
        let time = |text: &str| text.parse().unwrap();
        times(time(first), time(last)).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn times_are_where_something_begins() {
        let months = ["Nov 2011", "Dec 2011", "Jan 2012", "Feb 2012", "Mar 2012"];
        assert_eq!(labels("2011-10-01T00:38:44Z", "2012-03-14T15:04:54Z"), months);
        let days = labels("2011-10-01T08:00:00Z", "2011-10-04T08:00:00Z");
        assert_eq!(days, ["2 Oct", "3 Oct", "4 Oct"]);
        let from_midnight = labels("2011-10-01T00:00:00Z", "2011-10-04T00:00:00Z");
        assert_eq!(from_midnight, ["1 Oct", "2 Oct", "3 Oct", "4 Oct"]);
        assert_eq!(
            labels("2011-10-01T08:59:00Z", "2011-10-01T09:01:00Z"),
            ["08:59", "09:00", "09:01"]
        );
        assert_eq!(
            labels("1999-05-01T00:00:00Z", "2003-05-01T00:00:00Z"),
            ["2000", "2001", "2002", "2003"]
        );
    }

    #[test]
    fn there_are_a_few_ticks_for_any_span() {
        let first: DateTime<Utc> = "2011-10-01T08:12:34Z".parse().unwrap();
        let mut seconds = 600;
        while seconds < 30_000_000_000 {
            let ticks = times(first, first + TimeDelta::seconds(seconds));
            assert!((1..=MOST).contains(&ticks.len()), "{seconds}: {ticks:?}");
            assert!(ticks.is_sorted() && ticks[0].0 >= first);
            seconds = seconds * 5 / 4;
        }
    }
}
