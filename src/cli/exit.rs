//! Exit codes.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[must_use = "it says whether all is well"]
pub enum Exit {
    /// All is well. Exit code 0.
    Success,
    /// The command could not run: the arguments, the database or a file are not as they must be, or what
    /// they name is not there. Exit code 1.
    Failed,
    /// The command ran and found something wrong: findings of `verify` and `kafka verify`, differences of
    /// `shapes check`, `contract check` and `rebuild --compare`, a projection that does not run, a saga that is stuck,
    /// an event that `events show` cannot decode. Exit code 2.
    Findings,
    /// Ctrl-C stopped it. Exit code 130.
    Interrupted,
}

impl Exit {
    /// The exit code of the process.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Findings => 2,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
