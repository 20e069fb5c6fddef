//! How results are printed: tables for people, JSON for programs, progress on a terminal.

use std::io::{IsTerminal, Write, stderr, stdout};

use clap::ValueEnum;
use comfy_table::{Table, TableComponent, presets::UTF8_HORIZONTAL_ONLY};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Failure;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Text for people
    #[default]
    Text,
    /// One JSON document
    Json,
}

/// Prints to stdout.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let text = text.trim_end();
    writeln!(stdout(), "{text}").map_err(|error| Failure(format!("cannot print: {error}")))
}

pub(super) fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&serde_json::to_string_pretty(value)?)
}

/// A table without lines inside.
pub(super) fn table() -> Table {
    let mut table = Table::new();
    table
        .load_preset(UTF8_HORIZONTAL_ONLY)
        .remove_style(TableComponent::HorizontalLines)
        .remove_style(TableComponent::MiddleIntersections);
    table
}

/// A bar on stderr, if that and stdout are a terminal: else the command is a part of something else. It
/// goes away when it is dropped.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let target = match stderr().is_terminal() && stdout().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        // A template that does not parse is no reason to fail.
        Self(match ProgressStyle::with_template(TEMPLATE) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    /// What draws on it.
    pub(super) fn handle(&self) -> ProgressBar {
        self.0.clone()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

const TEMPLATE: &str = "{msg:>16} [{bar:30}] {pos}/{len}, {eta} to go";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
