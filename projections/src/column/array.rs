//! Columns that are arrays.
//!
//! The rows of a batch are sent as one array for each column. PostgreSQL has no arrays of arrays, and
//! `unnest` takes one with several dimensions apart to its last element. So such a column is sent as
//! an array of texts, each of which is an array as PostgreSQL reads it, and cast back.

use std::fmt::{self, Display, Write};

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc};
use uuid::Uuid;

use super::{Column, SqlParam, derived::Transparent};

/// A column type of which there are arrays: a field may be a `Vec` of it.
///
/// It is implemented for all built-in column types that are no arrays themselves, for `Option` of
/// them, and for what derives [`Column`].
///
/// ```
/// use annals_projections::Column;
///
/// assert_eq!(<Vec<String>>::SQL_TYPE, "text[]");
/// assert_eq!(<Option<Vec<Option<i64>>>>::SQL_TYPE, "bigint[]");
/// ```
#[diagnostic::on_unimplemented(
    message = "an array column cannot have elements of type `{Self}`",
    note = "its elements are of built-in column types (integers are signed, and there are no arrays of arrays), or derive `Column`; mark the field `#[read_model(json)]` for all else"
)]
pub trait ArrayElement: Column {
    /// The SQL type of an array of it.
    const ARRAY_TYPE: &'static str;
    /// Writes the value as an element: one call of [`ArrayText::push`] or [`ArrayText::push_null`].
    fn write_element(&self, array: &mut ArrayText);
}

impl<T: ArrayElement> Column for Vec<T> {
    const SQL_TYPE: &'static str = T::ARRAY_TYPE;
    const PARAM_TYPE: &'static str = "text";

    fn param<'a>(values: Vec<Option<&'a Self>>) -> Box<SqlParam<'a>> {
        Box::new(values.into_iter().map(|value| value.map(text)).collect::<Vec<_>>())
    }
}

fn text<T: ArrayElement>(values: &Vec<T>) -> String {
    let mut array = ArrayText(String::from("{"));
    for value in values {
        value.write_element(&mut array);
    }
    array.0.push('}');
    array.0
}

/// An array in the making, as PostgreSQL reads it from text.
#[derive(Debug)]
pub struct ArrayText(String);

impl ArrayText {
    /// Adds an element: a value of its SQL type as PostgreSQL reads it from text, whatever the
    /// session's settings.
    pub fn push(&mut self, value: impl Display) {
        self.separate();
        self.0.push('"');
        // Writing to a string does not fail.
        let _ = write!(Escaped(&mut self.0), "{value}");
        self.0.push('"');
    }

    /// Adds a null.
    pub fn push_null(&mut self) {
        self.separate();
        self.0.push_str("NULL");
    }

    fn separate(&mut self) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
    }
}

struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(['"', '\\']) {
            match part.char_indices().next_back() {
                Some((end, special @ ('"' | '\\'))) => {
                    self.0.push_str(&part[..end]);
                    self.0.extend(['\\', special]);
                }
                _ => self.0.push_str(part),
            }
        }
        Ok(())
    }
}

macro_rules! elements {
    ($($rust:ty => $array:literal as |$value:ident| $text:expr),* $(,)?) => {
        $(impl ArrayElement for $rust {
            const ARRAY_TYPE: &'static str = $array;

            fn write_element(&self, array: &mut ArrayText) {
                let $value = self;
                array.push($text);
            }
        })*
    };
}

elements! {
    bool => "boolean[]" as |value| value,
    i16 => "smallint[]" as |value| value,
    i32 => "integer[]" as |value| value,
    i64 => "bigint[]" as |value| value,
    // The shortest digits that are read as the same number.
    f32 => "real[]" as |value| format_args!("{value:e}"),
    f64 => "double precision[]" as |value| format_args!("{value:e}"),
    String => "text[]" as |value| value,
    Vec<u8> => "bytea[]" as |value| Hex(value),
    Uuid => "uuid[]" as |value| value,
    NaiveDate => "date[]" as |value| Date { date: *value, time: None, zone: "" },
    NaiveTime => "time[]" as |value| Time(*value),
    NaiveDateTime => "timestamp[]" as |value| Date::at(value, ""),
    DateTime<Utc> => "timestamptz[]" as |value| Date::at(&value.naive_utc(), "+00"),
    serde_json::Value => "jsonb[]" as |value| value,
}

#[cfg(feature = "decimal")]
elements! { rust_decimal::Decimal => "numeric[]" as |value| value }

impl<T: ArrayElement> ArrayElement for Option<T> {
    const ARRAY_TYPE: &'static str = T::ARRAY_TYPE;

    fn write_element(&self, array: &mut ArrayText) {
        match self {
            Some(value) => value.write_element(array),
            None => array.push_null(),
        }
    }
}

#[diagnostic::do_not_recommend]
impl<T: Column + Transparent<Inner: ArrayElement>> ArrayElement for T {
    const ARRAY_TYPE: &'static str = T::Inner::ARRAY_TYPE;

    fn write_element(&self, array: &mut ArrayText) {
        self.inner().write_element(array);
    }
}

struct Hex<'a>(&'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\\x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A date, and the time of day where there is one. PostgreSQL knows no year 0 and no sign before a
/// year: the year before 1 is 1 BC.
struct Date {
    date: NaiveDate,
    time: Option<NaiveTime>,
    zone: &'static str,
}

impl Date {
    /// What is finer than a microsecond is cut off as it is where a value is sent alone: towards
    /// PostgreSQL's epoch.
    fn at(time: &NaiveDateTime, zone: &'static str) -> Self {
        let micros = (*time - EPOCH).num_microseconds().map(TimeDelta::microseconds);
        let time = micros.and_then(|micros| EPOCH.checked_add_signed(micros)).unwrap_or(*time);
        Self { date: time.date(), time: Some(time.time()), zone }
    }
}

const EPOCH: NaiveDateTime = match NaiveDate::from_ymd_opt(2000, 1, 1) {
    Some(date) => date.and_time(NaiveTime::MIN),
    None => NaiveDateTime::MIN,
};

impl Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, era) = match self.date.year() {
            year @ 1.. => (year, ""),
            year => (1 - year, " BC"),
        };
        write!(f, "{year:04}-{:02}-{:02}", self.date.month(), self.date.day())?;
        if let Some(time) = self.time {
            write!(f, " {}{}", Time(time), self.zone)?;
        }
        f.write_str(era)
    }
}

/// A time of day in microseconds.
struct Time(NaiveTime);

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hour, minute, second) = (self.0.hour(), self.0.minute(), self.0.second());
        // In a leap second there are more nanoseconds than in another.
        let nanoseconds = self.0.nanosecond();
        let second = second + nanoseconds / 1_000_000_000;
        let micros = nanoseconds % 1_000_000_000 / 1000;
        write!(f, "{hour:02}:{minute:02}:{second:02}.{micros:06}")
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use serde_json::json;
    use tokio_postgres::types::{FromSql, ToSql, Type};

    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn elements_are_quoted_and_escaped() {
        let texts = ["", "a,b", "{}", "NULL", "\"", "\\", "a\"b\\", "\u{1F980}\""];
        assert_eq!(
            text(&texts.map(str::to_owned).to_vec()),
            r#"{"","a,b","{}","NULL","\"","\\","a\"b\\","🦀\""}"#,
        );
        assert_eq!(text(&vec![json!({"a": "\""})]), r#"{"{\"a\":\"\\\"\"}"}"#);
        assert_eq!(text(&vec![vec![0_u8, 255]]), r#"{"\\x00ff"}"#);
    }

    #[test]
    fn nulls_are_no_texts() {
        assert_eq!(text(&vec![None, Some(1_i64), None]), r#"{NULL,"1",NULL}"#);
        assert_eq!(text(&Vec::<i64>::new()), "{}");
    }

    #[test]
    fn numbers_keep_their_value() {
        let numbers = vec![1.5, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324];
        assert_eq!(text(&numbers), r#"{"1.5e0","-0e0","NaN","inf","-inf","5e-324"}"#);
    }

    #[test]
    fn times_are_those_of_postgresql() {
        let times =
            ["-4712-01-01T00:00:00Z", "0000-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z"];
        assert_eq!(
            text(&times.map(time).to_vec()),
            r#"{"4713-01-01 00:00:00.000000+00 BC","0001-12-31 23:59:59.999999+00 BC","0001-01-01 00:00:00.000000+00"}"#,
        );
        assert_eq!(text(&vec![NaiveDate::MAX]), r#"{"262142-12-31"}"#);
        assert_eq!(text(&vec![time("2016-12-31T23:59:60.5Z").time()]), r#"{"23:59:60.500000"}"#);
    }

    #[test]
    fn what_is_too_fine_is_cut_off_as_in_a_value_of_its_own() {
        for at in ["1999-12-31T23:59:59.9999999Z", "2000-01-01T00:00:00.0000009Z"].map(time) {
            let mut alone = BytesMut::new();
            at.to_sql(&Type::TIMESTAMPTZ, &mut alone).unwrap();
            let alone = DateTime::<Utc>::from_sql(&Type::TIMESTAMPTZ, &alone).unwrap();
            assert_eq!(text(&vec![at]), text(&vec![alone]));
            assert!(text(&vec![at]).contains("2000-01-01 00:00:00.000000"));
        }
    }
}
