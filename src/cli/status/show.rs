//! How it is shown.

use std::{collections::HashMap, fmt::Write};

use comfy_table::{Cell, CellAlignment};
use serde_json::{Value, json};

use super::look::{Look, Reader, Seen};
use crate::{
    cli::{Failure, json::plain, other::words, output::table, time::shown},
    control::{Kind, ProjectionStatus, State},
};

pub(super) fn text(look: &Look, rates: &HashMap<String, f64>) -> Result<String, Failure> {
    let (schema, position) = (&look.schema, look.position);
    let mut text = format!("The store in the schema {schema:?}, at position {position}:\n\n");
    if look.projections.is_empty() {
        writeln!(text, "There are no projections.")?;
    } else {
        let mut projections = table();
        let titles = [
            "projection",
            "kind",
            "state",
            "position",
            "behind",
            "waiting",
            "events/s",
            "parked",
            "version",
            "owner",
        ];
        projections.set_header(titles);
        for seen in &look.projections {
            projections.add_row(cells(look, seen, rates.get(&seen.name).copied()));
        }
        writeln!(text, "{projections}")?;
    }
    if !look.readers.is_empty() {
        let mut readers = table();
        readers.set_header(["other reader", "position", "behind", "owner"]);
        for reader in &look.readers {
            readers.add_row([
                Cell::new(plain(&reader.name)),
                right(reader.position),
                right(behind(look, reader)),
                Cell::new(reader.owner.as_deref().unwrap_or("-")),
            ]);
        }
        writeln!(text, "\n{readers}")?;
    }
    if !look.leaders.is_empty() {
        let mut leaders = table();
        leaders.set_header(["election", "epoch", "leader"]);
        for leader in &look.leaders {
            let election = Cell::new(plain(&leader.election));
            leaders.add_row([election, right(leader.epoch), Cell::new(plain(&leader.owner))]);
        }
        writeln!(text, "\n{leaders}")?;
    }
    let complaints: Vec<_> = look.projections.iter().flat_map(Seen::complaints).collect();
    writeln!(text)?;
    for complaint in &complaints {
        writeln!(text, "- {}", plain(complaint))?;
    }
    if complaints.is_empty() {
        writeln!(text, "All is well.")?;
    }
    Ok(text)
}

fn right(shown: impl ToString) -> Cell {
    Cell::new(shown).set_alignment(CellAlignment::Right)
}

fn cells(look: &Look, seen: &Seen, rate: Option<f64>) -> Vec<Cell> {
    let name = Cell::new(plain(&seen.name));
    let kind = Cell::new(seen.kind().map_or("-", words));
    let lag = right(seen.behind(look.position).map_or("-".to_owned(), |behind| behind.to_string()));
    let Some(status) = &seen.status else {
        let version = seen.program_version().map_or("-".to_owned(), |version| version.to_string());
        let dash = || right("-");
        let state = Cell::new(state(seen));
        let version = right(version);
        return vec![name, kind, state, dash(), lag, dash(), dash(), dash(), version, dash()];
    };
    let waiting =
        status.waiting.map_or("-".to_owned(), |waiting| format!("{:.1} s", waiting.as_secs_f64()));
    let version = match seen.program_version() {
        Some(program) if program != status.version => format!("{}, not {program}", status.version),
        _ => status.version.to_string(),
    };
    vec![
        name,
        kind,
        Cell::new(state(seen)),
        right(status.position),
        lag,
        right(waiting),
        right(rate.map_or("-".to_owned(), |rate| format!("{rate:.0}"))),
        right(status.parked),
        right(version),
        Cell::new(owner(status)),
    ]
}

fn state(seen: &Seen) -> &'static str {
    match seen.status.as_ref().map(|status| &status.state) {
        None => "not begun",
        Some(State::Running) => "running",
        Some(State::Inline) => "inline",
        Some(State::Stopped) => "stopped",
        Some(State::Paused(_)) => "paused",
        Some(State::Broken { .. }) => "broken",
        Some(_) => "other",
    }
}

fn owner(status: &ProjectionStatus) -> String {
    let mut owners: Vec<_> = status.slices.iter().filter_map(|one| one.owner.as_deref()).collect();
    owners.sort_unstable();
    owners.dedup();
    match (owners.as_slice(), status.slices.len()) {
        ([], _) => "-".to_owned(),
        ([owner], 1) => (*owner).to_owned(),
        (owners, slices) => {
            let workers = if owners.len() == 1 { "worker" } else { "workers" };
            format!("{} {workers} for {slices} slices", owners.len())
        }
    }
}

fn behind(look: &Look, reader: &Reader) -> i64 {
    (look.position.get() - reader.position.get()).max(0)
}

pub(super) fn document(look: &Look, rates: &HashMap<String, f64>) -> Value {
    let projections = look.projections.iter().map(|seen| {
        let status = seen.status.as_ref();
        let (reason, retried_at) = match status.map(|status| &status.state) {
            Some(State::Paused(reason)) => (Some(reason), None),
            Some(State::Broken { reason, until }) => (Some(reason), Some(shown(*until))),
            _ => (None, None),
        };
        let slices = status.map_or(&[][..], |status| &status.slices).iter().map(|slice| {
            json!({
                "position": slice.position,
                "owner": slice.owner,
                "epoch": slice.epoch,
                "updated_at": shown(slice.updated_at),
                "fed_by": slice.fed_by.as_str(),
                "fed_by_reason": slice.fed_by.reason(),
            })
        });
        json!({
            "name": seen.name,
            "kind": seen.kind().map(Kind::as_str),
            "state": state(seen).replace(' ', "_"),
            "reason": reason,
            "retried_at": retried_at,
            "position": status.map(|status| status.position),
            "behind": seen.behind(look.position),
            "waiting_seconds": status.and_then(|status| status.waiting).map(|for_| for_.as_secs_f64()),
            "events_per_second": rates.get(&seen.name),
            "parked": status.map_or(0, |status| status.parked),
            "version": status.map(|status| status.version),
            "program_version": seen.program_version(),
            "history_from": status.map(|status| status.history_from),
            "slices": slices.collect::<Vec<_>>(),
        })
    });
    let readers = look.readers.iter().map(|reader| {
        json!({
            "name": reader.name,
            "position": reader.position,
            "behind": behind(look, reader),
            "owner": reader.owner,
        })
    });
    let leaders = look.leaders.iter().map(|leader| {
        json!({
            "election": leader.election,
            "epoch": leader.epoch,
            "owner": leader.owner,
        })
    });
    json!({
        "schema": look.schema,
        "position": look.position,
        "well": look.is_well(),
        "projections": projections.collect::<Vec<_>>(),
        "readers": readers.collect::<Vec<_>>(),
        "leaders": leaders.collect::<Vec<_>>(),
    })
}
