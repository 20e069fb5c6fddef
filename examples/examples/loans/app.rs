//! The run: import, projection and publishing side by side, then the report.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use annals::{AsOf, Clock, EventStore, ManualClock, Position, QueryReadModels, Worker};
use anyhow::{Context, anyhow, bail};
use chrono::DateTime;
use futures::TryStreamExt;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    args::Args,
    chart, generate,
    import::import,
    model::LoanApplicationEvent,
    progress::Progress,
    publish::Publishing,
    read_model::LoanApplications,
    rebuild,
    report::{self, Report, Seconds, Standing},
    rows::Rows,
    verify::Folded,
};

/// What a run led to, to be printed.
pub(crate) struct Finished {
    pub(crate) report: Report,
    /// Why not everything is published, if so.
    pub(crate) unpublished: Option<anyhow::Error>,
}

/// Imports the input, builds the read model, publishes, and looks at where things stand.
pub(crate) async fn run(args: &Args, progress: &Progress) -> anyhow::Result<Finished> {
    let rows = match &args.input {
        Some(path) => Rows::open(path)?,
        None => Rows::from_bytes(
            "the generated log",
            generate::log(generate::SEED, generate::APPLICATIONS)?,
        )?,
    };
    let url = args.database_url.as_deref().filter(|url| !url.is_empty()).context(
        "DATABASE_URL is not set; run `cargo xtask demo`, or set it to a PostgreSQL of yours",
    )?;
    let publishable = if args.reset { reset(args, url).await? } else { Ok(()) };
    // The import records each row at the row's own time. All else goes by the database's clock, so
    // that "as of" may ask for any time that is over.
    let clock = Clock::supplied(ManualClock::at(DateTime::UNIX_EPOCH));
    let importing = EventStore::options().clock(clock).connect(url).await?;
    let store = EventStore::connect(url).await?;

    let stop = CancellationToken::new();
    let worker = Worker::new(&store).projection::<LoanApplications>();
    let mut worker = tokio::spawn(worker.run_until(stop.clone()));
    let mut publishing = match publishable {
        Ok(()) if !args.no_kafka => Publishing::start(args, &store, &stop)?,
        _ => Publishing::off(),
    };

    let halfway = Arc::new(Notify::new());
    let mut rebuilding = JoinSet::new();
    if args.rebuild {
        rebuilding.spawn(rebuild::rebuild(store.clone(), halfway.clone(), progress.clone()));
    }
    let started = Instant::now();
    let imported = tokio::select! {
        imported = import(&importing, rows, progress, &halfway) => imported?,
        failed = &mut worker => return Err(ended(failed)),
        never = show(&store, progress) => match never {},
    };
    let commands = started.elapsed();
    let end = store.safe_position().await?;
    tokio::select! {
        projected = projected(&store, end, progress) => projected?,
        failed = &mut worker => return Err(ended(failed)),
    }
    let projection = started.elapsed();
    let rebuilt = tokio::select! {
        rebuilt = rebuilding.join_next() => rebuilt.transpose()?.transpose()?,
        failed = &mut worker => return Err(ended(failed)),
    };
    let unpublished = publishable.and(publishing.finish(end, progress).await).err();
    stop.cancel();
    worker.await??;
    let published = publishing.stopped().await?;
    progress.clear();

    let (events, published) = count(&store, published).await?;
    let (now, as_of) = look(&store, end, args).await?;
    if let Some(path) = &args.chart {
        chart::draw(&store, path).await?;
    }
    let report = Report {
        events,
        applications: now.applications(),
        rejected_rows: imported.rejected,
        published,
        recorded_before: imported.recorded_before,
        seconds: Seconds { commands, projection },
        rebuild: rebuilt,
        now,
        as_of,
    };
    Ok(Finished { report, unpublished })
}

/// A worker ends before it is told to only if it fails.
fn ended(
    result: Result<Result<(), annals::ProjectionError>, tokio::task::JoinError>,
) -> anyhow::Error {
    match result {
        Ok(Ok(())) => anyhow!("the projection worker ended too early"),
        Ok(Err(error)) => error.into(),
        Err(panic) => panic.into(),
    }
}

/// Removes what earlier runs have recorded: the store, the read model, and the topic. The inner
/// result is the topic's: without Kafka, all else goes on.
async fn reset(args: &Args, url: &str) -> anyhow::Result<anyhow::Result<()>> {
    let store = EventStore::connect(url).await?;
    annals::reset::<LoanApplications>(&store).await?;
    let database = store.database()?;
    let drop = database.schema().sql("drop schema {schema} cascade");
    database.client().await?.batch_execute(&drop).await.context("cannot drop the store")?;
    Ok(if args.no_kafka { Ok(()) } else { crate::publish::reset(args).await })
}

/// Shows how far projection and publishing are beside the import.
async fn show(store: &EventStore, progress: &Progress) -> Infallible {
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let end = Position::new(i64::MAX);
        let looking = store.query::<LoanApplications>().wait_for(end, Duration::ZERO).await;
        if let Err(annals::ProjectionError::TimedOut { reached, .. }) = looking {
            progress.projected(reached.get() as u64);
        }
        // Whatever fails here fails the import or the worker too, which say so.
        if let Ok(database) = store.database()
            && let Ok(published) = crate::publish::position(database).await
        {
            progress.published(published.get() as u64);
        }
    }
}

/// Waits until the read model has come to the end of the log, and shows how far it is.
async fn projected(store: &EventStore, end: Position, progress: &Progress) -> anyhow::Result<()> {
    let mut idle = Duration::ZERO;
    let mut last = Position::START;
    loop {
        let wait = Duration::from_millis(20);
        let waiting = store.query::<LoanApplications>().wait_for(end, wait);
        match waiting.await {
            Ok(()) => return Ok(()),
            Err(annals::ProjectionError::TimedOut { reached, .. }) => {
                progress.projected(reached.get() as u64);
                idle = if reached > last { Duration::ZERO } else { idle + wait };
                last = reached;
            }
            Err(error) => return Err(error.into()),
        }
        if idle > Duration::from_secs(60) {
            bail!(
                "the projection has stood at position {last} for a minute; is another run's worker stuck?"
            );
        }
    }
}

/// How many events of loan applications there are, and how many of them Kafka has.
async fn count(store: &EventStore, published: Position) -> anyhow::Result<(u64, u64)> {
    let database = store.database()?;
    let sql = database.schema().sql(
        "select count(*), count(*) filter (where e.position <= $2)
         from {schema}.events e join {schema}.streams s on s.id = e.stream_id
         where s.category = $1",
    );
    let category = <crate::model::LoanApplication as annals::Aggregate>::CATEGORY;
    // By this run or an earlier one: a publisher that stops may leave its checkpoint behind.
    let published = published.max(crate::publish::position(database).await?);
    let row = database
        .client()
        .await?
        .query_one(&sql, &[&category, &published.get()])
        .await
        .context("cannot count the events")?;
    Ok((row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64))
}

/// Where things stand, now and as of the times asked for, according to the read model.
async fn look(
    store: &EventStore,
    end: Position,
    args: &Args,
) -> anyhow::Result<(Standing, Vec<report::AsOf>)> {
    let rows = store.query::<LoanApplications>().all().await?;
    let now = rows.iter().collect();
    let mut cuts = vec![(end, rows)];
    let mut as_of = Vec::new();
    for &at in &args.as_of {
        let position = store.position_at(at).await?;
        let query = store.query::<LoanApplications>().as_of(AsOf::Position(position));
        let rows = query.all().await?;
        let standing = rows.iter().collect();
        as_of.push(report::AsOf { at, position: position.get(), standing });
        cuts.push((position, rows));
    }
    if args.verify {
        verify(store, cuts).await?;
    }
    Ok((now, as_of))
}

/// Compares the rows at each cut with the aggregates, folded from the log up to there.
async fn verify(
    store: &EventStore,
    mut cuts: Vec<(Position, Vec<LoanApplications>)>,
) -> anyhow::Result<()> {
    cuts.sort_by_key(|(position, _)| *position);
    let category = <crate::model::LoanApplication as annals::Aggregate>::CATEGORY;
    let mut events = std::pin::pin!(store.read_category(category, Position::START));
    let mut next = events.try_next().await?;
    let mut folded = Folded::default();
    let mut compared = 0;
    for (position, rows) in &cuts {
        while let Some(event) = next.take_if(|event| event.position <= *position) {
            for event in event.decode::<LoanApplicationEvent>()? {
                folded.apply(event.stream.key(), event.recorded_at, &event.event);
            }
            next = events.try_next().await?;
        }
        let differences = folded.differences(rows);
        if !differences.is_empty() {
            for difference in differences.iter().take(10) {
                eprintln!("at position {position}: {difference}");
            }
            bail!("the read model differs from the log in {} places", differences.len());
        }
        compared += folded.len();
    }
    eprintln!("verified: {compared} rows at {} moments equal the fold of the log", cuts.len());
    Ok(())
}
