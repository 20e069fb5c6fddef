//! What is remembered between runs, so that a service keeps its port.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The services as they were last started.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) postgres: Option<Postgres>,
    pub(crate) kafka: Option<Kafka>,
}

/// PostgreSQL as it was last started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Postgres {
    pub(crate) port: u16,
    /// The version of its binaries, if they came from Maven.
    pub(crate) from_maven: Option<String>,
}

/// Kafka as it was last started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kafka {
    pub(crate) port: u16,
    pub(crate) controller_port: u16,
}

impl State {
    /// Reads the state. What is not there or cannot be read counts as empty: everything in it can
    /// be found anew.
    pub(crate) fn load(file: &Path) -> Self {
        fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Writes the state in one step, so that nobody ever reads half of it.
    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let unfinished = file.with_extension("json.new");
        fs::write(&unfinished, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&unfinished, file))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_state_counts_as_empty_and_a_saved_one_comes_back() {
        let dir = std::env::temp_dir().join(format!("annals-xtask-state-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("state.json");
        assert_eq!(State::load(&file), State::default());
        fs::write(&file, "{\"postgres\": {").unwrap();
        assert_eq!(State::load(&file), State::default());
        let state = State {
            postgres: Some(Postgres { port: 20_001, from_maven: Some("18.1.0".into()) }),
            kafka: Some(Kafka { port: 20_002, controller_port: 20_003 }),
        };
        state.save(&file).unwrap();
        assert_eq!(State::load(&file), state);
        fs::remove_dir_all(&dir).unwrap();
    }
}
