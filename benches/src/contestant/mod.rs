//! Those who run: each executes the same commands on the same domain, as its documentation says.

pub(crate) mod annals;
#[cfg(feature = "compare")]
mod cqrs_es;
#[cfg(feature = "compare")]
mod disintegrate;
#[cfg(feature = "compare")]
mod esrs;
#[cfg(feature = "compare")]
mod eventastic;

use anyhow::Result;
use async_trait::async_trait;
use uuid::Uuid;

pub(crate) use self::annals::{Account, Annals};
use crate::{bank::Action, server::Server};

/// One who runs.
#[async_trait]
pub(crate) trait Contestant: Send + Sync {
    /// The name and the version of the crate, and how it connects.
    fn about(&self) -> About;

    /// Loads the account, decides, and records the event.
    async fn execute(&self, account: Uuid, action: Action) -> Result<()>;

    /// Loads the account and returns its balance.
    async fn balance(&self, account: Uuid) -> Result<Option<i64>>;
}

/// What the report says of a contestant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) setup: &'static str,
}

/// Whether Annals runs alone, as a profile needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alone {
    Yes,
    No,
}

/// Annals first, then the others, each in a database of its own.
/// `alone` leaves the others out.
pub(crate) async fn all(server: &Server, alone: Alone) -> Result<Vec<Box<dyn Contestant>>> {
    #[cfg_attr(not(feature = "compare"), expect(unused_mut))]
    let mut all: Vec<Box<dyn Contestant>> =
        vec![Box::new(Annals::connect(&server.database("annals").await?).await?)];
    #[cfg(feature = "compare")]
    if alone == Alone::No {
        let url = async |name| server.database(name).await;
        all.push(Box::new(cqrs_es::CqrsEs::connect(&url("cqrs_es").await?).await?));
        all.push(Box::new(esrs::Esrs::connect(&url("esrs").await?).await?));
        all.push(Box::new(eventastic::Eventastic::connect(&url("eventastic").await?).await?));
        // Its functions are written in a syntax that PostgreSQL 15 does not know.
        if server.version >= 160_000 {
            all.push(Box::new(
                disintegrate::Disintegrate::connect(&url("disintegrate").await?).await?,
            ));
        } else {
            eprintln!("bench: disintegrate is left out: it needs PostgreSQL 16");
        }
    }
    #[cfg(not(feature = "compare"))]
    let _ = alone;
    Ok(all)
}
