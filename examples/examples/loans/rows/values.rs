//! What stands in the fields, and how errors show it.

use std::{fmt::Write as _, str};

use annals::MAX_KEY_BYTES;
use chrono::{DateTime, Utc};

use super::{ACTIVITY, SHOWN_CHARS, TRANSITION};
use crate::model::{Activity, OfferState, Status, WorkStep};

pub(super) fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| {
        format!("{} is not a time in RFC 3339, like 2011-12-31T23:59:59.000Z", quoted(text))
    })?;
    // PostgreSQL keeps microseconds and has no leap seconds.
    DateTime::from_timestamp_micros(time.timestamp_micros())
        .ok_or_else(|| format!("{} is out of range", quoted(text)))
}

pub(super) fn application(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("the application's id is empty".to_owned());
    }
    if text.len() > MAX_KEY_BYTES {
        return Err(format!(
            "{} has {} bytes; an application's id has at most {MAX_KEY_BYTES}",
            quoted(text),
            text.len()
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{} holds a control character", quoted(text)));
    }
    Ok(text.to_owned())
}

pub(super) fn amount(text: &str) -> Result<i64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{} is not a whole number of euros, 0 or more", quoted(text)));
    }
    text.parse().map_err(|_| format!("{} is too large an amount", quoted(text)))
}

pub(super) fn activity(activity: &str, transition: &str) -> Result<Activity, (usize, String)> {
    let unknown = || (ACTIVITY, format!("{} is not a known activity", quoted(activity)));
    let step = || match transition {
        "SCHEDULE" => Ok(WorkStep::Scheduled),
        "START" => Ok(WorkStep::Started),
        "COMPLETE" => Ok(WorkStep::Completed),
        _ => Err((
            TRANSITION,
            format!("{} is not one of SCHEDULE, START and COMPLETE", quoted(transition)),
        )),
    };
    if let Some(kind) = activity.strip_prefix("W_").filter(|kind| !kind.trim().is_empty()) {
        return Ok(Activity::Work { kind: kind.to_owned(), step: step()? });
    }
    let found = if let Some(name) = activity.strip_prefix("A_") {
        let status = Status::ALL.into_iter().find(|status| is_upper(name, status.name()));
        Activity::Application(status.ok_or_else(unknown)?)
    } else if let Some(name) = activity.strip_prefix("O_") {
        let state = OfferState::ALL.into_iter().find(|state| is_upper(name, state.name()));
        Activity::Offer(state.ok_or_else(unknown)?)
    } else {
        return Err(unknown());
    };
    match step()? {
        WorkStep::Completed => Ok(found),
        _ => Err((
            TRANSITION,
            format!("{} is {transition}, but states are only reached: COMPLETE", quoted(activity)),
        )),
    }
}

/// Whether `text` is `lower` in upper case.
pub(super) fn is_upper(text: &str, lower: &str) -> bool {
    lower.bytes().map(|byte| byte.to_ascii_uppercase()).eq(text.bytes())
}

pub(super) fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The text in quotes, safe to print: short, on one line, without control characters.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// As [`quoted`], for what may not be text.
pub(super) fn quoted_bytes(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => quoted(text),
        Err(_) if bytes.len() > SHOWN_CHARS => {
            format!("\"{}\"...", bytes[..SHOWN_CHARS].escape_ascii())
        }
        Err(_) => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// The text with its control characters escaped.
pub(super) fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut printable, char| {
        if char.is_control() {
            printable.extend(char.escape_default());
        } else {
            printable.push(char);
        }
        printable
    })
}
