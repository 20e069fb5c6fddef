//! Published contracts as files.

use std::fs;

use annals_eventstore::contract::{Compatibility, ContractError, Directory, EventKey};
use serde_json::json;

use crate::support::contract;

#[test]
fn what_is_published_reads_back() {
    let place = tempfile::tempdir().unwrap();
    let directory = Directory::at(place.path().join("contracts"));
    assert!(directory.schemas().unwrap().is_empty(), "nothing is published yet");
    let contract = contract();
    let current = contract.schemas().unwrap();
    assert_eq!(directory.publish(&contract).unwrap(), current);
    assert_eq!(directory.schemas().unwrap(), current);
    let comparison = contract.compare(&current, &directory.schemas().unwrap(), Compatibility::Full);
    assert!(comparison.is_compatible() && comparison.additions.is_empty(), "{comparison:?}");
    let mut names: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".json"))
        .collect();
    names.sort();
    assert_eq!(names, ["asyncapi.yaml", "loan.odcs.yaml"]);
}

#[test]
fn older_versions_stay_and_are_in_the_documents() {
    let place = tempfile::tempdir().unwrap();
    let directory = Directory::at(place.path());
    // As a person may have written it.
    let old = "{ \"type\": \"object\",\n\"properties\":{\"amount\": {\"type\":\"integer\"}} }";
    let file = place.path().join("loan.submitted.v1.json");
    fs::write(&file, old).unwrap();
    let all = directory.publish(&contract()).unwrap();
    let key = EventKey::new("loan", "submitted", 1);
    assert_eq!(all.get(&key).unwrap()["properties"]["amount"]["type"], json!("integer"));
    assert_eq!(fs::read_to_string(file).unwrap(), old);
    for name in ["asyncapi.yaml", "loan.odcs.yaml"] {
        let text = fs::read_to_string(place.path().join(name)).unwrap();
        assert!(text.contains("submitted.v1") && text.contains("submitted.v2"), "{text}");
    }
}

#[test]
fn files_that_are_no_schemas_are_named() {
    let place = tempfile::tempdir().unwrap();
    let directory = Directory::at(place.path());
    let file = place.path().join("loan.x.v1.json");
    for (text, expected) in [("{", "EOF"), ("[]", "object")] {
        fs::write(&file, text).unwrap();
        let error = directory.schemas().unwrap_err();
        assert!(matches!(error, ContractError::Malformed { .. }));
        assert!(
            error.to_string().contains("loan.x.v1.json") && error.to_string().contains(expected),
            "{error}"
        );
    }
    fs::remove_file(file).unwrap();
    fs::write(place.path().join("loan.json"), "{}").unwrap();
    assert!(matches!(directory.schemas(), Err(ContractError::FileName { .. })));
}
