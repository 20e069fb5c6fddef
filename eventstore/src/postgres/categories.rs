//! Which categories there are.

use super::{Database, database_error};
use crate::error::Error;

impl Database {
    /// The categories of the streams that there are.
    ///
    /// # Errors
    /// If the database fails.
    pub(crate) async fn categories(&self) -> Result<Vec<String>, Error> {
        let sql = self.schema().sql(include_str!("sql/categories.sql"));
        let rows = self.client().await?.query(&sql, &[]).await;
        let rows = rows.map_err(|error| database_error("look up the categories", error))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
