//! What else depends on the tables of a read model, so that a swap can take it along.

use annals_eventstore::postgres::Client;

use crate::{
    engine::failed,
    error::Error,
    read_model::{History, ReadModel},
    table::Table,
};

const VIEWS: &str = include_str!("../sql/views.sql");
/// Names are told with their schemas then.
const WHOLE_NAMES: &str = "set local search_path = pg_catalog";
const AS_BEFORE: &str = "set local search_path = default";

/// What a swap drops and makes anew, on the tables that bear the names then.
pub(super) struct Dependents {
    pub(super) drop: String,
    /// With all grants, also those on the new tables and on functions.
    pub(super) create: String,
}

impl Dependents {
    /// The views on them, first those that are built on others.
    pub(super) async fn views<R: ReadModel>(
        client: &Client,
        live: &Table,
    ) -> Result<Vec<String>, Error> {
        let failed = || failed::<R>("look for views");
        client.batch_execute(WHOLE_NAMES).await.map_err(failed())?;
        let views = client.query(VIEWS, &[&live.name, &live.history]).await.map_err(failed())?;
        client.batch_execute(AS_BEFORE).await.map_err(failed())?;
        Ok(views.iter().rev().map(|view| view.get(0)).collect())
    }

    /// Finds them, and gives those who may use the table in use the same rights to the new one, and to its
    /// history. `kept` says whether there is a history now.
    pub(super) async fn of<R: ReadModel>(
        client: &Client,
        live: &Table,
        new: &Table,
        kept: bool,
    ) -> Result<Self, Error> {
        let failed = || failed::<R>("look for what depends on the tables");
        let copy = |from: &str, to: &str| {
            include_str!("../sql/copy_grants.sql").replace("{from}", from).replace("{to}", to)
        };
        let mut prepare = format!("{}; {WHOLE_NAMES};", copy(&live.name, &new.name));
        if R::HISTORY == History::Kept {
            // Who reads rows reads what they were, if nothing is said of it.
            let from = if kept { &live.history } else { &live.name };
            prepare += &copy(from, &new.history);
        }
        client.batch_execute(&prepare).await.map_err(failed())?;
        let tables: &[&(dyn tokio_postgres::types::ToSql + Sync)] = &[&live.name, &live.history];
        let in_the_way = client.query(include_str!("../sql/in_the_way.sql"), tables).await;
        if let Some(object) = in_the_way.map_err(failed())?.first() {
            return Err(Error::InTheWay { projection: R::TABLE, object: object.get(0) });
        }
        let views = client.query(VIEWS, tables).await.map_err(failed())?;
        let functions = include_str!("../sql/function_grants.sql");
        let functions = client.query(functions, &[&live.name]).await.map_err(failed())?;
        let as_before = client.batch_execute(AS_BEFORE).await;
        as_before.map_err(failed())?;
        let drop = views.iter().rev().map(|view| format!("drop view {};", view.get::<_, &str>(0)));
        let created = views.iter().map(|view| view.get::<_, String>(1));
        let granted = functions.iter().map(|grant| grant.get::<_, String>(0));
        Ok(Self { drop: drop.collect(), create: granted.chain(created).collect() })
    }
}
