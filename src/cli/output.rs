//! How results are printed: tables for people, JSON for programs, progress on a terminal.

use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};

use clap::ValueEnum;
use comfy_table::{Table, TableComponent, presets::UTF8_HORIZONTAL_ONLY};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Failure;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Text for people
    #[default]
    Text,
    /// JSON for programs
    Json,
}

/// Whether somebody still reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "nobody may read what comes next"]
pub(super) enum Reader {
    There,
    /// It has seen enough, like `head`: there is no failure in that.
    Gone,
}

/// Prints to stdout, and has it go out.
pub(super) fn print_on(text: &str) -> Result<Reader, Failure> {
    let mut stdout = stdout().lock();
    let text = text.trim_end();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure(format!("cannot print: {error}"))),
    }
}

/// The same for the last that is printed.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(drop)
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
        Self::of(TEMPLATE)
    }

    /// One for what has phases, and says in a message how fast each is.
    pub(super) fn of_phases() -> Self {
        Self::of(PHASES)
    }

    fn of(template: &str) -> Self {
        let target = match stderr().is_terminal() && stdout().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        // A template that does not parse is no reason to fail.
        Self(match ProgressStyle::with_template(template) {
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
const PHASES: &str = "{prefix:>10} [{bar:30}] {pos}/{len}, {msg}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [TEMPLATE, PHASES] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
