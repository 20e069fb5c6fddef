//! Published contracts as files.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Contract, ContractError, EventKey, Schemas};

const ASYNCAPI: &str = "asyncapi.yaml";

/// A directory with the published contract of a context: a JSON Schema for each type and version
/// (`loan.submitted.v1.json`), `asyncapi.yaml`, and an Open Data Contract for each category
/// (`loan.odcs.yaml`). Commit it, or keep it where consumers find it.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// The directory at a path. It need not exist: then nothing is published yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The schemas in it. Other files are passed over.
    ///
    /// # Errors
    /// If a file cannot be read, holds no JSON object, or has a name that names no event.
    pub fn schemas(&self) -> Result<Schemas, ContractError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Schemas::default()),
            Err(source) => return Err(failed("read", &self.0, source)),
        };
        let mut schemas = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(|source| failed("read", &self.0, source))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(name) = name.strip_suffix(".json") else { continue };
            let key: EventKey = name
                .parse()
                .map_err(|source| ContractError::FileName { path: path.clone(), source })?;
            schemas.insert(key, read(&path)?);
        }
        Ok(Schemas(schemas))
    }

    /// Writes the contract: the schemas of the code and the documents. Schemas of other versions and types
    /// that are in the directory stay, and are in the documents, because the topics still hold such events.
    /// Returns all schemas that the directory then has.
    ///
    /// What is in the directory is overwritten: [compare](Contract::compare) before.
    ///
    /// # Errors
    /// If the contract cannot be made, or a file cannot be read or written. Then some files may be new and
    /// others not; the same call again makes it whole.
    pub fn publish(&self, contract: &Contract) -> Result<Schemas, ContractError> {
        let current = contract.schemas()?;
        let all = current.clone().or(self.schemas()?);
        self.write_schemas(&current)?;
        self.write_asyncapi(contract, &all)?;
        for category in contract.categories() {
            self.write_data_contract(contract, category, &all)?;
        }
        Ok(all)
    }

    /// Writes each schema into a file of its own.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_schemas(&self, schemas: &Schemas) -> Result<(), ContractError> {
        schemas.iter().try_for_each(|(key, schema)| self.write(&key.file_name(), &pretty(schema)))
    }

    /// Writes `asyncapi.yaml`, for these schemas.
    ///
    /// # Errors
    /// If the document cannot be made, or the file not be written.
    pub fn write_asyncapi(
        &self,
        contract: &Contract,
        schemas: &Schemas,
    ) -> Result<(), ContractError> {
        self.write(ASYNCAPI, &contract.asyncapi(schemas)?)
    }

    /// Writes the Open Data Contract of a category, for these schemas.
    ///
    /// # Errors
    /// If there is no such category, or the file cannot be written.
    pub fn write_data_contract(
        &self,
        contract: &Contract,
        category: &str,
        schemas: &Schemas,
    ) -> Result<(), ContractError> {
        let document = contract.data_contract(category, schemas)?;
        self.write(&format!("{category}.odcs.yaml"), &document)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), ContractError> {
        fs::create_dir_all(&self.0).map_err(|source| failed("write", &self.0, source))?;
        let path = self.0.join(name);
        // What is the same is left alone, so that its time says when it changed.
        if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        fs::write(&path, text).map_err(|source| failed("write", &path, source))
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> ContractError {
    ContractError::File { action, path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<Value, ContractError> {
    let text = fs::read(path).map_err(|source| failed("read", path, source))?;
    let malformed = |reason: String| ContractError::Malformed { path: path.to_owned(), reason };
    let schema: Value =
        serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
    match schema.is_object() {
        true => Ok(schema),
        false => Err(malformed("a schema is a JSON object".to_owned())),
    }
}

/// The text of the file of a schema.
fn pretty(schema: &Value) -> String {
    // With `{:#}`, a JSON value is indented, and cannot fail.
    format!("{schema:#}\n")
}
