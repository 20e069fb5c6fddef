//! A read model that a command line knows, whatever its type, and how projections are found by name.

use std::{any::TypeId, collections::BTreeSet, pin::Pin};

use super::{App, Failure, other::with_article, rebuild::Rebuilding};
use crate::{
    AsOf, Built, ColumnDef, Comparison, EventStore, History, Position, ProjectionError, ReadModel,
    Rebuild, control, postgres::Schema,
};

/// What can be done with a read model of the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Projection {
    id: TypeId,
    /// Its table, and its name.
    pub(super) table: &'static str,
    pub(super) history: History,
    pub(super) version: u32,
    pub(super) columns: &'static [ColumnDef],
    pub(super) ddl: fn(&Schema, &Schema) -> String,
    pub(super) reset: fn(EventStore) -> Doing<'static, ()>,
    pub(super) forget: fn(EventStore, Position) -> Doing<'static, u64>,
    pub(super) rebuild: fn(&EventStore, &Rebuilding) -> Box<dyn Rebuilds>,
}

/// What is on its way.
pub(super) type Doing<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, ProjectionError>> + Send + 'a>>;

/// A [`Rebuild`] of any read model.
pub(super) trait Rebuilds: Send + Sync {
    fn build(&self) -> Doing<'_, Built>;
    fn compare(&self) -> Doing<'_, Comparison>;
    fn swap(&self) -> Doing<'_, ()>;
    fn rollback(&self) -> Doing<'_, ()>;
    fn discard(&self) -> Doing<'_, ()>;
    fn replay_to(&self, moment: AsOf) -> Doing<'_, Seen>;
    fn discard_replayed(&self) -> Doing<'_, ()>;
}

/// A read model as it was.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) position: Position,
    pub(super) rows: u64,
    pub(super) parked: u64,
    /// Its table, for SQL.
    pub(super) table: String,
}

impl<R: ReadModel> Rebuilds for Rebuild<R> {
    fn build(&self) -> Doing<'_, Built> {
        Box::pin(self.build())
    }

    fn compare(&self) -> Doing<'_, Comparison> {
        Box::pin(self.compare())
    }

    fn swap(&self) -> Doing<'_, ()> {
        Box::pin(self.swap())
    }

    fn rollback(&self) -> Doing<'_, ()> {
        Box::pin(self.rollback())
    }

    fn discard(&self) -> Doing<'_, ()> {
        Box::pin(self.discard())
    }

    fn replay_to(&self, moment: AsOf) -> Doing<'_, Seen> {
        Box::pin(async move {
            let then = self.replay_to(moment).await?;
            let rows = then.query().count().await?;
            Ok(Seen { position: then.position(), rows, parked: then.parked(), table: then.table() })
        })
    }

    fn discard_replayed(&self) -> Doing<'_, ()> {
        Box::pin(self.discard_replayed())
    }
}

impl Projection {
    pub(super) fn of<R: ReadModel>() -> Self {
        Self {
            id: TypeId::of::<R>(),
            table: R::TABLE,
            history: R::HISTORY,
            version: R::VERSION,
            columns: R::COLUMNS,
            ddl: crate::ddl::<R>,
            reset: |store| Box::pin(async move { crate::reset::<R>(&store).await }),
            forget: |store, before| {
                Box::pin(
                    async move { crate::forget_history::<R>(&store, AsOf::Position(before)).await },
                )
            },
            rebuild: |store, rebuilding| Box::new(rebuilding.of::<R>(store)),
        }
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// The columns of its key.
    pub(super) fn key(&self) -> impl Iterator<Item = &'static ColumnDef> {
        self.columns.iter().filter(|column| column.key)
    }
}

/// The read model of this name, which the program must have.
pub(super) fn known<'a>(app: &'a App, name: &str) -> Result<&'a Projection, Failure> {
    let found = app.projections.iter().find(|projection| projection.table == name);
    found.ok_or_else(|| {
        if let Some(other) = app.other(name) {
            let kind = with_article(other.kind);
            return Failure(format!("{name} is {kind}; this is for read models"));
        }
        let names: BTreeSet<_> = app.projections.iter().map(|known| known.table).collect();
        Failure(match names.len() {
            0 => "this program has no read models; add them with App::new().projection::<..>()"
                .to_owned(),
            _ => format!("this program has no read model {name:?}; it has {}", list(names)),
        })
    })
}

/// That there is a projection of this name in the store, or the program has it.
pub(super) async fn must_exist(
    app: &App,
    store: &EventStore,
    name: &str,
) -> Result<Option<control::ProjectionStatus>, Failure> {
    let mut all = control::status(store).await?;
    if let Some(index) = all.iter().position(|status| status.name == name) {
        return Ok(Some(all.swap_remove(index)));
    }
    let known: Vec<_> = app.all_projections().map(|(known, ..)| known).collect();
    if known.contains(&name) {
        return Ok(None);
    }
    let names: BTreeSet<_> = all.iter().map(|status| &*status.name).chain(known).collect();
    Err(Failure(match names.len() {
        0 => format!("there is no projection {name:?}, nor any other"),
        _ => format!("there is no projection {name:?}; there are {}", list(names)),
    }))
}

/// As [`must_exist`], and that a worker has begun with it.
pub(super) async fn must_have_begun(
    app: &App,
    store: &EventStore,
    name: &str,
) -> Result<control::ProjectionStatus, Failure> {
    must_exist(app, store, name).await?.ok_or_else(|| {
        Failure(format!("no worker has begun with the projection {name:?} in this store yet"))
    })
}

/// That the program has no projection of this name.
pub(super) fn unknown(app: &App, name: &str) -> Failure {
    let names: BTreeSet<_> = app.all_projections().map(|(known, ..)| known).collect();
    Failure(format!("this program has no projection {name:?}; it has {}", list(names)))
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}
