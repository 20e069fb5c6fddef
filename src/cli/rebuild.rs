//! `rebuild`: a read model is built anew, beside the one that is in use.

mod show;

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::ProgressBar;

use self::show::Outcome;
use super::{
    App, Exit, Failure,
    database::Database,
    output::{Bar, Output},
    projection::{Projection, Rebuilds, known, must_have_begun},
};
use crate::{EventStore, Phase, Progress, ProjectionError, ReadModel, Rebuild};

/// Builds a read model anew from the log, beside the one in use, and puts it into its place
///
/// Readers and workers go on meanwhile, and see the new one from one moment to the next. The old one is kept
/// for --rollback. What was built stays when it is stopped, and the same command goes on with it.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 if it was done; 2 if --compare found differences, or streams are parked \
                  since an event of theirs failed; 1 if it could not be done; 130 if Ctrl-C stopped it."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    database: Database,

    /// The read model: the name of its table
    projection: String,

    #[command(flatten)]
    task: Tasks,

    /// Reads so many events per second at most
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["rollback", "discard"])]
    events_per_second: Option<NonZeroU32>,

    /// Folds rows in so many parts at a time: half as many as there are processors unless set, and at most 3
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["rollback", "discard"])]
    shards: Option<NonZeroUsize>,

    /// How to print the outcome
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
struct Tasks {
    /// Builds, compares each row with the one in use, prints what differs, and leaves it at that
    #[arg(long)]
    compare: bool,

    /// With --compare: puts it into its place if nothing differs. Without, that is done anyway
    #[arg(long)]
    swap: bool,

    /// Puts the read model back that was replaced last. Once more undoes it
    #[arg(long, conflicts_with_all = ["compare", "swap", "discard"])]
    rollback: bool,

    /// Drops what was built and not put into its place, and what was replaced
    #[arg(long, conflicts_with_all = ["compare", "swap"])]
    discard: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Build(Compare),
    Rollback,
    Discard,
}

/// Whether it is compared before it is put into its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Not,
    /// And that is all.
    Only,
    /// It is put into its place only if nothing differs.
    First,
}

impl Tasks {
    fn task(&self) -> Task {
        match self {
            Self { rollback: true, .. } => Task::Rollback,
            Self { discard: true, .. } => Task::Discard,
            Self { compare: false, .. } => Task::Build(Compare::Not),
            Self { swap: false, .. } => Task::Build(Compare::Only),
            Self { swap: true, .. } => Task::Build(Compare::First),
        }
    }
}

/// How a read model is rebuilt, whatever its type.
#[derive(Clone, Debug)]
pub(super) struct Rebuilding {
    events_per_second: Option<NonZeroU32>,
    shards: Option<NonZeroUsize>,
    bar: ProgressBar,
    phase: Arc<Mutex<Phase>>,
}

impl Rebuilding {
    pub(super) fn new(
        events_per_second: Option<NonZeroU32>,
        shards: Option<NonZeroUsize>,
        bar: &Bar,
    ) -> Self {
        Self { events_per_second, shards, bar: bar.handle(), phase: Arc::default() }
    }

    pub(super) fn of<R: ReadModel>(&self, store: &EventStore) -> Rebuild<R> {
        let (bar, seen) = (self.bar.clone(), self.phase.clone());
        let mut rebuild = Rebuild::<R>::of(store).on_progress(move |progress| {
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = progress.phase;
            draw(&bar, &progress);
        });
        if let Some(events) = self.events_per_second {
            rebuild = rebuild.events_per_second(events.get());
        }
        if let Some(shards) = self.shards {
            rebuild = rebuild.shards(shards.get());
        }
        rebuild
    }

    /// Whether it has come to the point at which the tables are replaced.
    fn is_swapping(&self) -> bool {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) == Phase::Swapping
    }
}

fn draw(bar: &ProgressBar, progress: &Progress) {
    bar.set_prefix(progress.phase.to_string());
    bar.set_length(progress.end.get().unsigned_abs());
    bar.set_position(progress.position.get().unsigned_abs());
    let eta = progress.eta.map(|eta| format!(", {} s to go", eta.as_secs()));
    bar.set_message(format!("{:.0} events/s{}", progress.rate, eta.unwrap_or_default()));
}

/// Runs it, and looks after Ctrl-C by itself: where the tables are being replaced, it waits for that.
pub(super) async fn run(app: &App, arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { database, projection, task, events_per_second, shards, output } = arguments;
    let task = task.task();
    let bar = Bar::of_phases();
    let rebuilding = Rebuilding::new(events_per_second, shards, &bar);
    let running = async {
        if let Some(other) = app.other(&projection) {
            return Err(other.not_rebuilt());
        }
        let known = known(app, &projection)?;
        let store = database.open(app).await?;
        if matches!(task, Task::Build(Compare::Only | Compare::First)) {
            // There must be something to compare with, which is known before it takes long.
            must_have_begun(app, &store, &projection).await?;
        }
        let rebuild = (known.rebuild)(&store, &rebuilding);
        let outcome = carry_out(known, &*rebuild, task).await?;
        store.close().await;
        Ok(outcome)
    };
    let mut running = std::pin::pin!(running);
    let mut stopped = Stopped::No;
    let outcome: Result<Outcome, Failure> = loop {
        tokio::select! {
            outcome = &mut running => break outcome,
            Ok(()) = tokio::signal::ctrl_c() => {
                let builds = matches!(task, Task::Build(_));
                stopped = match stopped {
                    Stopped::No if builds && !rebuilding.is_swapping() => Stopped::Building,
                    Stopped::No => Stopped::Waiting,
                    _ => Stopped::Twice,
                };
                if stopped != Stopped::Waiting {
                    drop(bar);
                    eprintln!("{}", stopped.words(&projection));
                    return Ok(Exit::Interrupted);
                }
            }
        }
    };
    drop(bar);
    let outcome = outcome?;
    outcome.print(output)?;
    Ok(if outcome.is_well() { Exit::Success } else { Exit::Findings })
}

/// Whether, and at what, Ctrl-C has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    No,
    Building,
    /// For what takes a moment and is done or not.
    Waiting,
    Twice,
}

impl Stopped {
    fn words(self, projection: &str) -> String {
        match self {
            Self::Building => format!(
                "stopped; {projection} is as it was, and what was built stays: the same command goes on \
                 with it, `rebuild {projection} --discard` drops it"
            ),
            _ => format!(
                "stopped; whether the tables of {projection} were replaced is not known: the next \
                 rebuild finds them as they are"
            ),
        }
    }
}

async fn carry_out(
    known: &Projection,
    rebuild: &dyn Rebuilds,
    task: Task,
) -> Result<Outcome, ProjectionError> {
    let mut outcome = Outcome::new(*known);
    match task {
        Task::Rollback => {
            patiently(|| rebuild.rollback()).await?;
            outcome.rolled_back = true;
        }
        Task::Discard => {
            patiently(|| rebuild.discard()).await?;
            outcome.discarded = true;
        }
        Task::Build(compare) => {
            let started = Instant::now();
            outcome.built = Some(patiently(|| rebuild.build()).await?);
            outcome.took = started.elapsed();
            if compare != Compare::Not {
                outcome.comparison = Some(rebuild.compare().await?);
            }
            if compare != Compare::Only && outcome.is_same() {
                rebuild.swap().await?;
                outcome.swapped = true;
            }
        }
    }
    Ok(outcome)
}

/// Somebody who was stopped holds the lease for a few seconds more.
pub(super) async fn patiently<'a, T>(
    mut attempt: impl FnMut() -> super::projection::Doing<'a, T>,
) -> Result<T, ProjectionError> {
    let started = Instant::now();
    loop {
        match attempt().await {
            Err(ProjectionError::RebuildRuns { .. }) if started.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Longer than a lease lasts.
const PATIENCE: Duration = Duration::from_secs(7);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_what_is_to_be_done() {
        let task = |[compare, swap, rollback, discard]: [bool; 4]| {
            Tasks { compare, swap, rollback, discard }.task()
        };
        assert_eq!(task([false; 4]), Task::Build(Compare::Not));
        assert_eq!(task([false, true, false, false]), Task::Build(Compare::Not));
        assert_eq!(task([true, false, false, false]), Task::Build(Compare::Only));
        assert_eq!(task([true, true, false, false]), Task::Build(Compare::First));
        assert_eq!(task([false, false, true, false]), Task::Rollback);
        assert_eq!(task([false, false, false, true]), Task::Discard);
    }
}
