//! Where the store is.

use clap::Args;

use super::{App, Failure};
use crate::{EventStore, Options};

#[derive(Debug, Args)]
pub(super) struct Database {
    /// Where PostgreSQL is: postgres://USER:PASSWORD@HOST:PORT/DATABASE
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,

    #[command(flatten)]
    schema: Schema,
}

#[derive(Debug, Args)]
pub(super) struct Schema {
    /// The schema of the store's tables, where it is not the program's own
    #[arg(long, value_name = "SCHEMA")]
    schema: Option<String>,
}

impl Database {
    /// Opens the store. It must be there: who looks at one does not mean to create it.
    pub(super) async fn open(&self, app: &App) -> Result<EventStore, Failure> {
        let url = self.database_url.as_deref().filter(|url| !url.is_empty()).ok_or_else(|| {
            Failure(
                "DATABASE_URL is not set; set it, or give --database-url \
                 postgres://USER@HOST:PORT/DATABASE"
                    .to_owned(),
            )
        })?;
        Ok(self.schema.options(app).without_migrating().connect(url).await?)
    }
}

impl Schema {
    /// How the program opens its store, in this schema.
    pub(super) fn options(&self, app: &App) -> Options {
        let options = app.options.clone();
        match &self.schema {
            Some(schema) => options.schema(schema),
            None => options,
        }
    }
}
