//! The database of a service that follows another service's events.

use annals_eventstore::{Position, postgres::Database};

use super::{Log, Projection};
use crate::{error::Error, kafka, start::Start};

/// Makes sure that the positions in a database are those of one log: the store's own, or that of one other service.
///
/// # Errors
/// [`Error::MixedLogs`], or a failure of the database.
pub(super) async fn check(
    database: &Database,
    log: Log,
    topics: Option<&kafka::Source>,
) -> Result<(), Error> {
    let failed = |source| Error::Bookkeeping { action: "see whose log is followed", source };
    let schema = database.schema();
    let client = database.client().await?;
    let look =
        schema.sql("select {schema}.last_position(), (select context from {schema}.foreign_log)");
    let wanted = topics.filter(|_| log == Log::Foreign).map(kafka::Source::context);
    let row = client.query_one(&look, &[]).await.map_err(failed)?;
    let (last, mut found): (i64, Option<String>) = (row.get(0), row.get(1));
    if let (Some(context), 0, None) = (wanted, last, &found) {
        let note = schema
            .sql("insert into {schema}.foreign_log (context) values ($1) on conflict do nothing");
        client.execute(&note, &[&context]).await.map_err(failed)?;
        let row = client.query_one(&look, &[]).await.map_err(failed)?;
        found = row.get(1);
    }
    if found.as_deref() == wanted {
        return Ok(());
    }
    Err(Error::MixedLogs {
        schema: schema.name().to_owned(),
        found,
        wanted: wanted.map(Into::into),
    })
}

/// The position after which a projection is to start in another service's log.
///
/// # Errors
/// [`Error::NoTimes`], or what Kafka fails with.
pub(super) async fn resolve(
    topics: &kafka::Source,
    projection: &dyn Projection,
    start: Start,
) -> Result<Position, Error> {
    match start {
        Start::Beginning => Ok(Position::START),
        Start::Position(position) => Ok(position),
        Start::Time(_) => Err(Error::NoTimes { projection: projection.label().to_owned() }),
        Start::End => {
            let mut subscription =
                topics.subscribe(projection.categories().to_vec()).start(kafka::Start::Latest);
            let mut status = subscription.status();
            let known = status.wait_for(|status| {
                status.published > Position::START || status.state == kafka::FeedState::Ended
            });
            match known.await.map(|status| status.published) {
                Ok(published) if published > Position::START => Ok(published),
                _ => match subscription.next().await {
                    // Nothing was ever published: all is still to come.
                    Err(kafka::FeedError::NotPublished { .. }) => Ok(Position::START),
                    Err(error) => Err(error.into()),
                    Ok(page) => Ok(page.end),
                },
            }
        }
    }
}
