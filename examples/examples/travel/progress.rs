//! Progress bars on stderr: how many bookings are accepted, and how many have ended.
//!
//! They are drawn on a terminal only: not if stderr is a pipe or a file, and not if stdout is one, because then the
//! program is a part of something else.

use std::io::{IsTerminal, stderr, stdout};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

const BAR: &str = "{prefix:>8} [{bar:30}] {percent:>3} %  {pos} of {len} bookings, {per_sec}";

/// The bars.
pub(crate) struct Progress {
    all: MultiProgress,
    accepted: ProgressBar,
    ended: ProgressBar,
}

impl Progress {
    /// Of so many bookings.
    pub(crate) fn of(bookings: u64) -> Self {
        let target = if stderr().is_terminal() && stdout().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let all = MultiProgress::with_draw_target(target);
        let bar = |name: &'static str| {
            let bar = all.add(ProgressBar::new(bookings)).with_prefix(name);
            match ProgressStyle::with_template(BAR) {
                Ok(style) => bar.with_style(style),
                // A template that does not parse is no reason to fail.
                Err(_) => bar,
            }
        };
        Self { accepted: bar("accepted"), ended: bar("ended"), all }
    }

    /// So many are accepted.
    pub(crate) fn accepted(&self, bookings: usize) {
        self.accepted.set_position(bookings as u64);
    }

    /// So many are booked or compensated.
    pub(crate) fn ended(&self, bookings: u64) {
        self.ended.set_position(bookings);
    }

    /// Prints a line to stderr, above the bars if there are any.
    pub(crate) fn line(&self, line: &str) {
        self.all.suspend(|| eprintln!("{line}"));
    }

    /// Takes the bars away.
    pub(crate) fn clear(&self) {
        self.accepted.finish_and_clear();
        self.ended.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
