//! The four databases of a run, on one server.

use anyhow::Context;
use reqwest::Url;
use tokio_postgres::{Client, NoTls};

use crate::{args::DatabaseArgs, kind::Kind};

/// The booking service's database, as opposed to those of the [`Kind`]s.
pub(crate) const BOOKING: &str = "booking";

#[derive(Clone, Debug)]
pub(crate) struct Databases {
    server: Url,
    prefix: String,
}

impl Databases {
    /// With the prefix that is asked for, or one of this process's own.
    pub(crate) fn of(args: &DatabaseArgs) -> Self {
        let own = || format!("annals_travel_{}", std::process::id());
        let prefix = args.databases.clone().unwrap_or_else(own);
        Self { server: args.database_url.clone(), prefix }
    }

    fn names(&self) -> impl Iterator<Item = String> {
        let services = Kind::ALL.map(Kind::name).into_iter().chain([BOOKING]);
        services.map(|service| self.name(service))
    }

    fn name(&self, service: &str) -> String {
        format!("{}_{service}", self.prefix)
    }

    /// What their names begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The URL of a service's database.
    pub(crate) fn url(&self, service: &str) -> String {
        let mut url = self.server.clone();
        url.set_path(&self.name(service));
        url.into()
    }

    /// Creates them. It fails if there are any: what is in them is somebody's.
    pub(crate) async fn create(&self) -> anyhow::Result<()> {
        let server = self.connect().await?;
        for name in self.names() {
            let created = server.batch_execute(&format!("create database {name}")).await;
            created.with_context(|| format!("cannot create the database {name}"))?;
        }
        Ok(())
    }

    /// Removes them, also while somebody is connected.
    pub(crate) async fn remove(&self) -> anyhow::Result<()> {
        let server = self.connect().await?;
        for name in self.names() {
            let sql = format!("drop database if exists {name} with (force)");
            let dropped = server.batch_execute(&sql).await;
            dropped.with_context(|| format!("cannot drop the database {name}"))?;
        }
        Ok(())
    }

    async fn connect(&self) -> anyhow::Result<Client> {
        let connected = tokio_postgres::connect(self.server.as_str(), NoTls).await;
        let (client, connection) = connected.context("cannot connect to PostgreSQL")?;
        // It ends with the client; what it fails with, the client's statements say.
        tokio::spawn(connection);
        Ok(client)
    }
}
