//! Standing for election, and who was elected.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Leadership;
use crate::{
    error::{Error, chain},
    postgres::{Asked, Database, Lease, LeaseOptions, database_error},
    store::EventStore,
};

/// What the names of elections begin with, so that they are no other leases'.
const PREFIX: &str = "election:";

/// How long to wait at least, and at most, before asking for the lease again.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// Something that one process at a time does, by its name.
///
/// Elections of one name in one store are the same, whichever process they are in. Clones are too.
#[derive(Clone, Debug)]
pub struct Election {
    database: Database,
    name: String,
    options: LeaseOptions,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// The name of the election.
    pub election: String,
    /// Where it is, as `host:process:number`.
    pub owner: String,
    /// The epoch of its leadership.
    pub epoch: i64,
    /// For how long it leads at least, unless it resigns.
    pub left: Duration,
}

impl Election {
    /// An election of this name, held in the database of a store. Its role needs to hold leases, as that of projectors
    /// does.
    ///
    /// # Errors
    /// [`Error::NeedsPostgres`] if the store is in memory.
    pub fn new(store: &EventStore, name: impl Into<String>) -> Result<Self, Error> {
        let (database, name) = (store.database()?.clone(), name.into());
        Ok(Self { database, name, options: LeaseOptions::default() })
    }

    /// How the lease is held: for 5 seconds without renewal unless set. A leader that dies is replaced after this
    /// time.
    #[must_use]
    pub fn lease(mut self, options: LeaseOptions) -> Self {
        self.options = options;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until this process leads. Failures that may pass are waited out.
    ///
    /// Of those who wait, any may be next. Cancellation safe, but for one thing: if the future is dropped at the moment
    /// at which the lease is granted, nobody leads until that ends.
    ///
    /// # Errors
    /// What does not pass: [`Error::Closed`], or rights that are missing.
    pub async fn campaign(&self) -> Result<Leadership, Error> {
        let shortest = (self.options.time_to_live / 10).clamp(SHORTEST, LONGEST);
        loop {
            // A network that swallows everything is no reason to wait for ever.
            let asked = timeout(self.options.time_to_live.max(LONGEST), self.ask()).await;
            let pause = match asked {
                Ok(Ok(Asked::Taken(lease))) => return Ok(Leadership::begin(self, lease)),
                // It may resign any time, or end.
                Ok(Ok(Asked::Held { left })) => left.clamp(SHORTEST, shortest),
                Ok(Err(error)) if error.is_retryable() => {
                    let election = &self.name;
                    tracing::debug!(election, error = chain(&error), "cannot campaign");
                    shortest
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => shortest,
            };
            sleep(pause).await;
        }
    }

    /// The same without waiting: `None` if another leads.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn try_campaign(&self) -> Result<Option<Leadership>, Error> {
        Ok(match self.ask().await? {
            Asked::Taken(lease) => Some(Leadership::begin(self, lease)),
            Asked::Held { .. } => None,
        })
    }

    async fn ask(&self) -> Result<Asked, Error> {
        let name = format!("{PREFIX}{}", self.name);
        Lease::ask(&self.database, &name, self.options).await
    }

    /// Who leads at the moment; `None` if nobody does.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn leader(&self) -> Result<Option<Leader>, Error> {
        let leading = of(&self.database).await?;
        Ok(leading.into_iter().find(|leader| leader.election == self.name))
    }
}

/// Who leads at the moment, of all elections of a store, in the order of their names.
///
/// # Errors
/// [`Error::NeedsPostgres`] if the store is in memory, or if the database fails.
pub async fn leaders(store: &EventStore) -> Result<Vec<Leader>, Error> {
    of(store.database()?).await
}

async fn of(database: &Database) -> Result<Vec<Leader>, Error> {
    let failed = |error| database_error("look who leads", error);
    let sql = database.schema().sql(
        "select name, owner, epoch, extract(epoch from expires_at - clock_timestamp())::float8
         from {schema}.leases
         where starts_with(name, $1) and expires_at > clock_timestamp()
         order by name",
    );
    let rows = database.client().await?.query(&sql, &[&PREFIX]).await.map_err(failed)?;
    let leader = |row: &tokio_postgres::Row| Leader {
        election: row.get::<_, &str>(0)[PREFIX.len()..].to_owned(),
        owner: row.get(1),
        epoch: row.get(2),
        left: Duration::try_from_secs_f64(row.get(3)).unwrap_or_default(),
    };
    Ok(rows.iter().map(leader).collect())
}
