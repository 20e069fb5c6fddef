//! One look at all readers of the log.

use std::{collections::HashMap, time::Instant};

use super::EventStore;
use crate::{
    Position,
    cli::{App, Failure, other::with_article, time::shown},
    control::{self, Kind, ProjectionStatus, State},
    leader::{Leader, leaders},
};

/// All readers of the log at one moment.
#[derive(Debug)]
pub(super) struct Look {
    at: Instant,
    pub(super) schema: String,
    /// The end of what can be read.
    pub(super) position: Position,
    pub(super) projections: Vec<Seen>,
    pub(super) readers: Vec<Reader>,
    pub(super) leaders: Vec<Leader>,
}

/// A projection: of the store, of the program, or of both.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    /// `None` if no worker has begun with it.
    pub(super) status: Option<ProjectionStatus>,
    /// What the program knows it as, if it has it, and the version of its code.
    pub(super) program: Option<(Kind, u32)>,
}

/// Another reader: a publisher, or a rebuild.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) name: String,
    pub(super) position: Position,
    pub(super) owner: Option<String>,
}

pub(super) async fn look(app: &App, store: &EventStore) -> Result<Look, Failure> {
    let database = store.database()?;
    let sql = database.schema().sql(include_str!("readers.sql"));
    let rows = database.client().await?.query(&sql, &[]).await?;
    let readers = rows.iter().map(|row| Reader {
        name: row.get(0),
        position: Position::new(row.get(1)),
        owner: row.get(2),
    });
    let readers = readers.collect();
    let program = |name: &str| {
        let known = app.all_projections().find(|(known, ..)| *known == name);
        known.map(|(_, kind, version)| (kind, version))
    };
    let seen = control::status(store).await?.into_iter().map(|status| Seen {
        name: status.name.clone(),
        program: program(&status.name),
        status: Some(status),
    });
    let mut projections: Vec<_> = seen.collect();
    for (name, kind, version) in app.all_projections() {
        if !projections.iter().any(|seen| seen.name == name) {
            let (name, program) = (name.to_owned(), Some((kind, version)));
            projections.push(Seen { name, status: None, program });
        }
    }
    projections.sort_by(|a, b| a.name.cmp(&b.name));
    let leaders = leaders(store).await?;
    // Last, so that nobody is ahead of it.
    let position = store.safe_position().await?;
    let schema = database.schema().name().to_owned();
    Ok(Look { at: Instant::now(), schema, position, projections, readers, leaders })
}

impl Look {
    pub(super) fn is_well(&self) -> bool {
        self.projections.iter().all(|seen| seen.complaints().is_empty())
    }
}

impl Seen {
    pub(super) fn kind(&self) -> Option<Kind> {
        let in_store = self.status.as_ref().map(|status| status.kind);
        in_store.or(self.program.map(|(kind, _)| kind))
    }

    pub(super) fn program_version(&self) -> Option<u32> {
        self.program.map(|(_, version)| version)
    }

    /// How many positions of the log are behind it. Where it is to begin that has not, is known of what is built
    /// from the first event on.
    pub(super) fn behind(&self, end: Position) -> Option<u64> {
        match (&self.status, self.kind()) {
            (Some(status), _) => Some(status.behind),
            (None, Some(Kind::Rows | Kind::Sql)) => Some(end.get().unsigned_abs()),
            (None, _) => None,
        }
    }

    /// What is wrong with it.
    pub(super) fn complaints(&self) -> Vec<String> {
        let Self { name, status, .. } = self;
        let Some(status) = status else {
            return vec![format!("{name}: no worker has begun with it")];
        };
        let mut complaints = Vec::new();
        if let Some((kind, _)) = self.program.filter(|(kind, _)| *kind != status.kind) {
            let (is, should_be) = (with_article(status.kind), with_article(kind));
            complaints
                .push(format!("{name} is {is} in this store, and {should_be} in this program"));
        }
        match &status.state {
            State::Paused(reason) => complaints.push(format!("{name} is paused: {reason}")),
            State::Broken { reason, until } => complaints
                .push(format!("{name}: its circuit is open until {}: {reason}", shown(*until))),
            State::Stopped if status.slices.len() > 1 => {
                let free = status.slices.iter().filter(|slice| slice.owner.is_none()).count();
                complaints.push(format!(
                    "{name}: {free} of {} slices have no worker",
                    status.slices.len()
                ));
            }
            State::Stopped => complaints.push(format!("{name} has no worker")),
            _ => {}
        }
        match status.parked {
            0 => {}
            1 => complaints.push(format!("{name}: 1 stream is parked; see `parked list {name}`")),
            many => complaints
                .push(format!("{name}: {many} streams are parked; see `parked list {name}`")),
        }
        complaints
    }
}

/// How fast projections move, from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Rates {
    last: Option<(Instant, HashMap<String, Position>)>,
}

impl Rates {
    /// Positions per second since the last look, of those that were there. One that was rolled back
    /// or begun anew has none.
    pub(super) fn of(&mut self, look: &Look) -> HashMap<String, f64> {
        let places = look.projections.iter().filter_map(|seen| {
            let status = seen.status.as_ref()?;
            Some((seen.name.clone(), status.position))
        });
        let places: HashMap<_, _> = places.collect();
        let Some((at, before)) = self.last.replace((look.at, places.clone())) else {
            return HashMap::new();
        };
        let seconds = (look.at - at).as_secs_f64();
        let moved = places.into_iter().filter_map(|(name, position)| {
            let moved = position.get() - before.get(&name)?.get();
            (moved >= 0 && seconds > 0.0).then(|| (name, moved as f64 / seconds))
        });
        moved.collect()
    }
}
