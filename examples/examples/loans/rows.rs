//! The input: the bank's log as CSV, plain or compressed, read row by row in constant memory.
//!
//! A row that cannot be read costs that row and nothing else. That is why records are put together
//! here, from physical lines: where a quote is never closed, a reader that trusts it takes the rest
//! of the file for one field, and the line numbers of what follows are lost.

mod fields;
mod lines;
mod values;

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::{self, Cursor, Read},
    path::Path,
    str,
    sync::Arc,
};

use annals::Envelope;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

pub(crate) use self::lines::Bytes;
use self::{
    fields::{Fed, Fields},
    lines::{Counted, Line, Lines, unpacked},
    values::{activity, amount, application, hex, printable, quoted, quoted_bytes, rfc3339, time},
};
use crate::model::{Activity, Record};

/// The columns, in the order in which they are written; they are read in any order.
pub(crate) const COLUMNS: [&str; 6] =
    ["time", "application", "amount_requested", "activity", "transition", "resource"];
const TIME: usize = 0;
const APPLICATION: usize = 1;
const AMOUNT_REQUESTED: usize = 2;
const ACTIVITY: usize = 3;
const TRANSITION: usize = 4;
const RESOURCE: usize = 5;

/// No row comes near this size. Past it a line is not kept in memory, and a quote that is still
/// open is taken for one that is never closed.
const MAX_RECORD_BYTES: usize = 64 * 1024;
/// How much of a value is shown in an error.
const SHOWN_CHARS: usize = 60;

/// One row, read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Where it begins in the file: a physical line, from 1.
    pub(crate) line: u64,
    /// The same on every run, wherever the row stands in the file: made from the row's content,
    /// and from its number among rows with the same content.
    pub(crate) key: String,
    /// When it happened, in whole microseconds.
    pub(crate) at: DateTime<Utc>,
    pub(crate) application: String,
    /// In whole euros.
    pub(crate) amount_requested: i64,
    pub(crate) activity: Activity,
    /// Who did it, if known.
    pub(crate) resource: Option<String>,
}

impl Row {
    /// The command that records this row, once however often it is executed, at the row's time.
    pub(crate) fn into_command(self) -> Envelope<Record> {
        Envelope::new(Record {
            application: self.application,
            at: self.at,
            amount_requested: self.amount_requested,
            activity: self.activity,
            resource: self.resource,
        })
        .idempotency_key(self.key)
        .recorded_at(self.at)
    }
}

impl Row {
    /// This row as one that is refused.
    pub(crate) fn bad(&self, column: &str, error: impl std::error::Error) -> BadRow {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        BadRow { line: self.line, column: column.to_owned(), reason }
    }
}

/// A row that cannot be read. The rows after it can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub(crate) struct BadRow {
    /// Where it begins in the file: a physical line, from 1.
    pub(crate) line: u64,
    /// The column's name, or its number if the header has no name for it.
    pub(crate) column: String,
    /// What is wrong with it, safe to print.
    pub(crate) reason: String,
}

/// Why the input as a whole cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot open {input}")]
    Open { input: String, source: io::Error },
    #[error(
        "{input} is not a log of loan applications: {problem}; its first line must name the columns {}, in any order",
        COLUMNS.join(",")
    )]
    Header { input: String, problem: String },
    #[error("cannot read {input}{}", beyond(*.line))]
    Read {
        input: String,
        /// The last line that could be read; 0 for none.
        line: u64,
        source: io::Error,
    },
}

fn beyond(line: u64) -> String {
    if line == 0 { String::new() } else { format!(" beyond line {line}") }
}

/// The rows of an input, in its order.
///
/// An item is `Err` if the input breaks off; nothing follows it. It is `Ok(Err(_))` for a row that
/// cannot be read; the next row follows it.
pub(crate) struct Rows {
    input: String,
    lines: Lines,
    bytes: Bytes,
    /// For each column of [`COLUMNS`], where it stands in the file.
    order: [usize; COLUMNS.len()],
    fields: Fields,
    last_at: Option<DateTime<Utc>>,
    /// How often each content was seen at `last_at`. Time never goes back, so rows with the same
    /// content have none between them that is later.
    seen: HashMap<[u8; 32], u64>,
    ended: bool,
}

impl Rows {
    /// Opens a file. Whether it is compressed is seen by its content, not by its name.
    pub(crate) fn open(path: &Path) -> Result<Self, InputError> {
        let input = printable(&path.display().to_string());
        let file = File::open(path).and_then(|file| {
            let size = file.metadata()?.len();
            Ok((file, size))
        });
        match file {
            Ok((file, size)) => Self::new(input, file, size),
            Err(source) => Err(InputError::Open { input, source }),
        }
    }

    /// Reads what is in memory; `input` is what errors call it.
    pub(crate) fn from_bytes(input: &str, bytes: Vec<u8>) -> Result<Self, InputError> {
        let size = bytes.len() as u64;
        Self::new(input.to_owned(), Cursor::new(bytes), size)
    }

    fn new(
        input: String,
        reader: impl Read + Send + 'static,
        size: u64,
    ) -> Result<Self, InputError> {
        let bytes = Bytes { read: Arc::default(), size };
        let reader = Counted { reader, read: Arc::clone(&bytes.read) };
        let mut lines = match unpacked(reader) {
            Ok(reader) => Lines { reader, reached: 0, again: VecDeque::new() },
            Err(source) => {
                return Err(InputError::Read { input, line: 0, source });
            }
        };
        let header = loop {
            match lines.next() {
                Ok(Some(line)) if line.is_blank() => {}
                Ok(line) => break line,
                Err(source) => {
                    return Err(InputError::Read { input, line: lines.reached, source });
                }
            }
        };
        let mut fields = Fields::default();
        let order = match columns(header, &mut fields) {
            Ok(order) => order,
            Err(problem) => return Err(InputError::Header { input, problem }),
        };
        Ok(Self {
            input,
            lines,
            bytes,
            order,
            fields,
            last_at: None,
            seen: HashMap::new(),
            ended: false,
        })
    }

    /// How far the input is read. It can be asked from elsewhere while the rows are read.
    pub(crate) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Reads the record that begins with `first`.
    fn record(&mut self, first: Line) -> io::Result<Result<Row, BadRow>> {
        let line = first.number;
        let mut size = first.bytes.len();
        let mut held = Vec::new();
        self.fields.clear();
        let mut fed = self.fields.feed(&first);
        // A quoted field goes on beyond the end of the line.
        while let Ok(Fed::Open) = fed {
            if size > MAX_RECORD_BYTES {
                fed = Err("the quote is never closed");
                break;
            }
            match self.lines.next()? {
                Some(next) => {
                    size += next.bytes.len();
                    fed = self.fields.feed(&next);
                    held.push(next);
                }
                None => fed = Err("the quote is never closed"),
            }
        }
        let count = self.fields.ends.len();
        let broken = match fed {
            Err(reason) => Some((count, reason.to_owned())),
            Ok(_) if count == COLUMNS.len() => None,
            Ok(_) => Some((
                count.min(COLUMNS.len()),
                format!("the row has {count} fields instead of {}", COLUMNS.len()),
            )),
        };
        if let Some((index, reason)) = broken {
            // The quote may have swallowed good rows: only its own line is lost.
            for line in held.into_iter().rev() {
                self.lines.again.push_front(line);
            }
            let column = self.column_name(index);
            return Ok(Err(BadRow { line, column, reason }));
        }
        Ok(self.parse(line).map_err(|(column, reason)| BadRow {
            line,
            column: COLUMNS[column].to_owned(),
            reason,
        }))
    }

    /// The name of the column at this place in the file.
    fn column_name(&self, index: usize) -> String {
        match self.order.iter().position(|place| *place == index) {
            Some(column) => COLUMNS[column].to_owned(),
            None => (index + 1).to_string(),
        }
    }

    /// Makes a row of the fields at hand.
    fn parse(&mut self, line: u64) -> Result<Row, (usize, String)> {
        let mut texts = [""; COLUMNS.len()];
        for (column, text) in texts.iter_mut().enumerate() {
            let bytes = self.fields.get(self.order[column]);
            *text = str::from_utf8(bytes)
                .map_err(|_| (column, format!("{} is not UTF-8", quoted_bytes(bytes))))?;
            if text.contains('\0') {
                return Err((column, format!("{} holds a NUL character", quoted(text))));
            }
        }
        let at = time(texts[TIME]).map_err(|reason| (TIME, reason))?;
        let application =
            application(texts[APPLICATION]).map_err(|reason| (APPLICATION, reason))?;
        let amount_requested =
            amount(texts[AMOUNT_REQUESTED]).map_err(|reason| (AMOUNT_REQUESTED, reason))?;
        let activity = activity(texts[ACTIVITY], texts[TRANSITION])?;
        if let Some(last_at) = self.last_at.filter(|last_at| at < *last_at) {
            return Err((TIME, format!("time goes back: {} was before it", rfc3339(last_at))));
        }

        if self.last_at != Some(at) {
            self.last_at = Some(at);
            self.seen.clear();
        }
        let mut hash = Sha256::new();
        for text in texts {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        let seen = self.seen.entry(hash.clone().finalize().into()).or_default();
        hash.update(seen.to_le_bytes());
        *seen += 1;

        Ok(Row {
            line,
            key: hex(&hash.finalize()[..16]),
            at,
            application,
            amount_requested,
            activity,
            resource: Some(texts[RESOURCE].to_owned()).filter(|resource| !resource.is_empty()),
        })
    }
}

impl Iterator for Rows {
    type Item = Result<Result<Row, BadRow>, InputError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let row = match self.lines.next() {
                Ok(Some(line)) if line.is_blank() => continue,
                Ok(Some(line)) => self.record(line),
                Ok(None) => break,
                Err(source) => Err(source),
            };
            return Some(row.map_err(|source| {
                self.ended = true;
                InputError::Read { input: self.input.clone(), line: self.lines.reached, source }
            }));
        }
        self.ended = true;
        None
    }
}

/// For each of [`COLUMNS`], where the header has it.
fn columns(header: Option<Line>, fields: &mut Fields) -> Result<[usize; COLUMNS.len()], String> {
    let header = header.ok_or("it is empty")?;
    match fields.feed(&header) {
        Ok(Fed::Complete) => {}
        Ok(Fed::Open) => return Err("a quote in the header is never closed".to_owned()),
        Err(reason) => return Err(format!("{reason} in the header")),
    }
    let names: Vec<_> =
        (0..fields.ends.len()).map(|index| fields.get(index).trim_ascii()).collect();
    let (known, unknown): (Vec<_>, Vec<_>) =
        names.iter().partition(|name| COLUMNS.iter().any(|column| column.as_bytes() == **name));
    let mut problems = Vec::new();
    let missing: Vec<_> =
        COLUMNS.iter().filter(|column| !known.contains(&column.as_bytes())).copied().collect();
    if !missing.is_empty() {
        problems.push(format!("the header lacks {}", missing.join(", ")));
    }
    if !unknown.is_empty() {
        // A file of another kind has a first line of any length.
        let shown: Vec<_> = unknown.iter().take(3).map(|name| quoted_bytes(name)).collect();
        let more = if unknown.len() > 3 { ", ..." } else { "" };
        problems.push(format!("the header has unknown columns: {}{more}", shown.join(", ")));
    }
    if known.len() + missing.len() > COLUMNS.len() {
        problems.push("the header has a column twice".to_owned());
    }
    if !problems.is_empty() {
        return Err(problems.join(", and "));
    }
    let mut order = [0; COLUMNS.len()];
    for (place, column) in order.iter_mut().zip(COLUMNS) {
        // Every column is there, or there would be a problem.
        *place = names.iter().position(|name| *name == column.as_bytes()).unwrap_or_default();
    }
    Ok(order)
}

#[cfg(test)]
mod tests;
