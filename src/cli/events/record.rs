//! How a recorded event is printed among others: as a line of JSON, or as a row of a table.

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, Width, presets::NOTHING,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    Metadata, Payload, Position, Recorded, Version,
    cli::{Failure, json, time::shown},
};

/// What programs are told of an event.
#[derive(Serialize)]
pub(super) struct Record<'a> {
    position: Position,
    stream: String,
    category: &'a str,
    key: &'a str,
    version: Version,
    id: String,
    #[serde(rename = "type")]
    event_type: &'a str,
    schema_version: u32,
    recorded_at: String,
    occurred_at: Option<String>,
    payload: Box<RawValue>,
    metadata: &'a Metadata,
}

impl<'a> Record<'a> {
    pub(super) fn of(event: &'a Recorded) -> Result<Self, Failure> {
        Ok(Self {
            position: event.position,
            stream: event.stream.to_string(),
            category: event.stream.category(),
            key: event.stream.key(),
            version: event.version,
            id: event.id.to_string(),
            event_type: &event.event_type,
            schema_version: event.schema_version,
            recorded_at: shown(event.recorded_at),
            occurred_at: event.occurred_at.map(shown),
            payload: raw(&event.event)?,
            metadata: &event.metadata,
        })
    }
}

/// A payload as it is stored, but for white space.
pub(super) fn raw(payload: &Payload) -> Result<Box<RawValue>, Failure> {
    Ok(RawValue::from_string(json::compact(text(payload)?))?)
}

/// The JSON text of a payload.
pub(super) fn text(payload: &Payload) -> Result<&str, Failure> {
    Ok(std::str::from_utf8(payload.as_bytes())?)
}

/// A type, and the version of its shape where there were several.
fn kind(event_type: &str, schema_version: u32) -> String {
    match schema_version {
        1 => event_type.to_owned(),
        version => format!("{event_type} v{version}"),
    }
}

const HEADER: [&str; 6] = ["POSITION", "RECORDED AT", "STREAM", "VERSION", "TYPE", "PAYLOAD"];
/// Between two columns.
const GAP: u16 = 2;

/// Rows that come in parts and stand below each other all the same.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Of all columns but the last, as wide as they have become.
    widths: [u16; HEADER.len() - 1],
    is_begun: bool,
}

impl Rows {
    /// The next rows, below a header if they are the first.
    pub(super) fn next(&mut self, events: &[Recorded]) -> Result<String, Failure> {
        let mut table = Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if !std::mem::replace(&mut self.is_begun, true) {
            let mut header = Row::from(HEADER);
            header.max_height(1);
            table.add_row(header);
        }
        for event in events {
            let number = |number: i64| Cell::new(number).set_alignment(CellAlignment::Right);
            let mut row = Row::from([
                number(event.position.get()),
                Cell::new(shown(event.recorded_at)),
                Cell::new(&event.stream),
                number(event.version.get()),
                Cell::new(kind(&event.event_type, event.schema_version)),
                Cell::new(json::compact(text(&event.event)?)),
            ]);
            // What does not fit into the terminal is cut off.
            row.max_height(1);
            table.add_row(row);
        }
        let contents = table.column_max_content_widths();
        for ((width, content), column) in
            self.widths.iter_mut().zip(contents).zip(table.column_iter_mut())
        {
            *width = (*width).max(content + GAP);
            column.set_padding((0, GAP));
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(*width)));
        }
        if let Some(payload) = table.column_mut(HEADER.len() - 1) {
            payload.set_padding((0, 0));
            payload.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(20)));
        }
        Ok(table.trim_fmt())
    }
}
