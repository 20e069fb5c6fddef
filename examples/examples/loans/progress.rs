//! Progress bars on stderr: how far commands, projection, publishing and a rebuild are.
//!
//! They are drawn on a terminal only: not if stderr is a pipe or a file, and not if stdout is one,
//! because then the program is a part of something else.

use std::io::{IsTerminal, stderr, stdout};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::rows::Bytes;

/// The bars. Clones draw the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    all: MultiProgress,
    commands: ProgressBar,
    projection: ProgressBar,
    publishing: ProgressBar,
    rebuild: ProgressBar,
}

impl Progress {
    /// Begins at nothing done, on stderr if this is a terminal.
    pub(crate) fn new() -> Self {
        let target = if stderr().is_terminal() && stdout().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self::on(target)
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let all = MultiProgress::with_draw_target(target);
        let bar = |name: &'static str, template: &str| {
            let bar = all.add(ProgressBar::new(0)).with_prefix(name);
            match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style),
                // A template that does not parse is no reason to fail.
                Err(_) => bar,
            }
        };
        Self {
            commands: bar("commands", COMMANDS),
            projection: bar("projection", EVENTS),
            publishing: bar("publishing", EVENTS),
            rebuild: bar("rebuild", REBUILD),
            all,
        }
    }

    /// `events` have been recorded by commands, from this much of the input. They are what the
    /// other two bars are to reach.
    pub(crate) fn recorded(&self, events: u64, input: &Bytes) {
        self.commands.set_length(input.size().max(input.read()));
        self.commands.set_position(input.read());
        self.commands.set_message(events.to_string());
        self.projection.set_length(events);
        self.publishing.set_length(events);
    }

    /// `events` have been projected.
    pub(crate) fn projected(&self, events: u64) {
        self.projection.set_position(events);
    }

    /// `events` have been delivered to Kafka.
    pub(crate) fn published(&self, events: u64) {
        self.publishing.set_position(events);
    }

    /// A rebuild of the read model is here.
    pub(crate) fn rebuilt(&self, at: &annals::Progress) {
        self.rebuild.set_length(at.end.get().unsigned_abs());
        self.rebuild.set_position(at.position.get().unsigned_abs());
        let eta = at.eta.map(|eta| format!(", {} s to go", eta.as_secs()));
        let rate = format!("{}, {:.0}/s{}", at.phase, at.rate, eta.unwrap_or_default());
        self.rebuild.set_message(rate);
    }

    /// Prints a line to stderr, above the bars if there are any.
    pub(crate) fn line(&self, line: &str) {
        self.all.suspend(|| eprintln!("{line}"));
    }

    /// Takes the bars away.
    pub(crate) fn clear(&self) {
        for bar in [&self.commands, &self.projection, &self.publishing, &self.rebuild] {
            bar.finish_and_clear();
        }
    }
}

const COMMANDS: &str = "{prefix:>10} [{bar:30}] {percent:>3} %  {msg} events, {eta} to go";
const EVENTS: &str = "{prefix:>10} [{bar:30}] {percent:>3} %  {pos} events, {per_sec}";
const REBUILD: &str = "{prefix:>10} [{bar:30}] {percent:>3} %  {msg}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{COLUMNS, Rows};

    #[test]
    fn the_bars_say_how_far_each_part_is() {
        let progress = Progress::on(ProgressDrawTarget::hidden());
        let header = COLUMNS.join(",");
        let size = header.len() as u64;
        let rows = Rows::from_bytes("the input", header.into_bytes()).unwrap();
        progress.recorded(200, &rows.bytes());
        progress.projected(50);
        progress.published(100);
        let shown = |bar: &ProgressBar| (bar.position(), bar.length());
        assert_eq!(shown(&progress.commands), (size, Some(size)));
        assert_eq!(progress.commands.message(), "200");
        assert_eq!(shown(&progress.projection), (50, Some(200)));
        assert_eq!(shown(&progress.publishing), (100, Some(200)));
    }

    #[test]
    fn the_templates_are_valid() {
        for template in [COMMANDS, EVENTS, REBUILD] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
