//! The server that everybody runs on: what it is, and databases on it.

use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio_postgres::{Client, NoTls};

use crate::cpu::Times;

/// Where a run took place.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Environment {
    pub(crate) postgres: String,
    pub(crate) fsync: String,
    pub(crate) synchronous_commit: String,
    pub(crate) full_page_writes: String,
    pub(crate) wal_sync_method: String,
    pub(crate) shared_buffers: String,
    pub(crate) max_wal_size: String,
    pub(crate) cores: usize,
    /// Of the last minute, when the run started.
    pub(crate) load_average: Option<f64>,
    pub(crate) pg_stat_statements: bool,
}

/// A server, and the databases made on it for this run.
pub(crate) struct Server {
    url: String,
    admin: Client,
    prefix: String,
    databases: Mutex<Vec<String>>,
    /// As `server_version_num` has it: 150004 is 15.4.
    #[cfg_attr(not(feature = "compare"), expect(dead_code))]
    pub(crate) version: u32,
    pub(crate) environment: Environment,
}

impl Server {
    /// Connects, and refuses a server that could lose what it has acknowledged.
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let admin = connect(url).await?;
        let environment = environment(&admin).await?;
        let durable = [
            ("fsync", &environment.fsync),
            ("synchronous_commit", &environment.synchronous_commit),
            ("full_page_writes", &environment.full_page_writes),
        ];
        for (setting, value) in durable {
            ensure!(
                value == "on",
                "the server has {setting} = {value}, and figures without durability say nothing: \
                 set it to on, or unset DATABASE_URL and let `cargo xtask bench` start a server"
            );
        }
        let prefix = format!("annals_bench_{}", std::process::id());
        let url = url.to_owned();
        let version = "select current_setting('server_version_num')";
        let version = admin.query_one(version, &[]).await?.get::<_, String>(0).parse()?;
        Ok(Self { url, admin, prefix, databases: Mutex::default(), version, environment })
    }

    /// Makes a fresh database and returns its URL.
    pub(crate) async fn database(&self, name: &str) -> Result<String> {
        let count = self.made().len();
        let name = format!("{}_{count}_{name}", self.prefix);
        self.admin.batch_execute(&format!("create database {name}")).await?;
        let url = with_database(&self.url, &name)?;
        self.made().push(name);
        Ok(url)
    }

    /// Drops what was made. Whoever is still connected is disconnected.
    pub(crate) async fn drop_databases(&self) -> Result<()> {
        let names = std::mem::take(&mut *self.made());
        for name in names {
            let drop = format!("drop database if exists {name} with (force)");
            self.admin.batch_execute(&drop).await?;
        }
        Ok(())
    }

    /// Writes out what earlier runs have left to be written.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        self.admin.batch_execute("checkpoint").await.context("cannot checkpoint the server")
    }

    /// How many bytes of WAL the server has written since it was made.
    pub(crate) async fn wal_bytes(&self) -> Result<u64> {
        let sql = "select (pg_current_wal_insert_lsn() - '0/0')::int8";
        let bytes: i64 = self.admin.query_one(sql, &[]).await?.get(0);
        Ok(u64::try_from(bytes)?)
    }

    /// The processor time of this process.
    pub(crate) fn own_cpu(&self) -> Times {
        Times::of([std::process::id()])
    }

    /// The processor time of the server's backends of this run's databases, if it is on this machine.
    pub(crate) async fn backends_cpu(&self) -> Result<Times> {
        let pids = "select pid from pg_stat_activity where starts_with(datname, $1)";
        let rows = self.admin.query(pids, &[&self.prefix]).await?;
        Ok(Times::of(rows.iter().filter_map(|row| u32::try_from(row.get::<_, i32>(0)).ok())))
    }

    /// How many statements the server has executed in the databases of this run of that name; `None`
    /// if it does not count them.
    pub(crate) async fn statements(&self, name: &str) -> Result<Option<i64>> {
        if !self.environment.pg_stat_statements {
            return Ok(None);
        }
        let sql = "select coalesce(sum(calls), 0)::int8 from pg_stat_statements s \
             join pg_database d on d.oid = s.dbid where d.datname like $1";
        let pattern = format!("{}%{name}", self.prefix);
        Ok(Some(self.admin.query_one(sql, &[&pattern]).await?.get(0)))
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.databases.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A connection of our own.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("cannot connect to DATABASE_URL")?;
    tokio::spawn(connection);
    Ok(client)
}

async fn environment(admin: &Client) -> Result<Environment> {
    let setting = async |name: &str| {
        let row = admin.query_one("select current_setting($1)", &[&name]).await?;
        anyhow::Ok(row.get::<_, String>(0))
    };
    // It needs both, and is not ours to create.
    let counting = "select current_setting('shared_preload_libraries') like '%pg_stat_statements%' \
         and exists (select from pg_extension where extname = 'pg_stat_statements')";
    let counting = admin.query_one(counting, &[]).await?.get(0);
    Ok(Environment {
        postgres: setting("server_version").await?,
        fsync: setting("fsync").await?,
        synchronous_commit: setting("synchronous_commit").await?,
        full_page_writes: setting("full_page_writes").await?,
        wal_sync_method: setting("wal_sync_method").await?,
        shared_buffers: setting("shared_buffers").await?,
        max_wal_size: setting("max_wal_size").await?,
        cores: std::thread::available_parallelism().map_or(1, Into::into),
        load_average: load_average(),
        pg_stat_statements: counting,
    })
}

fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// The same URL with another database.
fn with_database(url: &str, name: &str) -> Result<String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        bail!("DATABASE_URL is no URL: write it as postgres://USER@HOST:PORT/DATABASE");
    };
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, q)| (rest, Some(q)));
    let server = rest.split_once('/').map_or(rest, |(server, _)| server);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{scheme}://{server}/{name}{query}"))
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn only_the_database_of_a_url_is_replaced() {
        let other = |url| with_database(url, "x").unwrap();
        assert_eq!(other("postgres://a@h:1/annals"), "postgres://a@h:1/x");
        assert_eq!(other("postgres://a@h:1"), "postgres://a@h:1/x");
        assert_eq!(other("postgres://a@h/b?c=d"), "postgres://a@h/x?c=d");
        assert!(with_database("host=h", "x").is_err());
    }
}
