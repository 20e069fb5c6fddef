//! What else depends on the tables of a read model, so that a swap can take it along.

use annals_eventstore::postgres::Client;
use tokio_postgres::Row;

use crate::{engine::failed, error::Error, read_model::ReadModel, table::Table};

/// Views on the tables of a read model, and views on these.
pub(super) struct Views(Vec<View>);

struct View {
    name: String,
    /// What creates it, with its grants.
    create: String,
}

impl Views {
    /// Finds them, in the order in which they depend on each other.
    pub(super) async fn of<R: ReadModel>(client: &Client, table: &Table) -> Result<Self, Error> {
        // Names in definitions are whole then.
        let plain = "set local search_path = pg_catalog";
        client.batch_execute(plain).await.map_err(failed::<R>("look for views"))?;
        let sql = include_str!("../sql/views.sql");
        let rows = client.query(sql, &[&table.name, &table.history]).await;
        let rows = rows.map_err(failed::<R>("look for views"))?;
        let of = |row: &Row| View { name: row.get(0), create: row.get(2) };
        match rows.iter().find(|row| row.get::<_, &str>(1) != "v") {
            Some(row) => {
                let (projection, object) = (R::TABLE, row.get(0));
                Err(Error::InTheWay { projection, object })
            }
            None => Ok(Self(rows.iter().map(of).collect())),
        }
    }

    pub(super) async fn drop<R: ReadModel>(&self, client: &Client) -> Result<(), Error> {
        for View { name, .. } in self.0.iter().rev() {
            let drop = format!("drop view {name}");
            client.batch_execute(&drop).await.map_err(failed::<R>("take views along"))?;
        }
        Ok(())
    }

    /// Makes them anew, on the tables that bear the names now.
    pub(super) async fn create<R: ReadModel>(&self, client: &Client) -> Result<(), Error> {
        for View { create, .. } in &self.0 {
            client.batch_execute(create).await.map_err(failed::<R>("take views along"))?;
        }
        Ok(())
    }
}
