//! What was measured, as a table and as JSON.

use anyhow::Result;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Map, Value, json};

use crate::{
    contestant::About,
    measure::{Kinds, Latency, Summary, median},
    server::Environment,
};

/// One who ran.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    about: About,
    summary: Summary,
    cpu: Option<Cpu>,
}

/// Processor time for each unit, in microseconds: the medians of the rounds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
struct Cpu {
    client: f64,
    server: f64,
}

impl Side {
    pub(crate) fn of(about: About, summary: Summary) -> Self {
        Self { about, summary, cpu: None }
    }

    /// Adds what each unit took of the processors, in the client and in the server, round by round.
    pub(crate) fn cpu(mut self, micros: &[[f64; 2]]) -> Self {
        let middle = |index: usize| median(&micros.iter().map(|m| m[index]).collect::<Vec<_>>());
        if !micros.is_empty() {
            let [client, server] = [0, 1].map(|index| (middle(index) * 10.0).round() / 10.0);
            self.cpu = Some(Cpu { client, server });
        }
        self
    }

    fn json(&self) -> Value {
        let mut side = json!({
            "name": self.about.name,
            "version": self.about.version,
            "setup": self.about.setup,
            "cpu_us": self.cpu,
        });
        if let (Value::Object(side), Value::Object(figures)) = (&mut side, self.summary.json()) {
            side.extend(figures);
        }
        side
    }
}

/// A benchmark that ran.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    name: &'static str,
    unit: &'static str,
    annals: Side,
    /// The fastest first.
    others: Vec<Side>,
    /// Annals set up otherwise, under a key of its own. No ratio is made with it.
    beside: Option<(&'static str, Side)>,
    more: Map<String, Value>,
}

impl Entry {
    pub(crate) fn new(
        name: &'static str,
        unit: &'static str,
        annals: Side,
        mut others: Vec<Side>,
    ) -> Self {
        others.sort_by(|a, b| b.summary.median().total_cmp(&a.summary.median()));
        Self { name, unit, annals, others, beside: None, more: Map::new() }
    }

    /// Adds a run that stands beside the others and that Annals is not compared with.
    pub(crate) fn beside(&mut self, key: &'static str, side: Side) {
        self.beside = Some((key, side));
    }

    /// Adds a figure of this benchmark's own.
    pub(crate) fn add(&mut self, name: &str, value: Value) {
        self.more.insert(name.to_owned(), value);
    }

    /// How many times as fast Annals is, by the medians.
    fn ratio(&self) -> Option<f64> {
        Some(self.annals.summary.median() / self.others.first()?.summary.median())
    }

    /// The same, round by round: neighbours in time, so that what disturbs both cancels out.
    fn ratios(&self) -> Vec<f64> {
        let Some(other) = self.others.first() else { return Vec::new() };
        std::iter::zip(&self.annals.summary.rates, &other.summary.rates)
            .map(|(annals, other)| annals / other)
            .collect()
    }

    fn json(&self) -> Value {
        let ratios = self.ratios();
        let mut entry = json!({
            "annals": self.annals.summary.median().round(),
            "annals_run": self.annals.json(),
            "other": self.others.first().map(Side::json),
            "others": self.others.iter().map(Side::json).collect::<Vec<_>>(),
            "unit": self.unit,
            "ratio": self.ratio().map(hundredths),
            "ratio_rounds": ratios.iter().copied().map(hundredths).collect::<Vec<_>>(),
            "latency_ms": {
                "annals": self.annals.summary.latency,
                "other": self.others.first().and_then(|other| other.summary.latency),
            },
        });
        if let Value::Object(entry) = &mut entry {
            entry.extend(self.beside.iter().map(|(key, side)| ((*key).to_owned(), side.json())));
            entry.extend(self.more.clone());
        }
        entry
    }
}

/// Everything that ran.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) environment: Environment,
    pub(crate) entries: Vec<Entry>,
}

impl Report {
    /// `{"execute_1": {..}, ..}`
    pub(crate) fn json(&self) -> Map<String, Value> {
        self.entries.iter().map(|entry| (entry.name.to_owned(), entry.json())).collect()
    }

    /// Where each of them ran, under the same names.
    pub(crate) fn environments(&self) -> Result<Map<String, Value>> {
        let environment = serde_json::to_value(&self.environment)?;
        let names = self.entries.iter().map(|entry| entry.name.to_owned());
        Ok(names.map(|name| (name, environment.clone())).collect())
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header([
            "benchmark",
            "who",
            "median",
            "min..max",
            "unit",
            "annals is",
            "min..max",
            "p50 ms",
            "p95",
            "p99",
            "max",
            "client us",
            "server us",
        ]);
        for entry in &self.entries {
            table.add_row(row(entry.name, &entry.annals, entry.unit, &[]));
            for other in &entry.others {
                let ratios: Vec<f64> =
                    std::iter::zip(&entry.annals.summary.rates, &other.summary.rates)
                        .map(|(annals, other)| annals / other)
                        .collect();
                table.add_row(row("", other, entry.unit, &ratios));
            }
            if let Some((_, side)) = &entry.beside {
                table.add_row(row("", side, entry.unit, &[]));
            }
        }
        for column in [2, 3, 5, 6, 7, 8, 9, 10, 11, 12] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = table.trim_fmt();
        for entry in &self.entries {
            for side in std::iter::once(&entry.annals).chain(&entry.others) {
                if let Some(Kinds { commands: Some(commands), loads: Some(loads) }) =
                    side.summary.kinds
                {
                    let (who, command, load) = (side.about.name, commands.text(), loads.text());
                    text.push_str(&format!(
                        "\n{}: {who}: {command} a command, {load} a load",
                        entry.name
                    ));
                }
            }
            for (name, value) in &entry.more {
                // Steps, each of which has figures of its own.
                let lines = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                for line in lines {
                    text.push_str(&format!("\n{}: {name} {line}", entry.name));
                }
            }
        }
        text
    }
}

fn row(name: &str, side: &Side, unit: &str, ratios: &[f64]) -> Vec<String> {
    let summary = &side.summary;
    let who = format!("{} {}", side.about.name, side.about.version);
    let spread = format!("{}..{}", figure(summary.lowest()), figure(summary.highest()));
    let (ratio, ratio_spread) = if ratios.is_empty() {
        (String::new(), String::new())
    } else {
        let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = ratios.iter().copied().fold(0.0, f64::max);
        (format!("{:.2}x", median(ratios)), format!("{lowest:.2}..{highest:.2}"))
    };
    let mut row = vec![
        name.to_owned(),
        who,
        figure(summary.median()),
        spread,
        unit.to_owned(),
        ratio,
        ratio_spread,
    ];
    row.extend(match &summary.latency {
        Some(Latency { p50, p95, p99, max }) => {
            [p50, p95, p99, max].map(|value| format!("{value:.2}"))
        }
        None => [(); 4].map(|()| "-".to_owned()),
    });
    row.extend(match side.cpu {
        Some(Cpu { client, server }) => [client, server].map(|micros| match micros {
            ..10.0 => format!("{micros:.1}"),
            _ => figure(micros),
        }),
        None => [(); 2].map(|()| "-".to_owned()),
    });
    row
}

/// A whole number with its thousands apart.
fn figure(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::measure::Round;

    fn side(name: &'static str, units: u64) -> Side {
        let round = Round {
            units,
            elapsed: Duration::from_secs(1),
            latencies: vec![1000, 2000],
            ..Round::default()
        };
        Side::of(About { name, version: "1", setup: "" }, Summary::of(&[round]))
    }

    /// What others read: each name has these, and there is nothing else.
    #[test]
    fn the_figures_have_the_shape_that_is_promised() {
        let others = vec![side("slow", 50), side("fast", 100)];
        let mut compared = Entry::new("execute_1", "commands/s", side("annals", 250), others);
        compared.beside("annals_without_cache", side("annals, no cache", 120));
        compared.add("steps", json!([1, 2]));
        let alone = Entry::new("mixed", "operations/s", side("annals", 5), Vec::new());
        let report = Report { environment: Environment::default(), entries: vec![compared, alone] };
        let json = report.json();
        assert_eq!(json.keys().collect::<Vec<_>>(), ["execute_1", "mixed"]);
        for entry in json.values() {
            assert!(entry["annals"].is_f64() && entry["unit"].is_string(), "{entry}");
            assert_eq!(entry["latency_ms"]["annals"]["p99"], 2.0);
        }
        let entry = &json["execute_1"];
        assert_eq!((&entry["annals"], &entry["ratio"]), (&json!(250.0), &json!(2.5)));
        assert_eq!(entry["other"]["name"], "fast");
        assert_eq!(entry["other"]["value"], 100.0);
        assert_eq!(entry["others"].as_array().unwrap().len(), 2);
        assert_eq!(entry["annals_without_cache"]["value"], 120.0);
        assert!(json["mixed"]["other"].is_null() && json["mixed"]["ratio"].is_null());
        let environments = report.environments().unwrap();
        assert_eq!(environments.keys().collect::<Vec<_>>(), ["execute_1", "mixed"]);
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(figure(7.4), "7");
        assert_eq!(figure(1_000.0), "1,000");
        assert_eq!(figure(1_234_567.0), "1,234,567");
    }
}
