//! A PostgreSQL server made for one run of tests, beside the private one of the checkout.

use std::fs::{self, File};

use anyhow::{Context, Result};

use super::layout::Layout;
use super::postgres::{self, Major, Wanted};
use super::state::State;

/// A server that this process has started, to be stopped by [`Temporary::stop`]. One that is left
/// behind because the process was killed is found and replaced by the next run on its version, and
/// stopped by `services down`.
pub(crate) struct Temporary {
    layout: Layout,
    url: String,
    /// Keeps others from the server.
    _lock: File,
}

impl Temporary {
    /// Starts a server of a certain version with an empty cluster, on a port of its own.
    pub(crate) fn start(major: Major) -> Result<Self> {
        let layout = Layout::discover()?.beside(&name(major));
        let lock = layout.lock()?;
        let start = || {
            postgres::down(&layout)?;
            // The tests of a killed run leave their databases.
            super::delete(&layout)?;
            fs::create_dir_all(layout.dir())
                .with_context(|| format!("cannot create {}", layout.dir().display()))?;
            postgres::up(&layout, &mut State::default(), &Wanted::Major(major))
        };
        let url = start().with_context(|| format!("cannot bring PostgreSQL {major} up"))?;
        Ok(Self { layout, url, _lock: lock })
    }

    /// The URL of its database.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Stops the server and deletes its data.
    pub(crate) fn stop(self) -> Result<()> {
        postgres::down(&self.layout)?;
        super::delete(&self.layout)
    }
}

/// Where temporary servers of any version keep their data.
pub(crate) fn layouts(layout: &Layout) -> impl Iterator<Item = Layout> + use<> {
    Major::ALL.map(|major| layout.beside(&name(major))).into_iter()
}

fn name(major: Major) -> String {
    format!("tests-on-{major}")
}
