//! Processor time: what a busy machine distorts least.

use std::collections::HashMap;

/// Linux counts processor time in hundredths of a second for its readers, whatever its own clock.
const TICK_MICROS: f64 = 10_000.0;

/// The processor time that processes have taken so far, in microseconds, by process number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(HashMap<u32, f64>);

impl Times {
    /// Of those that run on this machine and that it tells about.
    pub(crate) fn of(pids: impl IntoIterator<Item = u32>) -> Self {
        let time = |pid| Some((pid, micros(&std::fs::read_to_string(stat(pid)).ok()?)?));
        Self(pids.into_iter().filter_map(time).collect())
    }

    /// What was taken since `earlier`, by those that were there already; `None` if nobody was.
    pub(crate) fn since(&self, earlier: &Self) -> Option<f64> {
        let taken = |(pid, now): (&u32, &f64)| Some(now - earlier.0.get(pid)?);
        self.0.iter().filter_map(taken).reduce(|a, b| a + b)
    }
}

fn stat(pid: u32) -> String {
    format!("/proc/{pid}/stat")
}

/// User and system time; the program's name, in brackets, may hold spaces.
fn micros(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) * TICK_MICROS)
}

#[cfg(test)]
mod tests {
    use super::micros;

    #[test]
    fn user_and_system_time_are_read_behind_any_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 1 0 9 9 9";
        assert_eq!(micros(stat), Some(420_000.0));
        assert_eq!(micros("nothing"), None);
    }
}
