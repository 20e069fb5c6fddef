//! `ddl`: the SQL of a read model, to look at or to be run by somebody else.

use clap::Args;

use super::{App, Exit, Failure, database::Schema, output::print, projection::known};

/// Prints the SQL of a read model's tables, indexes and functions, and runs nothing
///
/// It is what a worker runs when it begins; where that must not create tables, run it beforehand. No
/// database is needed for it.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 if it was printed, 1 if the program has no such read model.")]
pub(super) struct Arguments {
    #[command(flatten)]
    schema: Schema,

    /// The read model: the name of its table
    projection: String,
}

pub(super) fn run(app: &App, arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { schema, projection } = arguments;
    let known = known(app, &projection)?;
    let (store, read_models) = schema.options(app).schemas()?;
    print(&(known.ddl)(&store, &read_models))?;
    Ok(Exit::Success)
}
