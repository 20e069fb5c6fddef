//! `contract`: what is published, and whether it stays compatible with what was published last.

use std::{fmt::Write, path::PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    App, Exit, Failure,
    output::{Output, print, print_json},
};
use crate::contract::{Comparison, Compatibility, Contract, Directory, Schemas};

/// The contract of the events that are published: prints it, writes it, checks it
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The JSON Schema of each type of event in its present version
    #[command(after_help = DOCUMENTS)]
    Schema {
        #[command(flatten)]
        which: Which,

        #[command(flatten)]
        place: Place,
    },
    /// The AsyncAPI document: topics, keys, headers, messages
    #[command(after_help = DOCUMENTS)]
    Asyncapi {
        #[command(flatten)]
        published: Published,

        #[command(flatten)]
        place: Place,
    },
    /// The Open Data Contract of each category: owner, description, service levels, fields
    #[command(after_help = DOCUMENTS)]
    Data {
        #[command(flatten)]
        which: Which,

        #[command(flatten)]
        published: Published,

        #[command(flatten)]
        place: Place,
    },
    /// Writes the whole contract into a directory, if it is compatible with what is published there
    ///
    /// Schemas of older versions and of types that are retired stay in the directory, because the topics still
    /// hold such events.
    #[command(
        after_help = "Exit code: 0 if it was written, 1 if a file cannot be read or written, 2 if it \
                            is not compatible: then the directory stays as it is."
    )]
    Publish {
        #[command(flatten)]
        directory: InDirectory,

        #[command(flatten)]
        asked: Asked,
    },
    /// Fails if consumers of the published contract would break
    ///
    /// A writer writes the properties that its schema names; a reader ignores those that its schema does not
    /// name, unless it forbids them. Consumers pass over types that they do not know. A difference that cannot
    /// be judged counts as one that breaks.
    #[command(
        after_help = "Exit code: 0 if it is compatible, 1 if a file cannot be read, 2 if it is not."
    )]
    Check {
        #[command(flatten)]
        directory: InDirectory,

        #[command(flatten)]
        asked: Asked,

        /// How to print the differences
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

const DOCUMENTS: &str = "Exit code: 0 if it was printed or written, 1 if not.";

#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only this category
    #[arg(long)]
    category: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Published {
    /// Also the older versions that are published in this directory
    #[arg(long, value_name = "DIR")]
    published: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// Writes files into this directory instead of printing
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct InDirectory {
    /// The directory with the published contract
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Asked {
    /// What is asked of the new contract
    #[arg(long, value_enum, default_value_t)]
    compatibility: Asking,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Asking {
    /// Consumers with the new contract can read all that was published: each published type and version is
    /// still there, and allows what it did. A breaking change takes a new version
    #[default]
    Backward,
    /// Consumers with the published contract can read all that will be published: a type allows no more than
    /// it did, also in a new version. A breaking change takes a new type
    Forward,
    /// Both
    Full,
    /// Nothing
    None,
}

impl From<Asking> for Compatibility {
    fn from(asking: Asking) -> Self {
        match asking {
            Asking::Backward => Self::Backward,
            Asking::Forward => Self::Forward,
            Asking::Full => Self::Full,
            Asking::None => Self::None,
        }
    }
}

pub(super) fn run(app: &App, command: Command) -> Result<Exit, Failure> {
    let Some(contract) = &app.contract else {
        let nothing = "this program has no contract; add one with App::new().contract(..)";
        return Err(Failure(nothing.to_owned()));
    };
    match command {
        Command::Schema { which, place } => schema(contract, &which, place),
        Command::Asyncapi { published, place } => asyncapi(contract, published, place),
        Command::Data { which, published, place } => data(contract, &which, published, place),
        Command::Publish { directory, asked } => publish(contract, directory, &asked),
        Command::Check { directory, asked, output } => check(contract, directory, &asked, output),
    }
}

fn schema(contract: &Contract, which: &Which, place: Place) -> Result<Exit, Failure> {
    let categories = categories(contract, which)?;
    let all = contract.schemas()?;
    let chosen: Schemas = all
        .iter()
        .filter(|(key, _)| categories.contains(&key.category.as_str()))
        .map(|(key, schema)| (key.clone(), schema.clone()))
        .collect();
    match place.out {
        Some(out) => Directory::at(out).write_schemas(&chosen)?,
        None => {
            let named = chosen.iter().map(|(key, schema)| (key.to_string(), schema.clone()));
            print_json(&Value::Object(named.collect::<Map<_, _>>()))?;
        }
    }
    Ok(Exit::Success)
}

fn asyncapi(contract: &Contract, published: Published, place: Place) -> Result<Exit, Failure> {
    let schemas = published.with(contract)?;
    match place.out {
        Some(out) => Directory::at(out).write_asyncapi(contract, &schemas)?,
        None => print(&contract.asyncapi(&schemas)?)?,
    }
    Ok(Exit::Success)
}

fn data(
    contract: &Contract,
    which: &Which,
    published: Published,
    place: Place,
) -> Result<Exit, Failure> {
    let schemas = published.with(contract)?;
    let directory = place.out.map(Directory::at);
    let mut documents = Vec::new();
    for category in categories(contract, which)? {
        match &directory {
            Some(directory) => directory.write_data_contract(contract, category, &schemas)?,
            None => documents.push(contract.data_contract(category, &schemas)?),
        }
    }
    if directory.is_none() {
        print(&documents.join("---\n"))?;
    }
    Ok(Exit::Success)
}

fn publish(contract: &Contract, directory: InDirectory, asked: &Asked) -> Result<Exit, Failure> {
    let directory = Directory::at(directory.directory);
    let comparison = compare(contract, &directory, asked)?;
    if !comparison.is_compatible() {
        print(&text(&directory, asked, &comparison)?)?;
        return Ok(Exit::Findings);
    }
    directory.publish(contract)?;
    let mut lines = String::new();
    for key in &comparison.additions {
        writeln!(lines, "added {key}")?;
    }
    writeln!(lines, "The contract is in {}.", directory.path().display())?;
    print(&lines)?;
    Ok(Exit::Success)
}

fn check(
    contract: &Contract,
    directory: InDirectory,
    asked: &Asked,
    output: Output,
) -> Result<Exit, Failure> {
    let directory = Directory::at(directory.directory);
    let comparison = compare(contract, &directory, asked)?;
    match output {
        Output::Text => print(&text(&directory, asked, &comparison)?)?,
        Output::Json => print_json(&document(&directory, asked, &comparison))?,
    }
    Ok(if comparison.is_compatible() { Exit::Success } else { Exit::Findings })
}

fn compare(
    contract: &Contract,
    directory: &Directory,
    asked: &Asked,
) -> Result<Comparison, Failure> {
    let published = directory.schemas()?;
    Ok(contract.compare(&contract.schemas()?, &published, asked.compatibility.into()))
}

impl Published {
    /// The schemas of the code, and those that were published before.
    fn with(self, contract: &Contract) -> Result<Schemas, Failure> {
        let current = contract.schemas()?;
        Ok(match self.published {
            Some(directory) => current.or(Directory::at(directory).schemas()?),
            None => current,
        })
    }
}

fn categories<'a>(contract: &'a Contract, which: &Which) -> Result<Vec<&'a str>, Failure> {
    let all: Vec<_> = contract.categories().collect();
    let Some(wanted) = &which.category else { return Ok(all) };
    match all.iter().find(|category| *category == wanted) {
        Some(category) => Ok(vec![category]),
        None => Err(Failure(format!(
            "the contract has no category {wanted:?}; it has {}",
            all.join(", ")
        ))),
    }
}

fn text(directory: &Directory, asked: &Asked, comparison: &Comparison) -> Result<String, Failure> {
    let mut text = String::new();
    let (path, asked) = (directory.path().display(), Compatibility::from(asked.compatibility));
    if comparison.is_compatible() {
        writeln!(text, "The contract is compatible with {path} ({asked}).")?;
    } else {
        writeln!(text, "The contract is not compatible with {path} ({asked}):")?;
    }
    for difference in &comparison.differences {
        writeln!(text, "  {difference}")?;
    }
    if !comparison.is_compatible() {
        writeln!(
            text,
            "Undo the change, or make it a new version, `#[event(version = ..)]`; with `forward` and `full`, \
             a new type. A type that is gone is retired with `#[event(dropped(..))]`."
        )?;
    }
    for key in &comparison.additions {
        writeln!(text, "{key} is new.")?;
    }
    for key in &comparison.unknown_versions {
        writeln!(
            text,
            "{key} has no schema: if there are such events, put {} into {path}.",
            key.file_name()
        )?;
    }
    Ok(text)
}

fn document(directory: &Directory, asked: &Asked, comparison: &Comparison) -> Value {
    let names = |keys: &[crate::contract::EventKey]| -> Vec<_> {
        keys.iter().map(ToString::to_string).collect()
    };
    let differences = comparison.differences.iter().map(|difference| {
        json!({
            "event": difference.event.to_string(),
            "category": difference.event.category,
            "event_type": difference.event.event_type,
            "version": difference.event.version,
            "compared_with_version": difference.compared_with.as_ref().map(|key| key.version),
            "pointer": difference.pointer,
            "change": difference.change,
            "consequence": difference.consequence(),
            "comparable": difference.comparable,
            "message": difference.to_string(),
        })
    });
    json!({
        "directory": directory.path().display().to_string(),
        "compatibility": Compatibility::from(asked.compatibility).to_string(),
        "compatible": comparison.is_compatible(),
        "differences": differences.collect::<Vec<_>>(),
        "additions": names(&comparison.additions),
        "unknown_versions": names(&comparison.unknown_versions),
    })
}
