//! The files with the figures. A run replaces what it measured, and leaves what other runs measured.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::bench::Name;

/// Puts figures into a file of them.
pub(crate) fn merge_into(path: &Path, new: Map<String, Value>) -> Result<()> {
    let old = match std::fs::read(path) {
        Ok(old) => old,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let json = serde_json::to_string_pretty(&merged(&old, new))?;
    std::fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// The old figures with the new ones in their place. What is not one of our names goes, and so does
/// a file that is none of ours: it can be measured again.
fn merged(old: &[u8], new: Map<String, Value>) -> Map<String, Value> {
    let mut all: Map<String, Value> = serde_json::from_slice(old).unwrap_or_default();
    all.retain(|name, _| Name::from_str(name, false).is_ok());
    all.extend(new);
    all
}

/// Beside the figures: where each was measured.
pub(crate) fn of_environments(figures: &Path) -> PathBuf {
    let name = figures.file_stem().unwrap_or_default().to_string_lossy();
    figures.with_file_name(format!("{name}-environment.json"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_a_run_did_not_measure_stays() {
        let old = json!({ "environment": {}, "execute_1": 1, "growth": 1, "of_long_ago": 1 });
        let new = map(json!({ "growth": 2, "mixed": 2 }));
        let expected = map(json!({ "execute_1": 1, "growth": 2, "mixed": 2 }));
        assert_eq!(merged(old.to_string().as_bytes(), new.clone()), expected);
        for none in ["", "[]", "{\"execute_1\": 1"] {
            assert_eq!(merged(none.as_bytes(), new.clone()), new, "{none}");
        }
    }

    #[test]
    fn every_name_survives_the_next_run() {
        for name in Name::value_variants() {
            let old = map(json!({ name.as_str(): 1 }));
            assert_eq!(merged(&serde_json::to_vec(&old).unwrap(), Map::new()), old);
        }
    }

    #[test]
    fn environments_are_in_a_file_beside() {
        let file = of_environments(Path::new("target/annals-bench.json"));
        assert_eq!(file, Path::new("target/annals-bench-environment.json"));
    }
}
