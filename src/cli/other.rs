//! A projection that a command line knows and that is no read model: one in SQL, a reactor, a saga.

use std::{fmt, sync::Arc};

use super::{App, Failure, projection::Doing};
use crate::{EventStore, Saga, SqlProjection, control::Kind, reset_sql};

/// What can be done with one.
#[derive(Clone)]
pub(super) struct Other {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) version: u32,
    /// `None` if what it has done cannot be done anew.
    reset: Option<Reset>,
}

pub(super) type Reset = Arc<dyn Fn(EventStore) -> Doing<'static, ()> + Send + Sync>;

impl fmt::Debug for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, version, .. } = self;
        write!(f, "Other({kind:?} {name:?}, version {version})")
    }
}

impl Other {
    pub(super) fn sql(projection: impl SqlProjection) -> Self {
        let (name, version) = (projection.name().to_owned(), projection.version());
        let projection = Arc::new(projection);
        let reset: Reset = Arc::new(move |store| {
            let projection = projection.clone();
            Box::pin(async move { reset_sql(&store, &*projection).await })
        });
        Self { name, kind: Kind::Sql, version, reset: Some(reset) }
    }

    pub(super) fn reactor(name: String) -> Self {
        Self { name, kind: Kind::Reactor, version: 1, reset: None }
    }

    pub(super) fn saga<S: Saga>() -> Self {
        Self { name: S::CATEGORY.to_owned(), kind: Kind::Saga, version: 1, reset: None }
    }

    /// How it is taken away, for a worker to build it anew.
    pub(super) fn reset(&self) -> Result<Reset, Failure> {
        self.reset.clone().ok_or_else(|| self.never_anew())
    }

    /// Why it is not rebuilt.
    pub(super) fn not_rebuilt(&self) -> Failure {
        let name = &self.name;
        match self.kind {
            Kind::Sql => Failure(format!(
                "{name} is a projection in SQL, which is built anew in its place and not beside it: \
                 `reset {name}` takes away what it has made, and a worker builds it"
            )),
            _ => self.never_anew(),
        }
    }

    fn never_anew(&self) -> Failure {
        let Self { name, kind, .. } = self;
        Failure(format!(
            "{name} is {}: what it has done outside of the database cannot be taken back, and would be \
             done again",
            with_article(*kind)
        ))
    }
}

impl App {
    /// The projection of this name, if the program has one that is no read model.
    pub(super) fn other(&self, name: &str) -> Option<&Other> {
        self.others.iter().find(|other| other.name == name)
    }

    pub(super) fn has_read_model(&self, name: &str) -> bool {
        self.projections.iter().any(|known| known.table == name)
    }

    /// The projections of all kinds: their names, kinds and versions.
    pub(super) fn all_projections(&self) -> impl Iterator<Item = (&str, Kind, u32)> {
        let read_models = self.projections.iter();
        let read_models = read_models.map(|known| (known.table, Kind::Rows, known.version));
        read_models
            .chain(self.others.iter().map(|other| (other.name.as_str(), other.kind, other.version)))
    }
}

/// A kind, for people.
pub(super) fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Rows => "read model",
        Kind::Sql => "SQL",
        Kind::Reactor => "reactor",
        Kind::Saga => "saga",
        _ => "other",
    }
}

pub(super) fn with_article(kind: Kind) -> &'static str {
    match kind {
        Kind::Rows => "a read model",
        Kind::Sql => "a projection in SQL",
        Kind::Reactor => "a reactor",
        Kind::Saga => "a saga",
        _ => "another kind of projection",
    }
}
