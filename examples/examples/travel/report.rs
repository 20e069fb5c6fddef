//! What the checker found, as text.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::UTF8_BORDERS_ONLY};

use crate::{
    check::{Books, Verdict},
    kind::Kind,
    load::Sent,
};

/// How many findings are told one by one.
const TOLD: usize = 20;

/// How it was sent, and what else was asked for, in two lines.
pub(crate) fn load(sent: &Sent) -> String {
    let habits: Vec<_> =
        sent.habits.iter().map(|(habit, count)| format!("{count} {}", habit.name())).collect();
    let seconds = sent.took.as_secs_f64();
    format!(
        "sent: {} bookings accepted in {seconds:.1} s, {:.0}/s; {} requests sent again; {} given up\n\
         asked: {}; a follower heard of {} changes, by {} connections",
        sent.accepted.len(),
        sent.accepted.len() as f64 / seconds,
        sent.again,
        sent.failed.len(),
        habits.join(", "),
        sent.seen.changes,
        sent.seen.connections,
    )
}

/// Tables of what the databases hold, the findings, and the verdict as the last line.
pub(crate) fn verdict(books: &Books, verdict: &Verdict) -> String {
    let mut lines = vec![endings(verdict).to_string(), services(books).to_string()];
    lines.push(format!("{} attempts at calls failed and were made again", books.failed_attempts));
    lines.extend(verdict.findings.iter().take(TOLD).map(ToString::to_string));
    if verdict.findings.len() > TOLD {
        lines.push(format!("and {} findings more", verdict.findings.len() - TOLD));
    }
    lines.push(verdict.to_string());
    lines.join("\n")
}

fn table(headers: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn endings(verdict: &Verdict) -> Table {
    let mut table = table(&["outcome", "bookings", "p50", "p99", "longest"]);
    for (ending, times) in &verdict.times {
        let at = |share| seconds(percentile(times, share));
        let count = times.len().to_string();
        table.add_row([ending.name().to_owned(), count, at(0.5), at(0.99), at(1.0)]);
    }
    table
}

fn services(books: &Books) -> Table {
    let mut table = table(&["service", "reserved", "cancelled", "cancelled before reserved"]);
    for (kind, service) in Kind::ALL.into_iter().zip(books.services) {
        let counts = [service.reserved, service.cancelled, service.forestalled];
        let [reserved, cancelled, forestalled] = counts.map(|count| count.to_string());
        table.add_row([kind.name().to_owned(), reserved, cancelled, forestalled]);
    }
    table
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or_else(String::new, |time| format!("{:.2} s", time.as_secs_f64()))
}

/// The time that this share of them did not exceed. They are in ascending order.
fn percentile(times: &[Duration], share: f64) -> Option<Duration> {
    let rank = (times.len() as f64 * share).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<_> = (1..=200).map(Duration::from_secs).collect();
        let at = |share| percentile(&times, share).unwrap().as_secs();
        assert_eq!([at(0.5), at(0.99), at(1.0), at(0.0)], [100, 198, 200, 1]);
        assert_eq!(percentile(&[], 0.5), None);
    }
}
